-- Bulk work: copy_in from an iterator, all or nothing; execute_many grouped by shard; stream in order with flat memory.
--
-- It makes (and replaces) the table demo_events on the shards of the sandbox.

local lunashard = require("lunashard")

local EVENTS = 50000

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_events;
  CREATE TABLE demo_events (event_id bigint PRIMARY KEY, user_id bigint NOT NULL, payload text NOT NULL);
]]))

local function count_events()
  local result = assert(router:scatter_gather("SELECT count(*) AS count FROM demo_events", nil,
    { aggregation_func = lunashard.aggregate.count "count" }))
  return result.rows[1].count
end

-- Rows from an iterator: never all of them in memory. Each goes to the shard that owns its user.
local function events(first, last)
  local event_id = first - 1
  return function()
    event_id = event_id + 1
    if event_id <= last then
      return { event_id, event_id % 1000, "payload of " .. event_id }
    end
  end
end
local COLUMNS, KEY = { "event_id", "user_id", "payload" }, { key = "user_id" }
local loaded = assert(router:copy_in("demo_events", COLUMNS, events(1, EVENTS), KEY))
print(("Loaded %d events, %.0f a second"):format(loaded.row_count, loaded.row_count / loaded.duration))
for _, shard in ipairs(manager.shards) do
  print(("  %s: %d"):format(shard.shard_id, loaded.rows_by_shard[shard.shard_id]))
end
assert(count_events() == EVENTS)

-- One bad row anywhere, here a duplicate at the end, and no row of the load stays on any shard.
local function with_duplicate()
  local good, sent = events(EVENTS + 1, EVENTS + 5000), false
  return function()
    local row = good()
    if not row and not sent then
      sent = true
      return { 1, 1, "this event is there already" }
    end
    return row
  end
end
local ok, err = router:copy_in("demo_events", COLUMNS, with_duplicate(), KEY)
assert(not ok and err.code == "SHARDS_FAILED" and err.failed[1].error.sqlstate == "23505")
print(("Refused: %s on %s; events are still %d"):format(err.failed[1].error.sqlstate, err.failed[1].shard_id,
  count_events()))
assert(count_events() == EVENTS)

-- A row without a key is found before anything is committed.
ok, err = router:copy_in("demo_events", COLUMNS, { { -1, 5, "with a user" }, { -2, lunashard.null, "without" } }, KEY)
assert(not ok and err.code == "NULL_KEY" and err.index == 2 and count_events() == EVENTS)
print(("Row %d: %s"):format(err.index, err.code))

-- One statement for many sets of parameters: one transaction a shard, results in the order of the list.
local updates = {}
for i = 1, 2000 do
  local event_id = i * 25
  updates[i] = { event_id, event_id % 1000, "changed " .. event_id }
end
local changed = assert(router:execute_many(
  "UPDATE demo_events SET payload = $3 WHERE event_id = $1 AND user_id = $2 RETURNING payload", updates, { key = 2 }))
assert(changed.row_count == 2000 and changed.results[77].rows[1].payload == "changed " .. 77 * 25)
print(("Changed %d events"):format(changed.row_count))

-- All rows of all shards in one order, a few hundred in memory at a time.
collectgarbage()
local before, peak = collectgarbage("count"), 0
local rows, last, changed_rows = 0, 0, 0
for row in router:stream("SELECT event_id, payload FROM demo_events ORDER BY event_id", nil, { order_by = "event_id" }) do
  assert(row.event_id == last + 1, "rows are out of order")
  rows, last = rows + 1, row.event_id
  changed_rows = changed_rows + (row.payload:find("^changed") and 1 or 0)
  if rows % 5000 == 0 then
    collectgarbage()
    peak = math.max(peak, collectgarbage("count") - before)
  end
end
print(("Streamed %d events in order, %d of them changed"):format(rows, changed_rows))
assert(rows == EVENTS and changed_rows == 2000)
print(("Memory while streaming: %s"):format(peak < 4096 and "flat" or ("grew by %.0f KiB"):format(peak)))

-- A stream that is left early is cancelled on the servers when it is closed, and gives its connections back.
local stream = router:stream("SELECT event_id FROM demo_events")
assert(stream().event_id)
stream:close()
local function connections_in_use()
  local used = 0
  for _, shard in ipairs(manager.shards) do
    used = used + manager:get_pool_stats(shard.shard_id).used
  end
  return used
end
local deadline = lunashard.now() + 5
while connections_in_use() > 0 and lunashard.now() < deadline do
  lunashard.sleep(0.01)
end
print(("Connections in use afterwards: %d"):format(connections_in_use()))
assert(connections_in_use() == 0, "a stream kept its connection")

-- expect: Loaded 50000 events
-- expect: shard1: 1%d%d%d%d\n  shard2: 1%d%d%d%d\n  shard3: 1%d%d%d%d
-- expect: Refused: 23505 on shard%d; events are still 50000
-- expect: Row 2: NULL_KEY
-- expect: Changed 2000 events
-- expect: Streamed 50000 events in order, 2000 of them changed
-- expect: Memory while streaming: flat
-- expect: Connections in use afterwards: 0
