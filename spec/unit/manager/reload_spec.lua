local errors = require("lunashard.errors")
local lunashard = require("lunashard")

-- Managers that are not initialized: nobody is asked, so these need no servers.
describe("manager:reload", function()
  local function options(more)
    local all = {
      name = "spec",
      shards = {
        { shard_id = "shard1", host = "db1", database = "app", user = "app", password = "sesame" },
        { shard_id = "shard2", host = "db2", database = "app", user = "app", password = "sesame",
          replicas = { { host = "r2" } } },
      },
      strategy = { "range", ranges = { shard1 = { nil, 999 }, shard2 = { 1000, 1999 } }, allow_gaps = true },
      tables = { users = { shard_key = "user_id", type = "int8" } },
    }
    for name, value in pairs(more or {}) do
      all[name] = value
    end
    return all
  end

  local function messages(changes)
    local list = {}
    for i, change in ipairs(changes) do
      list[i] = change.message
    end
    return list
  end

  -- What the manager is, as far as it can be seen.
  local function picture(manager)
    local names = {}
    for _, member in ipairs(manager.members) do
      for _, endpoint in ipairs(member.endpoints) do
        names[#names + 1] = ("%s %s %s"):format(member.shard_id, endpoint.configured_role, endpoint.name)
      end
    end
    return { names, manager.options.query_timeout, manager.options.connection_pool_size, manager.tables.users.shard_key,
      (manager:get_shard_for_write(5)).shard_id, manager.shards[1].weight }
  end

  it("changes nothing when nothing has changed", function()
    local manager = lunashard.manager(options())
    local before = picture(manager)
    assert.same({}, messages(assert(manager:reload(options()))))
    assert.same(before, picture(manager))
  end)

  it("says what has changed, and hides secrets", function()
    local manager = lunashard.manager(options())
    local given = options({ query_timeout = 7, max_replica_lag = { bytes = 1 } })
    given.shards[1].password, given.shards[1].pool_size = "open", 5
    given.shards[1].tags = { env = "test" }
    given.shards[2].replicas = { { host = "r3", port = 5433 } }
    given.tables.orders = { shard_key = "user_id", type = "int8" }
    local list = messages(assert(manager:reload(given)))
    assert.same({
      "max_replica_lag changed",
      "query_timeout: 30 -> 7",
      "tables.orders added",
      "shard1: tags changed",
      "shard1 (db1:5432): pool_size: none -> 5",
      "shard1 (db1:5432): password changed",
      "shard2 (r3:5433): replica added",
      "shard2 (r2:5432): replica removed",
    }, list)
    assert.equal(7, manager.options.query_timeout)
    assert.equal(1, manager:member("shard1").max_lag_bytes)
    assert.same({ env = "test" }, manager.shards[1].tags)
    assert.equal(5, manager.shards[1].pool_size)
    assert.equal("r3", manager.shards[2].replicas[1].host)
    assert.is_nil(require("inspect")(manager):find("sesame", 1, true))
    assert.same({}, messages(assert(manager:reload(given))))
  end)

  it("keeps what is known of an endpoint that stays", function()
    local manager = lunashard.manager(options())
    local primary = manager:member("shard1").primary
    local given = options()
    given.shards[1].password, given.shards[1].replicas = "open", { { host = "r1" } }
    assert(manager:reload(given))
    assert.equal(primary, manager:member("shard1").primary)
    assert.equal(primary.health, manager.shard_health.shard1)
    assert.equal("r1:5432", manager:member("shard1").replicas[1].name)
  end)

  it("adds and removes shards where no key moves", function()
    local manager = lunashard.manager(options())
    local given = options({ strategy = { "range", allow_gaps = true,
      ranges = { shard1 = { nil, 999 }, shard2 = { 1000, 1999 }, shard3 = { 2000 } } } })
    given.shards[3] = { shard_id = "shard3", host = "db3", database = "app" }
    assert.same({ "shard3: shard added" }, messages(assert(manager:reload(given))))
    assert.equal("shard3", (manager:get_shard_for_write(2001)).shard_id)
    local _, err = manager:reload(options())
    assert.equal("PLACEMENT_CHANGED", err.code)
    assert.is_true(err.movement.moved > 0)
    assert.same({ "shard3: shard removed" }, messages(assert(manager:reload(options(), { allow_placement_change = true }))))
    assert.equal("NO_SHARD", select(2, manager:get_shard_for_write(2001)).code)
  end)

  it("gives routers their new defaults, and leaves them what they chose themselves", function()
    local manager = lunashard.manager(options())
    local plain, own = lunashard.router(manager), lunashard.router({ shard_manager = manager, retries = 1, hedge = false })
    assert(manager:reload(options({ query_timeout = 7, retries = 5, hedge = 0.9, retry_budget = 0.5 })))
    assert.same({ 7, 5, 0.9, 0.5 }, { plain.query_timeout, plain.retries, plain.hedge, plain.retry_budget.share })
    assert.same({ 7, 1, false, 0.5 }, { own.query_timeout, own.retries, own.hedge, own.retry_budget.share })
  end)

  it("gives an option that is not there any more its default", function()
    local manager = lunashard.manager(options({ query_timeout = 7, hedge = 0.9 }))
    local router = lunashard.router(manager)
    assert.same({ "hedge: 0.9 -> none", "query_timeout: 7 -> 30" }, messages(assert(manager:reload(options()))))
    assert.equal(30, router.query_timeout)
    assert.is_nil(router.hedge)
  end)

  local function refuses(what, message, change, code)
    it("refuses " .. what .. ", and changes nothing", function()
      local manager = lunashard.manager(options())
      local before, given = picture(manager), options({ query_timeout = 9, connection_pool_size = 3 })
      given.shards[1].password = "open"
      change(given)
      local changed, err = manager:reload(given)
      assert.is_nil(changed)
      assert.is_true(errors.is(err, code or "INVALID"), tostring(err))
      assert.is_truthy(err.message:find(message, 1, true), err.message)
      assert.is_nil(tostring(err):find("sesame", 1, true))
      assert.same(before, picture(manager))
    end)
  end

  refuses("an unknown option", 'did you mean "query_timeout"', function(given)
    given.query_timeot = 1
  end)
  refuses("a value that is wrong", "shards[1].port: expected an integer from 1 to 65535", function(given)
    given.shards[1].port = 0
  end)
  refuses("no shards", "shards: missing", function(given)
    given.shards = {}
  end)
  refuses("another name", "name: cannot be changed while the manager works", function(given)
    given.name = "other"
  end)
  refuses("another database", "shard1: db1:5432: database: cannot be changed", function(given)
    given.shards[1].database = "other"
  end)
  refuses("another key of a table", "tables.users: the key of a table cannot be changed", function(given)
    given.tables.users.shard_key = "id"
  end)
  refuses("another strategy", "to another shard while their rows stay where they are", function(given)
    given.strategy = { "hash", shard_key = "user_id" }
  end, "PLACEMENT_CHANGED")
  refuses("ranges that move keys", "to another shard while their rows stay", function(given)
    given.strategy.ranges = { shard1 = { nil, 899 }, shard2 = { 900, 1999 } }
  end, "PLACEMENT_CHANGED")
  refuses("a strategy that is wrong", "strategy", function(given)
    given.strategy = { "rnage" }
  end)
  refuses("a primary that becomes a replica of what was its replica, unasked", "r2:5432", function(given)
    given.shards[2].host, given.shards[2].replicas = "r2", { { host = "db9" } }
  end)

  it("raises for what are no options at all", function()
    local manager = lunashard.manager(options())
    assert.error_matches(function() manager:reload() end, "reload: expected a table of options, got a nil")
    assert.error_matches(function() manager:reload(options(), { force = true }) end, 'unknown option "force" of reload')
  end)

  it("says that the manager was shut down", function()
    local manager = lunashard.manager(options())
    manager:shutdown()
    assert.equal("CLOSED", select(2, manager:reload(options())).code)
  end)
end)
