local errors = require("lunashard.errors")
local guard = require("lunashard.plugin.guard")
local lunashard = require("lunashard")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")
local task = require("lunashard.task")

local SHARDS = { { shard_id = "s1" }, { shard_id = "s2" }, { shard_id = "s3" }, { shard_id = "s4" } }

local function version(fields, key_type)
  local contract = {
    api = 1,
    kind = "strategy",
    name = "guard_spec",
    new = function(options, shards) return { shards = shards, options = options } end,
    bucket = function(_, key) return tonumber(key % 1024) end,
    place = function(state, bucket) return state.shards[bucket % #state.shards + 1].shard_id end,
  }
  for name, value in pairs(fields or {}) do
    contract[name] = value
  end
  if fields and fields.route then
    contract.bucket, contract.place = nil, nil
  end
  strategy.register(contract)
  return strategy.bind("guard_spec", SHARDS, { key_type = key_type or "int8" })
end

local function refused(before, after, recent)
  local ok, err = guard.check(before, after, recent)
  assert.is_nil(ok)
  assert.is_true(errors.is(err, "PLACEMENT_CHANGED"), tostring(err))
  assert.is_nil(err.message:find("\n"))
  return err
end

-- Text keys to buckets, so that a tenant's name says nothing of where it is.
local function text_bucket(_, key)
  local sum = 5381
  for i = 1, #key do
    sum = (sum * 33 + key:byte(i)) % 16384
  end
  return sum
end

describe("the placement guard", function()
  it("lets a version through that places every key as before, written in another way", function()
    local ok, change = guard.check(version(), version({
      bucket = function(_, key) return key % 1024LL end,
      place = function(state, bucket) return "s" .. bucket % #state.shards + 1 end,
    }))
    assert.is_true(ok)
    assert.equal(0, change.moved)
    assert.equal(0, change.share)
    assert.same({}, change.examples)
    assert.is_true(change.compared > 3000)
  end)

  it("refuses another bucket function, with how many of how many and three examples that are true", function()
    local before = version()
    local after = version({ bucket = function(_, key) return tonumber((key + 1) % 1024) end })
    local err = refused(before, after)
    local moved, total = err.message:match("%((%d+) of (%d+) looked at%)")
    assert.equal(err.movement.moved, tonumber(moved))
    assert.equal(err.movement.total, tonumber(total))
    assert.is_true(err.movement.fraction > 0.9)
    assert.equal(3, #err.movement.examples)
    for _, example in ipairs(err.movement.examples) do
      local from, bucket_from = before:route(example.key)
      local to, bucket_to = after:route(example.key)
      assert.same({ from, to, bucket_from, bucket_to },
        { example.from, example.to, example.bucket_from, example.bucket_to })
      assert.are_not.equal(from, to)
      assert.is_truthy(err.message:find(("%s from %s to %s (bucket %d, then %d)"):format(samples.describe(example.key),
        from, to, bucket_from, bucket_to), 1, true), err.message)
    end
  end)

  it("refuses another place function", function()
    local err = refused(version(), version({
      place = function(state, bucket) return state.shards[(bucket + 1) % #state.shards + 1].shard_id end,
    }))
    assert.equal(err.movement.total, err.movement.moved)
    assert.matches("100.0 %% of the keys", err.message)
  end)

  it("refuses a place that differs for one bucket which no sampled key falls into", function()
    local before = version({ bucket = text_bucket }, "text")
    local one = { bucket = text_bucket, place = function(state, bucket)
      return bucket == 13337 and "s4" or state.shards[bucket % #state.shards + 1].shard_id
    end }
    local err = refused(before, version(one, "text"), {})
    assert.equal("buckets", err.movement.unit)
    assert.equal(1, err.movement.moved)
    assert.matches("bucket 13337 from s2 to s4", err.message)
    assert.matches("less than 0.1 %%", err.message)
  end)

  it("lets buckets be numbered anew where no key moves, and counts them", function()
    local ok, change = guard.check(version(), version({ bucket = function(_, key) return tonumber(key % 2048) end }))
    assert.is_true(ok)
    assert.is_true(change.rebucketed > 100)
  end)

  it("refuses a typo that moves one tenant which was routed lately", function()
    local function by_name(reversed)
      return version({ route = function(_, key) return key:reverse() == reversed and "s2" or "s1" end }, "text")
    end
    local tenant = "the tenant of Zürich, 4711"
    local before, after = by_name("none"), by_name(tenant:reverse())
    local hits = guard.compare(before, after, {}).moved
    assert.equal(0, hits) -- no sample finds it
    assert.equal("s1", (before:route(tenant)))
    local err = refused(before, after)
    assert.equal(1, err.movement.moved)
    assert.equal(tenant, err.movement.examples[1].key)
    assert.matches("1 of 1 that were routed lately", err.message)
  end)

  it("refuses a typo in a tenant's name that nobody has routed yet", function()
    local function by_table(tenants)
      return version({ route = function(_, key) return tenants[key] or "s1" end }, "text")
    end
    local err = refused(by_table({ acme = "s2", umbrella = "s3" }), by_table({ acme = "s2", umbrela = "s3" }))
    assert.equal(2, err.movement.moved)
    assert.matches('"umbrella" from s3 to s1', err.message)
    assert.is_true(guard.check(by_table({ acme = "s2" }), by_table({ acme = "s2", initech = "s1" })))
  end)

  it("refuses a bound that was moved by one, wherever it stands", function()
    local function split(below)
      return version({ route = function(_, key) return key < below and "s1" or "s2" end })
    end
    local seed = os.time()
    local random = samples.random(seed)
    for _ = 1, 30 do
      local bound = math.floor(random(2 ^ 30) * 2 ^ random(20))
      local err = refused(split(bound), split(bound + 1))
      assert.equal(1, err.movement.moved, "seed " .. seed)
      assert.equal(bound, err.movement.examples[1].key, "seed " .. seed)
    end
  end)

  it("refuses to lose keys, and minds neither new ones nor those that never had a shard", function()
    local function ours(limit)
      return version({ route = function(_, key)
        if key < limit then
          return "s1"
        end
        return nil, "beyond " .. limit
      end })
    end
    assert.is_true(guard.check(ours(1000), ours(2000)))
    local err = refused(ours(2000), ours(1000))
    local example = err.movement.examples[1]
    assert.is_nil(example.to)
    assert.equal("beyond 1000", example.reason)
    assert.matches("from s1 to no shard", err.message)
  end)

  it("refuses a version that fails for a key that had a shard", function()
    local err = refused(version(), version({ bucket = function(_, key)
      return key == 42 and error("oops") or tonumber(key % 1024)
    end }))
    assert.equal(42, err.movement.examples[1].key)
    assert.matches("oops", err.movement.examples[1].reason)
  end)

  it("finds one in twenty keys that move, whatever the key type, and measures the share", function()
    local seed = os.time()
    local function some(salt)
      return function(_, key)
        local text = type(key) == "table" and table.concat({ tostring(key[1]), tostring(key[2]) }, "\0") or tostring(key)
        local bucket = text_bucket(nil, text)
        return salt > 0 and bucket % 20 == salt and "s2" or "s1"
      end
    end
    local salt = seed % 19 + 1
    for _, key_type in ipairs({ "int8", "text", "uuid", "date" }) do
      local change = guard.compare(version({ route = some(0) }, key_type), version({ route = some(salt) }, key_type))
      assert.is_true(change.share > 0.02 and change.share < 0.1, ("seed %d: %s %g"):format(seed, key_type, change.share))
    end
  end)

  it("looks at texts too where no type is declared, unless the strategy fails for them", function()
    local function undeclared(route)
      version({ route = route })
      return strategy.bind("guard_spec", SHARDS)
    end
    local err = refused(undeclared(function() return "s1" end), undeclared(function(_, key)
      return type(key) == "string" and "s2" or "s1"
    end))
    assert.equal("string", type(err.movement.examples[1].key))
    local failed = 0
    local function only_numbers(_, key)
      if type(key) == "string" then
        failed = failed + 1
        error("a number is needed")
      end
      return "s1"
    end
    assert.is_true(guard.check(undeclared(only_numbers), undeclared(only_numbers)))
    assert.is_true(failed < 3, failed)
  end)

  -- A strategy that sends some keys elsewhere, by rules drawn by chance.
  local function drawn(rules)
    return version({ route = function(_, key)
      for _, rule in ipairs(rules) do
        if key % rule.of == rule.rest then
          return rule.shard_id
        end
      end
      if key == rules.none then
        return nil, "none"
      end
      return "s" .. tonumber(key % 4) + 1
    end })
  end

  it("counts what a comparison one by one counts, for rules drawn by chance", function()
    local seed = os.time()
    local random = samples.random(seed)
    for _ = 1, 20 do
      local function rules()
        local list = { none = random(100) }
        for i = 1, random(3) do
          list[i] = { of = random(40) + 2, rest = random(20), shard_id = "s" .. random(4) + 1 }
        end
        return list
      end
      local before, after = drawn(rules()), drawn(rules())
      local keys, compared, moved = {}, 0, 0
      for i = 1, 300 do
        keys[i] = i + random(2) * 1000000
        local from, to = before:route(keys[i]), after:route(keys[i])
        compared = compared + (from and 1 or 0)
        moved = moved + (from and from ~= to and 1 or 0)
      end
      local change = guard.compare(before, after, {}, { keys = keys })
      assert.same({ compared, moved }, { change.compared, change.moved }, "seed " .. seed)
      assert.is_true(math.abs(change.share * compared - moved) < 1e-6)
      assert.equal(math.min(3, moved), #change.examples)
      assert.equal(moved == 0, (guard.check(before, after, {}, { keys = keys })) == true, "seed " .. seed)
    end
  end)

  it("compares by the keys that it is given", function()
    local before, after = version(), version({ bucket = function(_, key) return key == 7 and 1 or tonumber(key % 1024) end })
    local change = guard.compare(before, after, {}, { keys = { 6, 7, 8 } })
    assert.same({ 3, 1 }, { change.compared, change.moved })
    change = guard.compare(before, after, { 7 }, { keys = { 6 } })
    assert.same({ compared = 1, moved = 1 }, change.recent)
  end)

  it("lets everything through when told that there are no rows, and says what moves", function()
    local ok, change = guard.check(version(), version({ place = function() return "s1" end }), nil,
      { allow_placement_change = true })
    assert.is_true(ok)
    assert.is_true(change.moved > 1000)
    assert.error_matches(function()
      guard.check(version(), version(), nil, { allow_placement_chnage = true })
    end, 'did you mean "allow_placement_change"')
  end)

  it("lets others run meanwhile, and looks at what these route", function()
    local tenant = "a tenant that came late"
    local before = version({ bucket = text_bucket }, "text")
    local slow = version({ bucket = function(_, key)
      local until_then = task.now() + 0.0001
      repeat until task.now() > until_then -- luacheck: ignore 542
      return key == tenant:upper():lower() and 4711 or text_bucket(nil, key)
    end }, "text")
    local routed
    local other = task.spawn(function()
      routed = before:route(tenant)
    end)
    local change = guard.compare(before, slow, nil, { keys = samples.keys("text", 2000, 3) })
    assert.is_truthy(routed)
    assert.same({ compared = 1, moved = 1 }, change.recent)
    other:join()
  end)
end)

describe("the placement guard of a manager", function()
  local function options(more)
    local all = { shards = {}, strategy = { "guard_spec", shard_key = "id" },
      tables = { t = { shard_key = "id", type = "int8" } } }
    for i = 1, 4 do
      all.shards[i] = { shard_id = "s" .. i, host = "db" .. i, database = "app" }
    end
    for name, value in pairs(more or {}) do
      all[name] = value
    end
    return all
  end

  it("refuses a reload with a changed place, and keeps the old one", function()
    version()
    local manager = lunashard.manager(options())
    local home = manager:get_shard_for_write(42).shard_id
    version({ place = function(state, bucket) return state.shards[(bucket + 1) % 4 + 1].shard_id end })
    local changed, err = manager:reload(options())
    assert.is_nil(changed)
    assert.equal("PLACEMENT_CHANGED", err.code)
    assert.equal(3, #err.movement.examples)
    assert.equal(home, manager:get_shard_for_write(42).shard_id)
    assert(manager:reload(options(), { allow_placement_change = true }))
    assert.are_not.equal(home, manager:get_shard_for_write(42).shard_id)
  end)

  it("knows what was routed before a reload", function()
    local function except(name)
      return version({ route = function(_, key) return ("%d"):format(key % 1e9):reverse() == name and "s2" or "s1" end })
    end
    except("none")
    local manager = lunashard.manager(options())
    assert(manager:get_shard_for_write(918273645))
    except("nobody")
    assert(manager:reload(options()))
    except("546372819")
    local _, err = manager:reload(options())
    assert.equal("PLACEMENT_CHANGED", err.code)
    assert.equal(918273645, err.movement.examples[1].key)
  end)

  it("changes nothing when the strategy was changed while it looked", function()
    local meanwhile
    version({ route = function(_, key)
      if meanwhile then
        local other = meanwhile
        meanwhile = nil
        other()
      end
      return tonumber(key % 2) == 0 and "s1" or "s2"
    end })
    local manager, strategies = lunashard.manager(options())
    function meanwhile()
      assert(manager:reload(options({ query_timeout = 7 }), { allow_placement_change = true }))
      strategies = manager.strategies
    end
    local added, err = manager:add_shard({ shard_id = "s5", host = "db5", database = "app" })
    assert.is_nil(added)
    assert.equal("INVALID", err.code)
    assert.matches("changed meanwhile; try again", err.message)
    assert.equal(strategies, manager.strategies)
    assert.equal(4, #manager.shards)
  end)

  it("asks nothing when the options say that there are no rows", function()
    version()
    local manager = lunashard.manager(options())
    version({ place = function() return "s1" end })
    local given = options({ allow_placement_change = true })
    assert(manager:reload(given))
    given.shards[5] = { shard_id = "s5", host = "db5", database = "app" }
    version({ place = function() return "s5" end })
    assert.is_true(manager:add_shard(given.shards[5], { strategy = given.strategy }))
    assert.equal("s5", manager:get_shard_for_write(42).shard_id)
  end)
end)
