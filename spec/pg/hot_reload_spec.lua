-- Plug-ins that are loaded anew all the time, under load. LUNASHARD_RELOAD_SECONDS=60 is the long form, which says what
-- it did.
local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local plugins = require("spec.support.plugins")
local task = require("lunashard.task")

local SECONDS = tonumber(os.getenv("LUNASHARD_RELOAD_SECONDS")) or 2
local INTERVAL = 0.05
local TASKS = 32
local KEYS = 512

local STRATEGY, AGGREGATE, EXTRACTOR = "strategies/tier.lua", "aggregates/how_many.lua", "extractors/first_param.lua"

local function strategy(n)
  return plugins.strategy({ head = "-- version " .. n, more = "upgrade = function(old, new) return new end" })
end

local function aggregate(n)
  return ([[-- version %d
    return { api = 1, kind = "aggregate", name = "how_many", returns = "row", init = function() return { n = 0 } end,
      step = function(acc) acc.n = acc.n + 1 return acc end, merge = function(a, b) a.n = a.n + b.n return a end,
      finish = function(acc) return { n = acc.n } end }]]):format(n)
end

local function extractor(n)
  return ([[-- version %d
    return { api = 1, kind = "extractor", name = "first_param",
      extract = function(_, params) return params and params[1], "no parameter" end }]]):format(n)
end

local WRONG = {
  { STRATEGY, function() return "return {" end },
  { STRATEGY, function() return plugins.strategy({ place = "return shards[1].shard_id" }) end },
  { STRATEGY, function() return plugins.strategy({ bucket = "return key + nothing" }) end },
  { STRATEGY, function() return plugins.strategy({ place = "return 'no_shard'" }) end },
  { STRATEGY, function(n) return plugins.strategy({ bucket = "error('version " .. n .. "')" }) end },
  { AGGREGATE, function(n) return (aggregate(n):gsub("a.n %+ b.n", "a.n - b.n")) end },
  { EXTRACTOR, function(n) return extractor(n) .. "}" end },
}

-- What is right, told apart by its first line; and what is wrong in every way, so that the old version goes on serving.
local function version(n)
  if n % 5 == 0 then
    local wrong = WRONG[n / 5 % #WRONG + 1]
    return wrong[1], wrong[2](n)
  elseif n % 7 == 0 then
    return AGGREGATE, aggregate(n)
  elseif n % 3 == 0 then
    return EXTRACTOR, extractor(n)
  end
  return STRATEGY, strategy(n)
end

-- As editors do: a new file takes the old one's place; or the old one is emptied and written.
local function save(folder, n)
  local name, text = version(n)
  local path = folder.path .. "/" .. name
  local written = n % 2 == 0 and path .. "~" or path
  local file = assert(io.open(written, "w"))
  file:write(text)
  file:close()
  assert(written == path or os.rename(written, path))
end

-- Kilobytes that are in use: of Lua, and of the process.
local function memory()
  collectgarbage()
  collectgarbage()
  local file = assert(io.open("/proc/self/statm"))
  local resident = tonumber(file:read("*a"):match("^%d+ (%d+)")) * 4
  file:close()
  return collectgarbage("count"), resident
end

describe("plug-ins that are loaded anew all the time", function()
  local folder, router, manager, restore

  setup(function()
    restore = lunashard.set_warn(function() end)
    folder = plugins.folder({ [STRATEGY] = strategy(1), [AGGREGATE] = aggregate(1), [EXTRACTOR] = extractor(1) })
    router, manager = cluster.connect({ plugins = folder.path, strategy = { "tier", shard_key = "id", key_type = "int8" },
      extractor = "first_param",
      tables = { hot_rows = { shard_key = "id", type = "int8" } }, health_check_interval = 3600 })
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS hot_rows; "
      .. "CREATE TABLE hot_rows (id int8 PRIMARY KEY, home text NOT NULL, written int8 NOT NULL DEFAULT 0)"))
    for key = 1, KEYS do
      local home = manager:get_shard_for_write(key).shard_id
      assert(router:execute("INSERT INTO hot_rows VALUES ($1, $2)", { key, home }, { routing_key = key }))
    end
  end)

  teardown(function()
    router:execute_on_all_shards("DROP TABLE IF EXISTS hot_rows")
    cluster.release()
    plugins.clean()
    lunashard.set_warn(restore)
  end)

  -- Statements until `state.done`, each checked: it went where its row is.
  local function work(state, seed)
    local key = seed
    while not state.done do
      key = (key * 48271) % 2147483647
      local id = key % KEYS + 1
      local result, err
      if key % 500 == 0 then
        result, err = router:scatter_gather("SELECT id FROM hot_rows", {}, { aggregation_func = state.how_many })
        if result and result.rows[1].n ~= KEYS then
          state.misrouted = state.misrouted + 1
        end
      elseif key % 10 == 0 then
        result, err = router:execute("UPDATE hot_rows SET written = written + 1 WHERE id = $1", { id }, { routing_key = id })
        state.written = state.written + (result and result.row_count or 0)
      else
        result, err = router:execute("SELECT home FROM hot_rows WHERE id = $1", { id },
          key % 2 == 0 and { routing_key = id } or nil) -- else the extractor finds it
        if result and (result.row_count ~= 1 or result.rows[1].home ~= result.shard_id) then
          state.misrouted = state.misrouted + 1
        end
      end
      if err then
        state.failure = state.failure or tostring(err)
        state.failed = state.failed + 1
      elseif result.row_count ~= 1 then
        state.misrouted = state.misrouted + 1
      end
      state.ended = state.ended + 1
    end
  end

  it("fail, misroute and drop no statement, and take no more memory", function()
    local state = { done = false, written = 0, misrouted = 0, failed = 0, ended = 0,
      how_many = lunashard.aggregate.how_many() }
    local tasks = {}
    for i = 1, TASKS do
      tasks[i] = lunashard.spawn(work, state, i * 7919)
    end
    local began, n, reloaded, refused, unexpected = task.now(), 1, 0, 0, nil
    local lua_before, resident_before
    local bound = setmetatable({}, { __mode = "k" }) -- what was bound to the shards, as long as somebody holds it
    while task.now() - began < SECONDS or n < 20 do
      n = n + 1
      save(folder, n)
      for _, event in ipairs(manager.plugins:look({})) do -- as the watcher does it
        reloaded = reloaded + (event.action == "reloaded" and 1 or 0)
        refused = refused + (event.action == "refused" and 1 or 0)
        unexpected = unexpected or n % 5 ~= 0 and event.error or nil
      end
      bound[manager.strategies] = true
      if not lua_before and n >= 10 and task.now() - began > SECONDS / 4 then
        lua_before, resident_before = memory()
      end
      lunashard.sleep(math.max(0, began + (n - 1) * INTERVAL - task.now()))
    end
    state.done = true
    for _, one in ipairs(tasks) do
      assert(one:join(10))
    end
    local seconds, lua_after, resident_after = task.now() - began, memory()
    local held = 0
    for _ in pairs(bound) do
      held = held + 1
    end
    assert.is_true(held <= 3, held .. " versions of the strategy are held")
    assert.is_nil(state.failure)
    assert.equal(0, state.failed)
    assert.equal(0, state.misrouted)
    assert.is_nil(unexpected)
    assert.equal(n - 1, reloaded + refused)
    assert.equal(math.floor(n / 5), refused)
    local generations = 0
    for _, one in ipairs(manager:get_cluster_status().plugins) do
      generations = generations + one.generation
    end
    assert.equal(reloaded + 3, generations)
    local total = assert(router:scatter_gather("SELECT sum(written)::int8 AS written FROM hot_rows", {},
      { aggregation_func = lunashard.aggregate.sum("written") }))
    assert.equal(state.written, total.rows[1].written)
    assert.is_true(lua_after - lua_before < 1024, ("Lua's memory grew from %d to %d KiB"):format(lua_before, lua_after))
    assert.is_true(resident_after - resident_before < 32 * 1024, ("the process grew from %d to %d KiB"):format(
      resident_before, resident_after))
    if os.getenv("LUNASHARD_RELOAD_SECONDS") then
      io.stderr:write(("%d reloads, %d of them refused, and %d statements in %.0f s (%.0f a second); "
        .. "Lua %d -> %d KiB, process %d -> %d KiB\n"):format(n - 1, refused, state.ended, seconds, state.ended / seconds,
        lua_before, lua_after, resident_before, resident_after))
    end
  end)
end)
