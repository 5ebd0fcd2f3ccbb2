-- Tasks: spawn, join, gather, cancel and deadlines; 10,000 tasks share 20 connections.

local lunashard = require("lunashard")
local errors = lunashard.errors

local function ask(shard_id, sql, params, timeout)
  return router:execute(sql, params, { shard_id = shard_id, timeout = timeout })
end
local first = manager.shards[1].shard_id

-- spawn and join: work goes on meanwhile, and the function's values come back.
local task = lunashard.spawn(function(seconds)
  assert(ask(first, "SELECT pg_sleep($1)", { seconds }))
  return "slept on the server"
end, 0.2)
local turns = 0
while task:status() ~= "ended" do
  lunashard.sleep(0.005)
  turns = turns + 1
end
local ok, what = task:join()
assert(ok and turns >= 3)
print(("A task %s while we took %s turns"):format(what, turns >= 3 and "many" or "no"))

-- gather: all at the same time, the results in order.
local started = lunashard.now()
local fns = {}
for i = 1, 30 do
  fns[i] = function()
    local shard = manager.shards[i % #manager.shards + 1]
    return assert(ask(shard.shard_id, "SELECT $1::int * 11 AS n FROM pg_sleep(0.1)", { i })).rows[1].n
  end
end
local results = assert(lunashard.gather(fns))
local elapsed = lunashard.now() - started
assert(results[1] == 11 and results[30] == 330)
assert(elapsed < 2, ("30 times 0.1 s took %.2f s"):format(elapsed))
print("30 sleeps of 0.1 s at the same time: well below 3 s")

-- The first failure cancels the others, on the servers too.
started = lunashard.now()
local failed, err = lunashard.gather {
  function()
    return assert(ask(first, "SELECT pg_sleep(30)"))
  end,
  function()
    return assert(ask(first, "SELECT 1 / 0"))
  end,
}
assert(not failed and err.sqlstate == "22012" and lunashard.now() - started < 5)
print("One failed, the other was cancelled: " .. err.message)

-- cancel: a task's wait ends at once, and it may clean up behind itself.
local cleaned = false
local sleeper = lunashard.spawn(function()
  local fine, reason = pcall(ask, first, "SELECT pg_sleep(30) /* demo sleeper */")
  cleaned = not fine and errors.is(reason, "CANCELED")
  error(reason, 0)
end)
lunashard.sleep(0.05)
sleeper:cancel()
ok, err = sleeper:join(5)
assert(not ok and err.code == "CANCELED" and cleaned)
print("Cancelled: " .. err.code)

-- Its statement was cancelled on the server as well.
local deadline = lunashard.now() + 5
local running
repeat
  lunashard.sleep(0.02)
  running = assert(ask(first, [[SELECT count(*) AS n FROM pg_stat_activity
    WHERE state = 'active' AND query LIKE '%demo sleeper%' AND pid <> pg_backend_pid()]])).rows[1].n
until running == 0 or lunashard.now() > deadline
print(("Still running on the server: %d"):format(running))
assert(running == 0)

-- A timeout is one deadline for everything inside: waiting for a connection, the statement, retries.
started = lunashard.now()
ok, err = ask(first, "SELECT pg_sleep(30)", nil, 0.2)
assert(not ok and err.code == "TIMEOUT" and lunashard.now() - started < 3)
print("Timed out: " .. err.code)
ok, err = lunashard.gather({
  function()
    lunashard.sleep(30)
  end,
}, { timeout = 0.1 })
assert(not ok and err.code == "TIMEOUT")

-- 10,000 tasks on 20 connections: they wait their turn, in order.
local TASKS = 10000
local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local one = lunashard.manager {
  shards = { shards[1] },
  strategy = lunashard.strategy.hash { shard_key = "user_id" },
  connection_pool_size = 20,
}
assert(one:initialize())
local crowd = lunashard.router { shard_manager = one, query_timeout = 60 }
started = lunashard.now()
local sum, tasks = 0, {}
for i = 1, TASKS do
  tasks[i] = lunashard.spawn(function()
    local result = assert(crowd:execute("SELECT $1::int AS n", { i }, { routing_key = i }))
    sum = sum + result.rows[1].n -- not in the line above: between reading sum and writing it nothing may wait
  end)
end
for _, member in ipairs(tasks) do
  assert(member:join())
end
local stats = one:get_pool_stats(shards[1].shard_id)
assert(sum == TASKS * (TASKS + 1) / 2, "a task's answer was lost")
assert(stats.size <= 20)
print(("%d tasks on at most %d connections, every answer right, %.0f a second"):format(TASKS, stats.max_size,
  TASKS / (lunashard.now() - started)))
one:shutdown()

-- expect: A task slept on the server while we took many turns
-- expect: 30 sleeps of 0%.1 s at the same time: well below 3 s
-- expect: One failed, the other was cancelled: division by zero
-- expect: Cancelled: CANCELED
-- expect: Still running on the server: 0
-- expect: Timed out: TIMEOUT
-- expect: 10000 tasks on at most 20 connections, every answer right
