--- How many rows the shards hold, as their servers estimate it: for `keys_per_shard` and the page.
-- @module lunashard.metrics.keys

local errors = require("lunashard.errors")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")

local keys = {}

local TIMEOUT = 10 -- seconds for one shard
local RETRY = 60 -- seconds after which a shard that did not answer is asked again

local found = setmetatable({}, { __mode = "k" }) -- manager -> what `of` gives

-- What ANALYZE or VACUUM found; where neither was there yet, what was inserted and deleted since. A partitioned table
-- is as large as its partitions; one that is not has no partition tree at all.
local ROWS = [[
  SELECT coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE coalesce(s.n_live_tup, 0) END), 0)::float8 AS n
  FROM %s
  JOIN pg_catalog.pg_class c ON c.oid = t.relid
  LEFT JOIN pg_catalog.pg_stat_user_tables s ON s.relid = c.oid]]

local DECLARED = [[(
    SELECT coalesce(p.relid, pg_catalog.to_regclass(declared.name)) AS relid FROM unnest($1::text[]) AS declared(name)
    LEFT JOIN LATERAL pg_catalog.pg_partition_tree(pg_catalog.to_regclass(declared.name)) AS p ON true
    WHERE p.isleaf IS NOT FALSE) AS t]]

-- Without declared tables, every one that has the strategy's column is sharded by it.
local WITH_COLUMN = [[(
    SELECT a.attrelid AS relid FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class r ON r.oid = a.attrelid AND r.relkind = 'r'
    JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
    WHERE a.attname = $1 AND a.attnum > 0 AND NOT a.attisdropped
    AND n.nspname NOT IN ('pg_catalog', 'information_schema')) AS t]]

local function question(manager)
  local names = {}
  for name, declared in pairs(manager.tables) do
    if not declared.reference then
      names[#names + 1] = statement.quote_table(name)
    end
  end
  if next(manager.tables) ~= nil then
    return ROWS:format(DECLARED), { names }
  end
  local column = manager.strategy.shard_key
  return type(column) == "string" and ROWS:format(WITH_COLUMN), { column }
end

--- Ask every shard, one after the other. Yields. A shard that does not answer keeps what was known of it.
-- @tparam table cluster `manager`, `router`
-- @treturn[1] table see `of`
-- @treturn[2] nil there is nothing to ask for: no table is declared and the strategy names no column
-- @treturn[2] lunashard.error `INVALID`
function keys.refresh(cluster)
  local manager = cluster.manager
  local sql, params = question(manager)
  if not sql then
    return nil, errors.new("INVALID", { message = "no sharded table is declared and the strategy names no column" })
  end
  local before = found[manager]
  local now = { shards = {}, failed = {}, at = os.time() }
  for _, member in ipairs(manager.members) do
    local id = member.shard_id
    local result, err = cluster.router:execute(sql, params, { shard_id = id, read_only = true, timeout = TIMEOUT,
      retries = 0, pipeline = false })
    now.shards[id] = result and result.rows[1].n or before and before.shards[id]
    now.failed[id] = err and tostring(err) or nil
  end
  found[manager] = now
  return now
end

--- What was found last. Does not yield.
-- @tparam Manager manager
-- @treturn ?table `shards` (shard_id -> rows), `failed` (shard_id -> why), `at` (seconds since 1970); nil before
--   the first time
function keys.of(manager)
  return found[manager]
end

--- Ask now and then, until the cluster is closed. Yields; to be run in a task of its own.
-- @tparam table cluster
-- @number interval seconds
function keys.watch(cluster, interval)
  while not cluster.manager.closed do
    local now = keys.refresh(cluster)
    local again = now and next(now.failed) ~= nil and math.min(interval, RETRY) or interval
    task.sleep(again)
  end
end

return keys
