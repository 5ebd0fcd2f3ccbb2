--- What ended jobs were told to keep for a while (`purge_delay`), removed when that is over.
-- Every router and `serve` looks now and then; the first one that finds something takes the lock and sees to it.
-- @module lunashard.rebalancer.sweep
-- @local

local errors = require("lunashard.errors")
local lock = require("lunashard.rebalancer.lock")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local sweep = {}

local INTERVAL = 15 -- seconds between two looks of a process
local PATIENCE = 10 -- seconds for a statement

-- A job that was rolled back later has ended twice.
local DUE = [[
  SELECT id, finished_at::text AS ended FROM lunashard_catalog.job
   WHERE (options->>'purge_delay')::float8 > 0
     AND finished_at + make_interval(secs => (options->>'purge_delay')::float8) <= now()
     AND options->>'swept' IS DISTINCT FROM finished_at::text]]
local SWEPT = [[
  UPDATE lunashard_catalog.job SET options = options || jsonb_build_object('swept', $2::text)
   WHERE id = $1 AND finished_at::text = $2]]

local HELD = [[
  SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = 'lunashard_staging' AND c.relkind = 'r' AND c.relname ~ ('^h' || $1::text || '_')]]
local DROP = "SET LOCAL lock_timeout = '2s'; DROP TABLE IF EXISTS %s"

local function drop_held(member, job, deadline)
  local pool = member.primary.pool
  local found, err = pool:execute(HELD, { ("%d"):format(job) }, { deadline = deadline, pipeline = false })
  if not found then
    return nil, err
  end
  local names = {}
  for i, one in ipairs(found.rows) do
    names[i] = one.name
  end
  if names[1] then
    found, err = pool:execute(DROP:format(table.concat(names, ", ")), nil, { deadline = deadline, simple = true })
  end
  return found and #names, err
end

local function drop_everywhere(manager, due)
  local deadline, n = task.now() + PATIENCE, 0
  for _, job in ipairs(due) do
    local outcome = parallel.each(manager.members, function(member)
      return drop_held(member, job.id, deadline)
    end)
    for i in ipairs(manager.members) do
      if not outcome.results[i] then
        return nil, outcome.errors[i]
      end
      n = n + outcome.results[i]
    end
    local noted, err = manager.catalog:execute(SWEPT, { job.id, job.ended }, deadline)
    if not noted then
      return nil, err
    end
    manager.catalog:note("swept", ("what job %d had moved is gone from its sources"):format(job.id), job.id)
  end
  return n
end

--- Look, and remove what is due. Yields.
-- @tparam Manager manager with a catalog
-- @treturn[1] number of tables that were dropped
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` while somebody moves
function sweep.run(manager)
  local due, err = manager.catalog:execute(DUE, nil, task.now() + PATIENCE)
  if not due then
    return nil, err
  elseif not due.rows[1] then
    return 0
  end
  local held
  held, err = lock.hold(manager.catalog, task.now() + PATIENCE)
  if not held then
    return nil, err
  end
  local ok, n, problem = pcall(drop_everywhere, manager, due.rows)
  held:release()
  if not ok then
    error(n, 0)
  end
  return n, problem
end

--- Look in the background when it is time. Does not yield.
-- @tparam table catalog keeps when that is
-- @tparam Manager manager
function sweep.now_and_then(catalog, manager)
  local now = task.now()
  catalog.sweep_at = catalog.sweep_at or now + INTERVAL * math.random()
  if now < catalog.sweep_at then
    return
  end
  catalog.sweep_at = now + INTERVAL * (0.75 + 0.5 * math.random())
  task.daemon(function()
    local ok, problem = pcall(sweep.run, manager)
    if not ok and not errors.is(problem) then
      error(problem, 0)
    end
  end)
end

return sweep
