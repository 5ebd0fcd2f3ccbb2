local errors = require("lunashard.errors")
local strategy = require("lunashard.strategy")
local task = require("lunashard.task")

local SHARDS = { { shard_id = "shard1" }, { shard_id = "shard2" } }

local function bind(options)
  return strategy.bind(strategy.directory(options), SHARDS)
end

local function raises(text, options)
  local ok, message = pcall(bind, options)
  assert.is_false(ok)
  assert.truthy(tostring(message):find(text, 1, true), tostring(message))
end

-- A lookup that counts its calls and may be told to take its time.
local function counting(answer, seconds)
  local calls = {}
  return function(key)
    calls[#calls + 1] = key
    if seconds then
      task.sleep(seconds)
    end
    return answer(key)
  end, calls
end

describe("strategy.directory", function()
  it("answers from its entries, whatever form the key has", function()
    local bound = bind({ key_type = "int8", entries = { [42] = "shard2", ["9007199254740993"] = "shard1" } })
    for _, key in ipairs({ 42, 42LL, "042" }) do
      assert.same({ "shard2", 42 }, { bound:route(key) })
    end
    assert.equal("shard1", (bound:route(9007199254740993LL)))
    assert.equal("9007199254740993", bound:bucket(9007199254740993LL))
    assert.equal("shard1", bound:place("9007199254740993"))
    assert.equal("NO_SHARD: the directory has no entry for key 7", tostring(select(2, bound:route(7))))
  end)

  it("falls back to the default shard", function()
    local bound = bind({ entries = { acme = "shard2" }, default_shard = "shard1" })
    assert.same({ shard1 = 2, shard2 = 1 }, bound:get_distribution({ "acme", "other", "third" }))
  end)

  it("asks once for a key and remembers, until told to forget", function()
    local where = "shard1"
    local lookup, calls = counting(function()
      return where
    end)
    local bound = bind({ key_type = "int8", lookup = lookup })
    assert.equal("shard1", (bound:route(7)))
    assert.equal("shard1", (bound:route("7")))
    assert.same({ 7 }, calls)
    where = "shard2"
    bound:invalidate(7LL)
    assert.equal("shard2", (bound:route(7)))
    where = "shard1"
    bound:invalidate()
    assert.equal("shard1", (bound:route(7)))
    assert.equal(3, #calls)
  end)

  it("asks again when the time is over, sooner for keys that were not found", function()
    local known = {}
    local lookup, calls = counting(function(key)
      return known[key]
    end)
    local bound = bind({ lookup = lookup, ttl = 3600, negative_ttl = 0 })
    assert.equal("NO_SHARD", select(2, bound:route("new")).code)
    known.new = "shard2"
    assert.equal("shard2", (bound:route("new")))
    assert.equal("shard2", (bound:route("new")))
    assert.equal(2, #calls)
    local never = bind({ lookup = lookup, ttl = 0 })
    never:route("new")
    never:route("new")
    assert.equal(4, #calls)
  end)

  it("holds no more than max_entries", function()
    local lookup, calls = counting(function()
      return "shard1"
    end)
    local bound = bind({ lookup = lookup, max_entries = 2 })
    for _, key in ipairs({ "a", "b", "c", "c", "b", "a" }) do
      bound:route(key)
    end
    assert.same({ "a", "b", "c", "a" }, calls)
  end)

  it("lets tasks that ask for the same key share one lookup", function()
    local lookup, calls = counting(function(key)
      return key == "x" and "shard2" or "shard1"
    end, 0.01)
    local bound, waiting = bind({ lookup = lookup }), {}
    for i = 1, 20 do
      waiting[i] = function()
        return (bound:route(i % 2 == 0 and "x" or "y"))
      end
    end
    local results = assert(task.gather(waiting))
    for i = 1, 20 do
      assert.equal(i % 2 == 0 and "shard2" or "shard1", results[i])
    end
    assert.equal(2, #calls)
  end)

  it("asks again for those who wait when the task that asked is cancelled", function()
    local lookup, calls = counting(function()
      return "shard2"
    end, 0.02)
    local bound = bind({ lookup = lookup })
    local first = task.spawn(function()
      bound:route("k")
    end):watch()
    task.sleep(0)
    local second = task.spawn(function()
      return (bound:route("k"))
    end)
    task.sleep(0)
    first:cancel()
    local ok, shard_id = second:join(2)
    assert.is_true(ok)
    assert.equal("shard2", shard_id)
    assert.equal("canceled", first:status())
    assert.equal(2, #calls)
  end)

  it("does not store what was looked up before an invalidation", function()
    local where = "shard1"
    local lookup = counting(function()
      local answer = where
      task.sleep(0.02)
      return answer
    end)
    local bound = bind({ lookup = lookup })
    local early = task.spawn(function()
      return (bound:route("k"))
    end)
    task.sleep(0.001)
    where = "shard2"
    bound:invalidate("k")
    assert.same({ true, "shard1" }, { early:join(2) })
    assert.equal("shard2", (bound:route("k")))
  end)

  it("fails when the lookup fails: never the default, never remembered", function()
    local err, calls = errors.new("SHARD_DOWN", {}), 0
    local bound = bind({
      default_shard = "shard1",
      lookup = function(key)
        calls = calls + 1
        if key == "raise" then
          error("oops")
        elseif key == "text" then
          return nil, "broken"
        elseif key == "unknown" then
          return "shard7"
        end
        return nil, err
      end,
    })
    for _ = 1, 2 do
      local shard_id, got = bound:route("down")
      assert.is_nil(shard_id)
      assert.equal(err, got)
    end
    assert.equal(2, calls)
    assert.equal("PLUGIN_FAILED", select(2, bound:route("raise")).code)
    assert.matches("oops", select(2, bound:route("raise")).message)
    assert.equal("PLUGIN_FAILED", select(2, bound:route("text")).code)
    local _, unknown = bound:route("unknown")
    assert.equal("INVALID", unknown.code)
    assert.matches('there is no shard "shard7"; did you mean "shard1"?', unknown.message)
  end)

  it("asks its table with quoted names and the key as a parameter", function()
    local asked = {}
    local bound = bind({
      table = 'app.tenant"directory',
      on = "shard2",
      key_column = "tenant id",
      shard_column = "where",
      key_type = "int8",
    })
    assert.equal("INVALID", select(2, bound:route(1)).code)
    bound:attach(function(shard_id, sql, params)
      asked = { shard_id, sql, params }
      if params[1] == 3 then
        return { rows = { { shard_id = "shard1" }, { shard_id = "shard2" } } }
      end
      return { rows = params[1] == 1 and { { shard_id = "shard1" } } or {} }
    end)
    assert.equal("shard1", (bound:route("1")))
    assert.same({
      "shard2",
      'SELECT DISTINCT "where"::text AS shard_id FROM "app"."tenant""directory" WHERE "tenant id" = $1 LIMIT 2',
      { 1 },
    }, asked)
    assert.equal("NO_SHARD", select(2, bound:route(2)).code)
    assert.matches("several shards for key 3", select(2, bound:route(3)).message)
  end)

  it("refuses options that make no directory", function()
    raises("give entries, lookup or table", {})
    raises("lookup must be a function", { lookup = "f" })
    raises("not both", { lookup = print, table = "t" })
    raises("key_column is missing", { table = "t", on = "shard1", shard_column = "s" })
    raises('on: there is no shard "shard9"', { table = "t", on = "shard9", key_column = "k", shard_column = "s" })
    raises('entries: there is no shard "shrad1"; did you mean "shard1"?', { entries = { a = "shrad1" } })
    raises('default_shard: there is no shard "x"', { entries = {}, default_shard = "x" })
    raises("entries: key 1.5 is not an int8", { entries = { [1.5] = "shard1" } })
    raises("ttl must be a number, 0 or more", { entries = {}, ttl = -1 })
    raises("max_entries must be a number, 1 or more", { entries = {}, max_entries = 0 })
    raises("one column", { entries = {}, shard_key = { "a", "b" }, key_type = { "int8", "text" } })
    raises('unknown option "entires" of strategy directory; did you mean "entries"?', { entires = {} })
  end)
end)
