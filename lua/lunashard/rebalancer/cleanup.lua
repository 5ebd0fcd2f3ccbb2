--- What ended jobs have left on the shards: found by its name, and removed.
-- @module lunashard.rebalancer.cleanup

local errors = require("lunashard.errors")
local job = require("lunashard.rebalancer.job")
local leases = require("lunashard.catalog.lease")
local lock = require("lunashard.rebalancer.lock")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local cleanup = {}

local TIMEOUT = 60 -- seconds

-- Everything of ours has its job's number in its name (see `lunashard.rebalancer.names`). Triggers go before what they call.
local FIND = [[
  SELECT job, what, drop FROM (
    SELECT substring(t.tgname from '^lunashard_(\d+)_')::bigint AS job, 1 AS turn,
           format('trigger %s on %s', t.tgname, t.tgrelid::regclass) AS what,
           format('DROP TRIGGER IF EXISTS %I ON %s', t.tgname, t.tgrelid::regclass) AS drop
      FROM pg_catalog.pg_trigger t WHERE t.tgname ~ '^lunashard_\d+_' AND NOT t.tgisinternal AND t.tgparentid = 0
    UNION ALL
    SELECT substring(p.proname from '^[a-z](\d+)')::bigint, 2, format('function %s', p.oid::regprocedure),
           format('DROP FUNCTION IF EXISTS %s', p.oid::regprocedure)
      FROM pg_catalog.pg_proc p WHERE p.pronamespace = to_regnamespace('lunashard_staging') AND p.proname ~ '^[a-z]\d+'
    UNION ALL
    SELECT substring(c.relname from '^[a-z](\d+)')::bigint, 3, format('table %s', c.oid::regclass),
           format('DROP TABLE IF EXISTS %s', c.oid::regclass)
      FROM pg_catalog.pg_class c WHERE c.relnamespace = to_regnamespace('lunashard_staging') AND c.relkind IN ('r', 'p')
       AND c.relname ~ '^[a-z]\d+'
    UNION ALL
    SELECT m.job, 4, format('notes of %s moves of job %s', count(*), m.job),
           format('DELETE FROM lunashard.move WHERE job = %s', m.job)
      FROM lunashard.move m GROUP BY m.job) AS found
   WHERE job IS DISTINCT FROM $1::bigint AND NOT job = ANY ($2::bigint[]) ORDER BY turn, what]]

-- Jobs whose sources shall keep yet what was moved.
local KEPT = [[
  SELECT id FROM lunashard_catalog.job
   WHERE finished_at + make_interval(secs => coalesce((options->>'purge_delay')::float8, 0)) > now()]]

local SETTINGS = "BEGIN; SET LOCAL lock_timeout = '2s'; SET LOCAL lunashard.mover = '1'"

local THERE = "SELECT to_regclass('lunashard.move') IS NOT NULL AS yes"

local function clean_shard(member, open, kept, deadline)
  local opts = { deadline = deadline }
  local pool = member.primary.pool
  local found, err = pool:execute(THERE, nil, opts)
  if not found then
    return nil, err
  elseif not found.rows[1].yes then
    return {} -- it has not joined yet: nothing was moved there
  end
  found, err = pool:execute(FIND, { open or require("lunashard.values").null, kept }, opts)
  if not found then
    return nil, err
  end
  local lease
  lease, err = pool:acquire(deadline)
  if not lease then
    return nil, err
  end
  local removed = {}
  for _, one in ipairs(found.rows) do
    local ok
    ok, err = lease:execute(SETTINGS, nil, { deadline = deadline, simple = true })
    if ok then
      ok, err = lease:execute(one.drop, nil, opts)
    end
    if ok then
      ok, err = lease:execute("COMMIT", nil, opts)
    end
    if not ok then
      lease:release()
      err = errors.wrap(err)
      err.message = ("%s: %s"):format(one.what, err.message)
      return nil, err
    end
    removed[#removed + 1] = member.shard_id .. ": " .. one.what
  end
  lease:release()
  return removed
end

local function clean(manager, open, deadline)
  local all, failed, kept = {}, {}, {}
  local found, err = manager.catalog:execute(KEPT, nil, deadline)
  if not found then
    return nil, err
  end
  for i, row in ipairs(found.rows) do
    kept[i] = row.id
  end
  local done = parallel.each(manager.members, function(member)
    return clean_shard(member, open, kept, deadline)
  end)
  for i, member in ipairs(manager.members) do
    for _, line in ipairs(done.results[i] or {}) do
      all[#all + 1] = line
    end
    if not done.results[i] then
      failed[#failed + 1] = { shard_id = member.shard_id, error = done.errors[i] }
    end
  end
  if #failed > 0 then
    return nil, errors.new("SHARDS_FAILED", { message = ("%d of %d shards could not be cleaned up"):format(#failed,
      #manager.members), failed = failed, total = #manager.members })
  end
  return all
end

--- Remove it, while nobody moves anything. What belongs to a job that is open stays. Yields.
-- @tparam Manager manager with a catalog
-- @treturn[1] {string,...} what was removed
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` while somebody moves, `SHARDS_FAILED`
function cleanup.run(manager)
  local catalog, deadline = manager.catalog, task.now() + TIMEOUT
  local held, err = lock.hold(catalog, deadline)
  if not held then
    return nil, err
  end
  local open, removed
  open, err = job.find_open(catalog, deadline)
  if open ~= nil then
    removed, err = clean(manager, open and open.id, deadline)
  end
  if removed and not open and catalog.guards then
    local ok
    ok, err = leases.close_guards(catalog)
    removed[#removed + 1] = "guards of all routers"
    removed = ok and removed or nil
  end
  held:release()
  return removed, err
end

return cleanup
