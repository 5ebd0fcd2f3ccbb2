-- Mixed work for some minutes; fails when memory or descriptors grow.
-- Pools are kept small: the buffers of a connection grow to the largest that it has carried, and with few
-- connections all of them have soon carried everything.
--   lunashard run -c <cluster.lua> scripts/dev/soak_memory.lua [minutes]
local lunashard = require("lunashard")
local core = require("lunashard.core.task")
local system = require("lunashard.core.system")

local MINUTES = tonumber((...) or 10)
local TASKS = 40
local KEYS = 1000

local options = assert(require("lunashard.cluster").load(cluster.path))
options.connection_pool_size = 4
local soak_manager = lunashard.manager(options)
assert(soak_manager:initialize())
local router = lunashard.router({ shard_manager = soak_manager })

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS soak;
  CREATE TABLE soak (user_id bigint PRIMARY KEY, n bigint NOT NULL, note text)]]))

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS soak_bulk;
  CREATE TABLE soak_bulk (user_id bigint NOT NULL, note text)]]))

local function key()
  return math.random(KEYS)
end

-- One at a time: each holds a connection of every shard while it waits for the next one.
local bulk_busy = false
local function bulk()
  if bulk_busy then
    return
  end
  bulk_busy = true
  local rows, sets = {}, {}
  for i = 1, math.random(2000) do
    rows[i] = { i, ("x"):rep(math.random(200)) }
    sets[i] = { i }
  end
  assert(router:copy_in("soak_bulk", { "user_id", "note" }, rows, { key = "user_id" }))
  local parts = {}
  local out = assert(router:copy_out("soak_bulk", function(bytes)
    parts[#parts + 1] = bytes
  end))
  assert(out.row_count == #rows and #table.concat(parts) == out.bytes)
  assert(router:execute_many("DELETE FROM soak_bulk WHERE user_id = $1", sets, { key = 1 }).row_count == #rows)
  bulk_busy = false
end

local work = {
  bulk,
  function()
    local k = key()
    assert(router:execute("INSERT INTO soak VALUES ($1, 1, $2) ON CONFLICT (user_id) DO UPDATE SET n = soak.n + 1",
      { k, ("x"):rep(math.random(2000)) }, { routing_key = k }))
  end,
  function()
    local k = key()
    local result = assert(router:execute("SELECT * FROM soak WHERE user_id = $1", { k },
      { routing_key = k, read_only = true }))
    assert(not result.rows[1] or result.rows[1].user_id == k)
  end,
  function()
    local total = assert(router:scatter_gather("SELECT count(*) AS count FROM soak", nil,
      { aggregation_func = lunashard.aggregate.sum("count") }))
    assert(total.rows[1].count <= KEYS)
  end,
  function()
    local k = key()
    assert(router:transaction({ routing_key = k }, function(tx)
      assert(tx:execute("UPDATE soak SET n = n + 1 WHERE user_id = $1", { k }))
      tx:transaction(function()
        error("undo")
      end)
    end))
  end,
  function()
    local stream = router:stream("SELECT user_id, note FROM soak ORDER BY user_id", nil,
      { order_by = "user_id", fetch_size = 50 })
    for _ = 1, math.random(200) do
      if not stream() then
        break
      end
    end
    stream:close()
  end,
  function()
    local k = key()
    local _, err = router:execute("SELECT pg_sleep(0.2)", nil, { routing_key = k, timeout = 0.02, read_only = true })
    assert(err and (err.code == "TIMEOUT" or err.code == "POOL_EXHAUSTED"), tostring(err))
  end,
  function()
    local k = key()
    local _, err = router:execute("SELECT 1/0 -- " .. math.random(1000), nil, { routing_key = k })
    assert(err.sqlstate == "22012", tostring(err))
  end,
  function()
    local task = lunashard.spawn(function()
      router:execute("SELECT pg_sleep(1)", nil, { routing_key = key() })
    end)
    lunashard.sleep(0.01)
    task:cancel()
    task:join()
  end,
}

local function resident_kib()
  for line in io.lines("/proc/self/status") do
    local kib = line:match("^VmRSS:%s+(%d+)")
    if kib then
      return tonumber(kib)
    end
  end
end

local ffi = require("ffi")
ffi.cdef([[
  struct mallinfo2 { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
  struct mallinfo2 mallinfo2(void);
]])

local function heap_kib()
  local info = ffi.C.mallinfo2()
  return tonumber(info.uordblks + info.hblkhd) / 1024
end

local function sample()
  collectgarbage()
  collectgarbage()
  return {
    rss = resident_kib(),
    heap = heap_kib(),
    lua = collectgarbage("count"),
    fds = #assert(system.listdir("/proc/self/fd")),
  }
end

local finish, done = lunashard.now() + MINUTES * 60, 0
local fns = {}
for i = 1, TASKS do
  fns[i] = function()
    while lunashard.now() < finish do
      work[math.random(#work)]()
      done = done + 1
    end
  end
end

local first
fns[TASKS + 1] = function()
  local every = math.max(MINUTES * 6, 3)
  while lunashard.now() < finish do
    lunashard.sleep(every)
    local s = sample()
    if not first and lunashard.now() > finish - MINUTES * 36 then -- caches and the heap are warm
      first = s
    end
    print(("%8d operations, rss %6d KiB, C heap %6.0f KiB, lua %6.0f KiB, %3d descriptors, %3d under way"):format(done,
      s.rss, s.heap, s.lua, s.fds, core.counts().ops))
    io.flush()
  end
end
assert(lunashard.gather(fns))

local last = sample()
for _, what in ipairs({ "rss", "heap", "lua" }) do
  local before, after = first[what], last[what]
  assert(after < before * 1.1 + 512, ("%s grew from %d to %d KiB"):format(what, before, after))
end
assert(last.fds <= first.fds + 5, ("descriptors grew from %d to %d"):format(first.fds, last.fds))
print(("flat: %d operations, rss %d -> %d KiB, C heap %d -> %d KiB"):format(done, first.rss, last.rss, first.heap,
  last.heap))
