--- The lists of keys of a job on a source: of the rows that move (`k`), and of those that were written since (`d`).
-- Both are for all moves of the job together, by bucket; moves that start later find theirs there, so that a table is read
-- through once for each job. It is read by pages in the order of its primary key, each in a transaction of its own that
-- notes how far it came: whoever goes on, goes on from there. What is written behind that place the triggers have noted.
-- @module lunashard.rebalancer.keys
-- @local

local labels = require("lunashard.rebalancer.labels")
local names = require("lunashard.rebalancer.names")

local keys = {}

--- Rows that are looked at in one transaction.
-- @table PAGE
keys.PAGE = 50000

local LISTS = [[
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s FROM %s AS t WITH NO DATA;
  CREATE TABLE %s AS TABLE %s WITH NO DATA;
  CREATE INDEX ON %s (bucket)]]

local PLAIN_LISTS = [[
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s FROM %s AS t WITH NO DATA;
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s, %s FROM %s AS t WITH NO DATA;
  CREATE INDEX ON %s (bucket)]]

--- The statements that make the lists of a table.
-- @tparam table context `in_sql`
-- @tparam table row
-- @tparam table one the table
-- @treturn string
function keys.lists(context, row, one)
  local dirty, list, key = names.dirty(row, one.n), names.keys(row, one.n), names.each(one.key, "t.%s AS k%d")
  if context.in_sql then
    return LISTS:format(list, key, one.qualified, dirty, list, dirty)
  end
  return PLAIN_LISTS:format(list, key, one.qualified, dirty, key, names.each(one.shard_key, "t.%s AS s%d"), one.qualified,
    dirty)
end

-- The last row tells where the next page begins.
local LIST = [[
  WITH page AS MATERIALIZED (
    SELECT %s AS bucket, %s FROM %s AS t WHERE %s ORDER BY %s LIMIT %d),
  listed AS (INSERT INTO %s SELECT p.bucket, %s FROM page AS p WHERE p.bucket = ANY ($1))
  SELECT %s FROM page AS p ORDER BY %s LIMIT 1]]

local function list_in_sql(context, lease, row, one, buckets, after)
  local found, err = lease:execute(LIST:format(context.bucket_of(one, "t"), names.each(one.key, "t.%s AS k%d"), one.qualified,
    after and keys.beyond(one, after) or "true", names.each(one.key, "t.%s"), keys.PAGE, names.keys(row, one.n),
    names.each(one.key, "p.k%d"), names.each(one.key, "p.k%d::text AS k%d"), names.each(one.key, "p.k%d DESC")), { buckets })
  if not found then
    return nil, err
  end
  local last = found.rows[1]
  if not last then
    return false
  end
  local place = {}
  for i in ipairs(one.key) do
    place[i] = last["k" .. i]
  end
  return place
end

--- The condition that a row, by the alias `t`, comes behind a place.
-- @tparam table one the table
-- @tparam {string,...} after the key there, as texts
-- @treturn string
function keys.beyond(one, after)
  local values = {}
  for i, key_type in ipairs(one.key_types) do
    values[i] = names.literal(after[i]) .. "::" .. key_type
  end
  return ("(%s) > (%s)"):format(names.each(one.key, "t.%s"), table.concat(values, ", "))
end

--- List the keys of one page of a table, as far as their rows are of some buckets. For a transaction. Yields.
-- @tparam table context
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam table one the table
-- @tparam {string,...} buckets
-- @tparam ?{string,...} after the key of the last row that was looked at
-- @treturn[1] {string,...} the same for the next page; false: that was the last one
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function keys.list_page(context, lease, row, one, buckets, after)
  return (context.in_sql and list_in_sql or labels.list_page)(context, lease, row, one, buckets, after)
end

-- Rows of one bucket lie together: they are read a move at a time.
local SEAL = [[
  ALTER TABLE %s RENAME TO %s;
  CREATE TABLE %s AS SELECT * FROM %s ORDER BY bucket, %s;
  DROP TABLE %s;
  ALTER TABLE %s ADD PRIMARY KEY (bucket, %s);
  ANALYZE %s]]

--- The lists are complete: make them fit to be looked at. For a transaction. Yields.
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function keys.seal(lease, row, tables)
  local texts = {}
  for i, one in ipairs(tables) do
    local list, key = names.keys(row, one.n), names.each(one.key, "k%d")
    local unsorted = list .. "_unsorted"
    texts[i] = SEAL:format(list, unsorted:match("[^.]+$"), list, unsorted, key, unsorted, list, key, list)
  end
  return lease:execute(table.concat(texts, "; "), nil, { simple = true }) -- however long that takes
end

-- What was written before this move began is only listed: it is about to be read. (Not where the list alone decides what
-- moves: there every key is looked at.)
local TAKE_OVER = [[
  WITH gone AS (DELETE FROM %s WHERE bucket = ANY (%s::text[]) RETURNING bucket, %s)
  INSERT INTO %s SELECT DISTINCT * FROM gone ON CONFLICT DO NOTHING]]

--- Statements for it.
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn {string,...}
function keys.taking_over(row, tables)
  local texts = {}
  for i, one in ipairs(tables) do
    texts[i] = TAKE_OVER:format(names.dirty(row, one.n), names.array(row.buckets), names.each(one.key, "k%d"),
      names.keys(row, one.n))
  end
  return texts
end

return keys
