local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")

-- Options of a manager over two shards, changed by the test.
local function options(change)
  local given = {
    shards = {
      { shard_id = "shard1", host = "db1", database = "app", user = "app" },
      { shard_id = "shard2", host = "db2", database = "app", user = "app" },
    },
    strategy = { "hash", shard_key = "user_id" },
  }
  if change then
    change(given)
  end
  return given
end

local function refusal(change)
  local ok, message = pcall(lunashard.manager, options(change))
  assert.is_false(ok)
  return message
end

local function quietly(fn)
  local warnings = {}
  local before = lunashard.set_warn(function(message)
    warnings[#warnings + 1] = message
  end)
  local ok, value = pcall(fn)
  lunashard.set_warn(before)
  assert(ok, value)
  return value, warnings
end

describe("the manager's options", function()
  it("have the documented defaults", function()
    local cfg = lunashard.manager(options()).options
    assert.equal(20, cfg.connection_pool_size)
    assert.equal(0, cfg.connection_pool_min)
    assert.equal(5, cfg.connection_timeout)
    assert.equal(300, cfg.idle_timeout)
    assert.equal(3600, cfg.max_lifetime)
    assert.equal(10000, cfg.max_waiters)
    assert.equal(30, cfg.query_timeout)
    assert.equal(2, cfg.retries)
    assert.equal(3, cfg.max_consecutive_failures)
    assert.equal(256 * 1024 * 1024, cfg.max_result_bytes)
    assert.is_false(cfg.require_all)
  end)

  it("may all be given at once", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    finally(plugins.clean)
    local manager = lunashard.manager(options(function(given)
      given.name, given.environment = "shop", "production"
      given.tables = { users = { shard_key = "user_id", type = "int8" }, countries = { reference = true } }
      given.plugins, given.trusted_plugins, given.on_plugin = folder.path, { "tier" }, print
      given.catalog, given.jobs = { host = "db1" }, {}
      given.require_all, given.enable_auto_failover, given.promote = true, false, false
      given.pipeline, given.read_batches = true, true
      given.health_check_interval, given.health_check_timeout, given.max_replica_lag = 15, 1, 0
      given.max_parallel_shards, given.slow_statement = 4, 0.5
    end))
    assert.equal("shop", manager.name)
    assert.equal(4, manager.options.max_parallel_shards)
    manager:shutdown()
  end)

  it("that are unknown are named with the nearest one", function()
    local message = refusal(function(given)
      given.conection_pool_size = 5
    end)
    assert.is_truthy(message:find('"conection_pool_size"', 1, true), message)
    assert.is_truthy(message:find('"connection_pool_size"', 1, true), message)
  end)

  it("that are unknown in a shard are named with the shard and the nearest one", function()
    local message = refusal(function(given)
      given.shards[2].databse = "x"
    end)
    assert.is_truthy(message:find("shards[2]", 1, true), message)
    assert.is_truthy(message:find('"database"', 1, true), message)
  end)

  -- what is done to the options, and what the message must say
  local CASES = {
    { "a port out of range", function(g) g.shards[2].port = 70000 end,
      "shards[2].port: expected an integer from 1 to 65535, got 70000" },
    { "a port that is no integer", function(g) g.shards[1].port = 54.5 end, "shards[1].port: expected an integer" },
    { "a port given as text", function(g) g.shards[1].port = "5432" end,
      'shards[1].port: expected an integer from 1 to 65535, got "5432"' },
    { "a production cluster without a name", function(g) g.environment = "production" end, "name: missing" },
    { "a weight of 0", function(g) g.shards[1].weight = 0 end, "shards[1].weight: expected a number above 0, got 0" },
    { "a negative weight", function(g) g.shards[1].weight = -2 end, "shards[1].weight: expected a number above 0, got -2" },
    { "a weight that is NaN", function(g) g.shards[1].weight = 0 / 0 end, "shards[1].weight: expected a number above 0" },
    { "an endless timeout", function(g) g.query_timeout = math.huge end, "query_timeout: expected a number above 0" },
    { "a shard twice", function(g) g.shards[2].shard_id = "shard1" end,
      'shards[2].shard_id: "shard1" is already the name of shards[1]' },
    { "a shard without a name", function(g) g.shards[1].shard_id = nil end, "shards[1].shard_id: missing" },
    { "a shard with an empty name", function(g) g.shards[1].shard_id = "" end,
      "shards[1].shard_id: expected a string that is not empty" },
    { "a shard without a host", function(g) g.shards[1].host = nil end, "shards[1].host: missing" },
    { "no shards", function(g) g.shards = {} end, "shards: missing" },
    { "shards that are no list", function(g) g.shards = { a = {} } end, "shards: expected a list" },
    { "a shard that is no table", function(g) g.shards[2] = "db2" end, 'shards[2]: expected a table, got "db2"' },
    { "no strategy", function(g) g.strategy = nil end, "strategy: missing" },
    { "an unknown strategy", function(g) g.strategy = "hahs" end, '"hash"' },
    { "a strategy that names an unknown shard",
      function(g) g.strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 9 }, shard3 = { 10 } } } end,
      '"shard3"' },
    { "overlapping ranges",
      function(g) g.strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 10 }, shard2 = { 10 } } } end,
      "strategy: " },
    { "a wrong sslmode", function(g) g.shards[1].sslmode = "verify_full" end, 'did you mean "verify-full"?' },
    { "a flag given as text", function(g) g.require_all = "yes" end, 'require_all: expected a boolean, got "yes"' },
    { "a negative number of retries", function(g) g.retries = -1 end, "retries: expected an integer, 0 or more, got -1" },
    { "a minimum above the pool's size", function(g) g.connection_pool_min = 21 end, "connection_pool_min: expected at most" },
    { "a replica with a bad port", function(g) g.shards[1].replicas = { { host = "r", port = 0 } } end,
      "shards[1].replicas[1].port: expected an integer from 1 to 65535, got 0" },
    { "a replica without a host", function(g) g.shards[1].replicas = { {} } end, "shards[1].replicas[1].host: missing" },
    { "a replica that is the primary", function(g) g.shards[1].replicas = { { host = "db1" } } end,
      "shards[1].replicas[1]: db1:5432 is already the primary" },
    { "a table without a shard key", function(g) g.tables = { users = {} } end, "tables.users: expected a shard_key" },
    { "an unknown key type", function(g) g.tables = { users = { shard_key = "id", type = "int9" } } end,
      'tables.users.type: expected one of int8, text, uuid, date, got "int9" (did you mean "int8"?)' },
    { "a reference table with a shard key", function(g) g.tables = { c = { reference = true, shard_key = "id" } } end,
      "tables.c: a reference table" },
  }
  for _, case in ipairs(CASES) do
    it("with " .. case[1] .. " are refused in one line that says where", function()
      local message = refusal(case[2])
      assert.is_truthy(message:find(case[3], 1, true), message)
      assert.is_nil(message:find("\n", 1, true))
    end)
  end

  it("raise with the position of the caller", function()
    local ok, message = pcall(function()
      local manager = lunashard.manager({ shards = {} })
      return manager
    end)
    assert.is_false(ok)
    assert.is_truthy(message:find("config_spec.lua:", 1, true), message)
  end)

  it("are neither changed nor kept: what is changed later has no effect", function()
    local given = options()
    local manager = lunashard.manager(given)
    given.shards[1].host = "elsewhere"
    given.query_timeout = 1
    assert.equal("db1", manager.shards[1].host)
    assert.equal(30, manager.options.query_timeout)
    assert.is_nil(given.shards[1].port)
  end)
end)

describe("secrets in the options", function()
  local SECRET = "sesame-4711"

  local function deep_text(value, seen)
    if type(value) == "string" then
      return value
    elseif type(value) ~= "table" or seen[value] then
      return ""
    end
    seen[value] = true
    local parts = {}
    for key, item in pairs(value) do
      parts[#parts + 1] = deep_text(key, seen) .. " " .. deep_text(item, seen)
    end
    return table.concat(parts, " ")
  end

  it("cannot be found in a manager or router, however deep one looks", function()
    local given = options(function(g)
      g.shards[1].password = SECRET
      g.shards[2].replicas = { { host = "r2", password = SECRET } }
    end)
    local manager = lunashard.manager(given)
    local router = lunashard.router({ shard_manager = manager })
    assert.is_nil(deep_text(manager, {}):find(SECRET, 1, true))
    assert.is_nil(deep_text(router, {}):find(SECRET, 1, true))
    assert.is_nil(tostring(manager):find(SECRET, 1, true))
  end)

  it("are not found either when the strategy brought the shards", function()
    local given = options(function(g)
      g.shards[1].metadata = { password = SECRET }
    end)
    local manager = quietly(function()
      local strategy = lunashard.strategy.hash({ shard_key = "user_id", shards = given.shards })
      return lunashard.manager({ strategy = strategy })
    end)
    assert.is_nil(deep_text(manager, {}):find(SECRET, 1, true))
  end)

  it("are not quoted when they are of the wrong type", function()
    local message = refusal(function(g)
      g.shards[1].password = 47114711
    end)
    assert.is_nil(message:find("4711", 1, true), message)
    assert.is_truthy(message:find("shards[1].password", 1, true), message)
  end)
end)

describe("the guide's way of writing options", function()
  local function in_guide_style()
    local shards = {
      { shard_id = "shard1", host = "localhost", port = 5432, database = "app_shard1",
        metadata = { user = "postgres", password = "secret", adapter_type = "postgresql", pool_size = 7, ssl = "require" } },
      { shard_id = "shard2", host = "localhost", port = 5433, database = "app_shard2", metadata = { ssl = true, rack = "r9" } },
    }
    return lunashard.manager({ strategy = lunashard.strategy.hash({ shard_key = "user_id", shards = shards }) })
  end

  it("brings the shards with the strategy and options in metadata", function()
    local manager = quietly(in_guide_style)
    assert.equal(2, #manager.shards)
    assert.equal("postgres", manager.shards[1].user)
    assert.equal("require", manager.shards[1].sslmode)
    assert.equal(7, manager.shards[1].pool_size)
    assert.equal("require", manager.shards[2].sslmode)
    assert.same({ rack = "r9" }, manager.shards[2].metadata)
    assert.is_nil(manager.shards[1].metadata)
  end)

  it("is answered by one warning that names the options to use", function()
    local _, warnings = quietly(in_guide_style)
    assert.equal(1, #warnings)
    for _, text in ipairs({ "metadata.user (use user)", "metadata.password (use password)", "metadata.ssl (use sslmode)" }) do
      assert.is_truthy(warnings[1]:find(text, 1, true), warnings[1])
    end
    assert.is_nil(warnings[1]:find("secret", 1, true))
  end)

  it("is refused for another adapter", function()
    local message = refusal(function(g)
      g.shards[1].metadata = { adapter_type = "mysql" }
    end)
    assert.is_truthy(message:find("shards[1].metadata.adapter_type: only postgresql is supported", 1, true), message)
  end)

  it("checks what metadata holds", function()
    local message = refusal(function(g)
      g.shards[1].metadata = { pool_size = "many" }
    end)
    assert.is_truthy(message:find("shards[1].metadata.pool_size: expected an integer", 1, true), message)
  end)

  it("takes a manager alone for a router's options", function()
    local manager = quietly(in_guide_style)
    assert.equal(manager, lunashard.router(manager).manager)
  end)
end)

describe("the router's options", function()
  it("default to the manager's and may differ from them", function()
    local manager = lunashard.manager(options(function(g)
      g.query_timeout, g.retries = 12, 1
    end))
    assert.equal(12, lunashard.router({ shard_manager = manager }).query_timeout)
    local router = lunashard.router({ shard_manager = manager, query_timeout = 5, retries = 0 })
    assert.equal(5, router.query_timeout)
    assert.equal(0, router.retries)
  end)

  it("are refused without a manager, or when unknown", function()
    assert.has_error(function() lunashard.router({}) end)
    assert.has_error(function() lunashard.router({ shard_manager = {} }) end)
    local ok, message = pcall(lunashard.router, { shard_manager = lunashard.manager(options()), query_timeuot = 1 })
    assert.is_false(ok)
    assert.is_truthy(message:find('"query_timeout"', 1, true), message)
  end)
end)
