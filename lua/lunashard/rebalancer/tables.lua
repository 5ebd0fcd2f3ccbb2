--- The tables of a group as SQL names them, and their rows by bucket.
-- @module lunashard.rebalancer.tables

local errors = require("lunashard.errors")
local expression = require("lunashard.catalog.expression")
local parallel = require("lunashard.parallel")
local statement = require("lunashard.router.statement")

local tables = {}

local MANY = 5e6 -- rows of a table on a shard; of more a sample is counted
local FETCH = 2000 -- rows

--- The tables of a group, by name. Yields.
-- @tparam table catalog
-- @string group
-- @tparam ?number deadline
-- @treturn[1] {table,...} `name`, `shard_key` (a list of columns), `sql` (the quoted name)
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function tables.of_group(catalog, group, deadline)
  local result, err = catalog:execute(
    "SELECT name, shard_key FROM lunashard_catalog.grouped_table WHERE grp = $1 ORDER BY name", { group }, deadline)
  if not result then
    return nil, err
  end
  for _, one in ipairs(result.rows) do
    one.sql = statement.quote_table(one.name)
  end
  return result.rows
end

-- A table without partitions has no tree.
local SIZE = [[
  SELECT pg_catalog.to_regclass($1) IS NOT NULL AS found,
         coalesce(sum(pg_catalog.pg_total_relation_size(c.oid)), 0)::float8 AS bytes,
         coalesce(sum(greatest(c.reltuples, 0)), 0)::float8 AS rows
    FROM pg_catalog.pg_class c
   WHERE c.relkind = 'r' AND (c.oid = pg_catalog.to_regclass($1)
      OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) t))]]

local function add(counts, bucket, rows)
  counts[bucket] = (counts[bucket] or 0) + rows
end

-- How PostgreSQL computes a bucket: it groups by itself.
local function count_in_sql(pool, one, bucket_sql, sample, deadline)
  local result, err = pool:execute(("SELECT %s AS bucket, count(*)::float8 AS rows FROM %s%s GROUP BY 1"):format(bucket_sql,
    one.sql, sample < 1 and (" TABLESAMPLE SYSTEM (%.6f)"):format(sample * 100) or ""), nil, { deadline = deadline })
  if not result then
    return nil, err
  end
  local counts = {}
  for _, row in ipairs(result.rows) do
    if row.bucket ~= nil then
      add(counts, row.bucket, row.rows / sample)
    end
  end
  return counts
end

local function key_of(row, columns)
  if #columns == 1 then
    return row[columns[1]]
  end
  local key = {}
  for i, column in ipairs(columns) do
    key[i] = row[column]
  end
  return key
end

-- A strategy that only Lua knows is asked for every key.
local function count_in_lua(pool, one, bound, sample, deadline)
  local columns, quoted = one.shard_key, {}
  for i, column in ipairs(columns) do
    quoted[i] = statement.quote_ident(column)
  end
  local lease, err = pool:acquire(deadline)
  if not lease then
    return nil, err
  end
  local counts, list = {}, table.concat(quoted, ", ")
  local function read()
    local ok, problem = lease:execute("BEGIN READ ONLY", nil, { deadline = deadline })
    if ok then
      ok, problem = lease:execute(("DECLARE keys NO SCROLL CURSOR FOR SELECT %s, count(*)::float8 AS lunashard_rows FROM %s%s "
        .. "GROUP BY %s"):format(list, one.sql, sample < 1 and (" TABLESAMPLE SYSTEM (%.6f)"):format(sample * 100) or "", list),
        nil, { deadline = deadline })
    end
    while ok do
      ok, problem = lease:execute(("FETCH %d FROM keys"):format(FETCH), nil, { deadline = deadline })
      if not ok or #ok.rows == 0 then
        return ok, problem
      end
      for _, row in ipairs(ok.rows) do
        local bucket, refusal = bound:bucket(key_of(row, columns))
        if bucket == nil then
          return nil, refusal
        end
        add(counts, bucket, row.lunashard_rows / sample)
      end
    end
    return nil, problem
  end
  local ok
  ok, err = read()
  lease:release()
  if not ok then
    return nil, err
  end
  return counts
end

local function count_table(member, bound, one, deadline)
  local pool = member.primary.pool
  local size, err = pool:execute(SIZE, { one.sql }, { deadline = deadline })
  if not size then
    return nil, err
  end
  size = size.rows[1]
  if not size.found then -- which is told when somebody is about to move something there
    return { counts = {}, bytes_per_row = 0 }
  end
  local sample = size.rows > MANY and MANY / size.rows or 1
  local columns = {}
  for i, column in ipairs(one.shard_key) do
    columns[i] = statement.quote_ident(column)
  end
  local bucket_sql = expression.bucket(bound, columns)
  local counts
  if bucket_sql then
    counts, err = count_in_sql(pool, one, bucket_sql, sample, deadline)
  else
    counts, err = count_in_lua(pool, one, bound, sample, deadline)
  end
  if not counts then
    return nil, err
  end
  local rows = 0
  for _, n in pairs(counts) do
    rows = rows + n
  end
  return { counts = counts, bytes_per_row = rows > 0 and size.bytes / rows or 0 }
end

--- Rows and bytes of a group's buckets on some shards. Yields.
-- @tparam {table,...} members of the manager
-- @tparam table bound the group's strategy
-- @tparam {table,...} list from `of_group`
-- @tparam ?number deadline
-- @treturn[1] table shard_id -> bucket (as the strategy has it, or as a text) -> `rows`, `bytes`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED`
function tables.count(members, bound, list, deadline)
  local done = parallel.each(members, function(member)
    local buckets = {}
    for _, one in ipairs(list) do
      local found, err = count_table(member, bound, one, deadline)
      if not found then
        return nil, err
      end
      for bucket, rows in pairs(found.counts) do
        local item = buckets[bucket] or { rows = 0, bytes = 0 }
        buckets[bucket] = item
        item.rows, item.bytes = item.rows + rows, item.bytes + rows * found.bytes_per_row
      end
    end
    return buckets
  end)
  local counts, failed = {}, {}
  for i, member in ipairs(members) do
    counts[member.shard_id] = done.results[i]
    if not done.results[i] then
      failed[#failed + 1] = { shard_id = member.shard_id, error = done.errors[i] }
    end
  end
  if #failed > 0 then
    return nil, errors.new("SHARDS_FAILED", {
      message = ("rows could not be counted on %d of %d shards"):format(#failed, #members), failed = failed, total = #members })
  end
  return counts
end

return tables
