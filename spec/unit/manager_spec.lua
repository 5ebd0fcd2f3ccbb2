local errors = require("lunashard.errors")
local lunashard = require("lunashard")

local function shard(number, fields)
  local made = { shard_id = "shard" .. number, host = "db" .. number, database = "app", user = "app" }
  for name, value in pairs(fields or {}) do
    made[name] = value
  end
  return made
end

local function new(strategy, fields)
  local given = { shards = { shard(1), shard(2), shard(3) }, strategy = strategy or { "hash", shard_key = "user_id" } }
  for name, value in pairs(fields or {}) do
    given[name] = value
  end
  return lunashard.manager(given)
end

local function failure(code, value, err)
  assert.is_nil(value)
  assert.is_true(errors.is(err, code), tostring(err))
  return err
end

describe("a manager that is not connected", function()
  it("knows where keys live, one key in all its forms", function()
    local manager = new()
    local home, bucket = manager:get_shard_for_write(42)
    assert.is_string(home.shard_id)
    for _, form in ipairs({ 42.0, 42LL, 42ULL }) do
      local same, same_bucket = manager:get_shard_for_write(form)
      assert.equal(home, same)
      assert.equal(bucket, same_bucket)
    end
  end)

  it("takes a key's text for the same key when its table says int8", function()
    local manager = new(nil, { tables = { users = { shard_key = "user_id", type = "int8" } } })
    assert.equal(manager:get_shard_for_write(12345), manager:get_shard_for_write("12345"))
    failure("INVALID", manager:get_shard_for_write("twelve"))
  end)

  it("never routes NULL or NaN", function()
    local manager = new()
    failure("NULL_KEY", manager:get_shard_for_write(nil))
    failure("NULL_KEY", manager:get_shard_for_write(lunashard.null))
    failure("NULL_KEY", manager:get_shard_for_write(0 / 0))
  end)

  it("refuses a table as a key", function()
    failure("INVALID", new():get_shard_for_write({}))
  end)

  it("uses all shards, and as many keys on each as get_distribution says", function()
    local manager, keys, counts = new(), {}, { shard1 = 0, shard2 = 0, shard3 = 0 }
    for key = 1, 3000 do
      keys[key] = key
      local id = manager:get_shard_for_write(key).shard_id
      counts[id] = counts[id] + 1
    end
    assert.same(counts, manager.strategy:get_distribution(keys))
    for _, n in pairs(counts) do
      assert.is_true(n > 850 and n < 1150, "not even: " .. n)
    end
  end)

  it("keeps tables with different key types apart, and asks which is meant when that matters", function()
    local manager = new(nil, {
      tables = { users = { shard_key = "id", type = "int8" }, docs = { shard_key = "doc", type = "uuid" } },
    })
    local id = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"
    assert.equal(manager:get_shard_for_write(id, { table = "docs" }), manager:get_shard_for_write(id:lower(), { table = "docs" }))
    local err = failure("INVALID", manager:get_shard_for_write(id))
    assert.is_truthy(err.message:find("int8, uuid", 1, true), err.message)
    assert.is_table(manager:get_shard_for_write(7))
  end)

  it("names the nearest table when one is not declared", function()
    local manager = new(nil, { tables = { users = { shard_key = "id", type = "int8" } } })
    local err = failure("INVALID", manager:get_shard_for_write(1, { table = "usres" }))
    assert.is_truthy(err.message:find('"users"', 1, true), err.message)
  end)

  it("reports every shard as unchecked, none as healthy", function()
    local status = new():get_cluster_status()
    assert.equal(0, status.healthy_shards)
    assert.equal(3, status.total_shards)
    assert.equal("unchecked", status.shards.shard2.health.status)
    assert.equal(0, status.error_rate)
  end)

  it("has a health record with the guide's fields for each shard", function()
    local record = new().shard_health.shard3
    for name, value in pairs({ is_healthy = false, consecutive_failures = 0, average_latency_ms = 0, error_rate = 0,
      connection_count = 0 }) do
      assert.equal(value, record[name], name)
    end
    assert.is_nil(record.last_error)
  end)

  it("says which shard is meant when a name is wrong", function()
    local err = failure("NO_SHARD", new():get_shard_status("shrad1"))
    assert.is_truthy(err.message:find('"shard1"', 1, true), err.message)
    failure("NO_SHARD", new():get_pool_stats("nope"))
  end)

  it("asks to be initialized before it is used", function()
    local router = lunashard.router(new())
    local err = failure("INVALID", router:execute("SELECT 1", nil, { routing_key = 1 }))
    assert.is_truthy(err.message:find("initialize", 1, true), err.message)
  end)

  -- With this file as the place.
  local function raises(text, fn)
    local ok, message = pcall(fn)
    assert.is_false(ok)
    assert.is_truthy(message:find("^%S*manager_spec.lua:%d+: "), message)
    assert.is_truthy(message:find(text, 1, true), message)
  end

  it("names the call and its caller when an option of a look-up is unknown", function()
    local manager = new()
    for _, name in ipairs({ "get_shard_for_read", "get_shard_for_write" }) do
      raises('unknown option "tabel" of ' .. name .. '; did you mean "table"?', function()
        manager[name](manager, 1, { tabel = "users" })
      end)
    end
  end)

  it("refuses SQL with a NUL byte, naming the call and its caller", function()
    local router = lunashard.router(new())
    for _, name in ipairs({ "execute", "scatter_gather", "execute_on_all_shards" }) do
      for _ = 1, 2 do
        raises(name .. ": SQL cannot hold a NUL byte", function() router[name](router, "SELECT 1\0") end)
      end
    end
  end)

  it("answers CLOSED to everything after shutdown, which may be called again", function()
    local manager = new()
    local router = lunashard.router(manager)
    assert.is_true(manager:shutdown())
    assert.is_true(manager:shutdown())
    failure("CLOSED", manager:initialize())
    failure("CLOSED", manager:get_shard_for_write(1))
    failure("CLOSED", manager:get_shard_for_read(1))
    failure("CLOSED", manager:get_pool_stats("shard1"))
    failure("CLOSED", manager:add_shard(shard(4)))
    failure("CLOSED", manager:remove_shard("shard1"))
    failure("CLOSED", router:execute("SELECT 1", nil, { routing_key = 1 }))
    failure("CLOSED", router:scatter_gather("SELECT 1"))
    failure("CLOSED", router:execute_on_all_shards("SELECT 1"))
    failure("CLOSED", router:transaction({ routing_key = 1 }, function() end))
    failure("CLOSED", router:begin({ routing_key = 1 }))
    failure("CLOSED", router:execute_many("SELECT $1", { { 1 } }, { key = 1 }))
    failure("CLOSED", router:copy_in("t", { "user_id" }, { { 1 } }))
  end)

  it("says what it is without saying too much", function()
    assert.equal("lunashard.manager(3 shards, hash)", tostring(new()))
  end)
end)

describe("changing the shards of a static map", function()
  it("refuses a new shard under hash, says which share of the keys would move, and changes nothing", function()
    local manager = new()
    local home = manager:get_shard_for_write(42)
    local err = failure("PLACEMENT_CHANGED", manager:add_shard(shard(4)))
    assert.is_true(err.movement.fraction > 0.5 and err.movement.fraction < 1)
    assert.is_truthy(err.message:find("%d+%.%d %%"), err.message)
    assert.is_truthy(err.message:find("allow_placement_change", 1, true), err.message)
    assert.equal(3, #manager.shards)
    assert.equal(home, manager:get_shard_for_write(42))
  end)

  it("moves about a quarter of the keys to a fourth shard under consistent_hash, and none under its refusal", function()
    local manager = new({ "consistent_hash", shard_key = "user_id" })
    local err = failure("PLACEMENT_CHANGED", manager:add_shard(shard(4)))
    assert.is_true(err.movement.fraction > 0.15 and err.movement.fraction < 0.35, tostring(err.movement.fraction))
  end)

  it("adds it when told that there is no data", function()
    local manager = new()
    assert.is_true(manager:add_shard(shard(4), { allow_placement_change = true }))
    assert.equal(4, #manager.shards)
    assert.equal("unchecked", manager.shard_health.shard4.status)
    local keys = {}
    for key = 1, 1000 do
      keys[key] = key
    end
    assert.is_true(manager.strategy:get_distribution(keys).shard4 > 150)
  end)

  local RANGES = { shard1 = { nil, 100 }, shard2 = { 101, 200 }, shard3 = { 201, 300 } }

  local function with_range(more)
    local ranges = {}
    for id, bounds in pairs(RANGES) do
      ranges[id] = bounds
    end
    for id, bounds in pairs(more or {}) do
      ranges[id] = bounds
    end
    return { "range", shard_key = "user_id", ranges = ranges }
  end

  it("appends a range, for no key moves", function()
    local manager = new(with_range())
    failure("NO_SHARD", manager:get_shard_for_write(301))
    assert.is_true(manager:add_shard(shard(4), { strategy = with_range({ shard4 = { 301 } }) }))
    assert.equal("shard4", manager:get_shard_for_write(301).shard_id)
    assert.equal("shard3", manager:get_shard_for_write(300).shard_id)
  end)

  it("refuses new ranges that take a single key from another shard", function()
    local manager = new(with_range())
    failure("PLACEMENT_CHANGED", manager:add_shard(shard(4),
      { strategy = with_range({ shard3 = { 201, 299 }, shard4 = { 300 } }) }))
    assert.equal("shard3", manager:get_shard_for_write(300).shard_id)
  end)

  it("adds a region, and refuses a second shard in a region that has one", function()
    local manager = lunashard.manager({
      shards = { shard(1, { region = "us" }), shard(2, { region = "eu" }) },
      strategy = { "geographic", shard_key = "region", strict = true },
    })
    failure("PLACEMENT_CHANGED", manager:add_shard(shard(3, { region = "eu" })))
    assert.is_true(manager:add_shard(shard(3, { region = "ap" })))
    assert.equal("shard3", manager:get_shard_for_write("ap").shard_id)
  end)

  it("refuses a region whose keys live on the default region's shard", function()
    local manager = lunashard.manager({
      shards = { shard(1, { region = "us" }), shard(2, { region = "eu" }) },
      strategy = { "geographic", shard_key = "region", default_region = "us" },
    })
    assert.equal("shard1", manager:get_shard_for_write("ap").shard_id)
    failure("PLACEMENT_CHANGED", manager:add_shard(shard(3, { region = "ap" })))
  end)

  it("looks at keys beyond a threshold, also inside another strategy", function()
    local threshold = { "threshold", below = 1000000, old = { "range", ranges = { shard1 = { nil, 1000000 } } },
      new = "hash" }
    failure("PLACEMENT_CHANGED", new(threshold):add_shard(shard(4)))
    failure("PLACEMENT_CHANGED", new({ "first_of", { "pins", [7] = "shard2" }, threshold }):add_shard(shard(4)))
  end)

  it("looks at every pin, old and new", function()
    local function pinned(pins)
      return { "first_of", { "pins", entries = pins }, { "range", ranges = { shard1 = {} } } }
    end
    local change = { strategy = pinned({ [70000] = "shard3" }) }
    failure("PLACEMENT_CHANGED", new(pinned({ [70000] = "shard2" })):add_shard(shard(4), change))
    failure("PLACEMENT_CHANGED", new(pinned({ [80000] = "shard1" })):add_shard(shard(4), change))
    assert.is_true(new(pinned({ [70000] = "shard3" })):add_shard(shard(4), change))
  end)

  it("refuses to remove a shard that has keys, and the last one", function()
    failure("PLACEMENT_CHANGED", new():remove_shard("shard2"))
    local single = lunashard.manager({ shards = { shard(1) }, strategy = { "hash", shard_key = "user_id" } })
    failure("INVALID", single:remove_shard("shard1", { allow_placement_change = true }))
  end)

  it("removes a shard that the strategy does not use", function()
    local manager = new({ "range", shard_key = "id", ranges = { shard1 = { nil, 5 }, shard2 = { 6 } } })
    assert.is_true(manager:remove_shard("shard3"))
    assert.equal(2, manager:get_cluster_status().total_shards)
    assert.is_nil(manager.shard_health.shard3)
  end)

  it("raises for wrong options and for a name that is taken", function()
    local manager = new()
    assert.has_error(function() manager:add_shard({ shard_id = "x" }) end)
    assert.has_error(function() manager:add_shard(shard(2)) end)
    assert.has_error(function() manager:add_shard(shard(4), { force = true }) end)
  end)
end)

describe("explain without connections", function()
  it("says the bucket, the shard, the endpoint and why", function()
    local manager = new()
    local plan = assert(lunashard.router(manager):explain("SELECT * FROM users WHERE user_id = $1", { 42 }, { routing_key = 42 }))
    local home, bucket = manager:get_shard_for_write(42)
    assert.equal(home.shard_id, plan.shard_id)
    assert.equal(bucket, plan.bucket)
    assert.equal("read", plan.kind)
    local text = tostring(plan)
    for _, part in ipairs({ home.shard_id, home.host .. ":5432", "user_id = 42", "bucket " .. bucket, "hash" }) do
      assert.is_truthy(text:find(part, 1, true), text)
    end
  end)

  it("names replicas for reads only", function()
    local manager = lunashard.manager({
      shards = { shard(1, { replicas = { { host = "r1" } } }) },
      strategy = { "hash", shard_key = "id" },
    })
    local router = lunashard.router(manager)
    local read = router:explain("SELECT 1", nil, { routing_key = 1, read_only = true })
    assert.equal("r1:5432, else db1:5432", read.endpoints.shard1)
    assert.equal("db1:5432", router:explain("SELECT 1", nil, { routing_key = 1 }).endpoints.shard1)
  end)

  it("says that all shards are asked for a read without a key, and refuses a write without one", function()
    local router = lunashard.router(new())
    assert.same({ "shard1", "shard2", "shard3" }, router:explain("SELECT count(*) FROM users").shards)
    failure("NO_KEY", router:explain("DELETE FROM users"))
  end)

  it("refuses what execute would refuse", function()
    local router = lunashard.router(new())
    failure("INVALID", router:explain("COMMIT", nil, { routing_key = 1 }))
    failure("NULL_KEY", router:explain("SELECT 1", nil, { routing_key = lunashard.null }))
    local owner = new():get_shard_for_write(42).shard_id
    local other = owner == "shard1" and "shard2" or "shard1"
    failure("KEY_MISMATCH", router:explain("SELECT 1", nil, { routing_key = 42, shard_id = other }))
  end)
end)
