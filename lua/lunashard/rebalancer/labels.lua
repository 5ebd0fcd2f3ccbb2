--- Buckets that only Lua can tell: of strategies that users wrote, and of directories.
-- The keys of a table are read and listed by us; what the triggers note has no bucket until we have given it one. Which
-- rows move is then decided by the list alone, so an entry whose row is of another bucket by now is taken out of it.
-- @module lunashard.rebalancer.labels
-- @local

local buckets_of = require("lunashard.catalog.buckets")
local distribution = require("lunashard.distribution")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")

local labels = {}

local BATCH = 5000 -- rows

local function run(lease, sql, params)
  return lease:execute(sql, params, { deadline = session.soon() })
end

-- The bucket of a row with the columns s1, s2, ... as texts: nil when it has none, an error when that cannot be told.
local function bucket_of(bound, one, row)
  local key = row.s1
  if one.shard_key[2] then
    key = {}
    for i in ipairs(one.shard_key) do
      key[i] = row["s" .. i]
      if key[i] == nil then
        return nil
      end
    end
  end
  if key == nil then
    return nil
  end
  local bucket, err = bound:bucket(distribution.key_of(bound, key))
  if bucket ~= nil then
    return buckets_of.text(bucket)
  elseif errors.is(err, "NO_SHARD") or errors.is(err, "NULL_KEY") then
    return nil
  end
  return nil, err
end

local function casts(one, prefix)
  local list = {}
  for i, key_type in ipairs(one.key_types) do
    list[i] = ("%sk%d::%s AS k%d"):format(prefix, i, key_type, i)
  end
  return table.concat(list, ", ")
end

--- Keys and their buckets as a relation of typed columns, from parameters: texts of the buckets, then of each key column.
-- @tparam table one the table
-- @treturn string SQL with the columns `bucket`, `k1`, `k2`, ...
function labels.relation(one)
  local arrays = { "$1::text[]" }
  for i in ipairs(one.key) do
    arrays[i + 1] = ("$%d::text[]"):format(i + 1)
  end
  return ("(SELECT u.bucket, %s FROM unnest(%s) AS u(bucket, %s))"):format(casts(one, "u."), table.concat(arrays, ", "),
    names.each(one.key, "k%d"))
end

-- Parameters for it.
local function columns_of(one, list)
  local columns = { {} }
  for i = 1, #one.key do
    columns[i + 1] = {}
  end
  for j, entry in ipairs(list) do
    columns[1][j] = entry.bucket
    for i = 1, #one.key do
      columns[i + 1][j] = entry["k" .. i]
    end
  end
  return columns
end

local PAGE = "SELECT %s, %s FROM %s AS t %s ORDER BY %s LIMIT %d"

-- One page of a table's keys with their buckets, those that are not wanted left out; also the place of its last row.
local function read_page(context, lease, one, wanted, after)
  local where, params = "", {}
  if after then
    local values = {}
    for i, key_type in ipairs(one.key_types) do
      values[i], params[i] = ("$%d::text::%s"):format(i, key_type), after[i]
    end
    where = ("WHERE (%s) > (%s)"):format(names.each(one.key, "t.%s"), table.concat(values, ", "))
  end
  local found, err = run(lease, PAGE:format(names.each(one.key, "t.%s::text AS k%d"),
    names.each(one.shard_key, "t.%s::text AS s%d"), one.qualified, where, names.each(one.key, "t.%s"), BATCH), params)
  if not found then
    return nil, err
  end
  local list, last = {}, found.rows[BATCH]
  for _, row in ipairs(found.rows) do
    row.bucket, err = bucket_of(context.bound, one, row)
    if err then
      return nil, err
    elseif row.bucket and wanted[row.bucket] then
      list[#list + 1] = row
    end
  end
  local place = {}
  for i in ipairs(last and one.key or {}) do
    place[i] = last["k" .. i]
  end
  return list, last and place or false
end

--- List the keys of one page of a table, as far as its rows are of some buckets. See `lunashard.rebalancer.keys`. Yields.
-- @tparam table context with `bound`
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam table one the table
-- @tparam {string,...} buckets
-- @tparam ?{string,...} after
-- @treturn[1] {string,...} where the next page begins, false when there is none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function labels.list_page(context, lease, row, one, buckets, after)
  local wanted = {}
  for _, bucket in ipairs(buckets) do
    wanted[bucket] = true
  end
  local list, last = read_page(context, lease, one, wanted, after)
  local ok, err = list, last
  if list and list[1] then
    ok, err = run(lease, ("INSERT INTO %s SELECT * FROM %s AS l"):format(names.keys(row, one.n), labels.relation(one)),
      columns_of(one, list))
  end
  if not ok then
    return nil, err
  end
  return last
end

local UNKNOWN = "SELECT ctid::text AS place, %s FROM %s WHERE bucket IS NULL LIMIT %d"
local NAME = "UPDATE %s AS d SET bucket = w.bucket FROM unnest($1::tid[], $2::text[]) AS w(place, bucket) WHERE d.ctid = w.place"
local DROP = "DELETE FROM %s WHERE ctid = ANY ($1::tid[])"

local function name_batch(context, lease, row, one)
  local dirty = names.dirty(row, one.n)
  local found, err = run(lease, UNKNOWN:format(names.each(one.shard_key, "s%d::text AS s%d"), dirty, BATCH))
  if not found then
    return nil, err
  end
  local places, buckets, none = {}, {}, {}
  for _, entry in ipairs(found.rows) do
    local bucket
    bucket, err = bucket_of(context.bound, one, entry)
    if err then
      return nil, err
    elseif bucket then
      places[#places + 1], buckets[#buckets + 1] = entry.place, bucket
    else
      none[#none + 1] = entry.place
    end
  end
  local ok = true
  if places[1] then
    ok, err = run(lease, NAME:format(dirty), { places, buckets })
  end
  if ok and none[1] then
    ok, err = run(lease, DROP:format(dirty), { none })
  end
  return ok and #found.rows, err
end

--- Give what was noted its bucket, all that can be seen now. Only one mover of a job may do so at a time. Yields.
-- @tparam table context
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function labels.name(context, lease, row, tables)
  for _, one in ipairs(tables) do
    local n, err
    repeat
      n, err = name_batch(context, lease, row, one)
      if not n then
        return nil, err
      end
    until n < BATCH
  end
  return true
end

local function is_in(list)
  local set = {}
  for _, value in ipairs(list) do
    set[value] = true
  end
  return set
end

--- The present buckets of the rows of some keys, and a list of keys that says so. Yields.
-- @tparam table context
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam table one the table
-- @tparam string relation SQL of the keys
-- @treturn[1] {table,...} those of a bucket of the move, each with `bucket`, `k1`, `k2`, ...
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function labels.present(context, lease, row, one, relation)
  local found, err = run(lease, ("SELECT %s, %s FROM %s AS w JOIN %s AS t ON %s"):format(
    names.each(one.key, "t.%s::text AS k%d"), names.each(one.shard_key, "t.%s::text AS s%d"), relation, one.qualified,
    names.each(one.key, "t.%s = w.k%d", " AND ")))
  if not found then
    return nil, err
  end
  local mine, list = is_in(row.buckets), {}
  for _, entry in ipairs(found.rows) do
    entry.bucket, err = bucket_of(context.bound, one, entry)
    if err then
      return nil, err
    elseif entry.bucket and mine[entry.bucket] then
      list[#list + 1] = entry
    end
  end
  local columns, same = columns_of(one, list), names.each(one.key, "k.k%d = w.k%d", " AND ")
  local keys = names.keys(row, one.n)
  columns[#columns + 1] = row.buckets
  local ok
  ok, err = run(lease, ("DELETE FROM %s AS k USING %s AS w WHERE %s AND k.bucket = ANY ($%d) AND NOT EXISTS "
    .. "(SELECT FROM %s AS l WHERE %s AND l.bucket = k.bucket)"):format(keys, relation, same, #columns,
    labels.relation(one), (same:gsub("w%.", "l."))), columns)
  if not ok then
    return nil, err
  end
  return list
end

--- Texts of labelled keys as literals: a relation with the columns `bucket`, `k1`, `k2`, ...
-- @tparam table one the table
-- @tparam {table,...} list
-- @treturn string
function labels.literals(one, list)
  local columns, arrays = columns_of(one, list), {}
  for i, column in ipairs(columns) do
    arrays[i] = names.array(column) .. "::text[]"
  end
  return ("(SELECT u.bucket, %s FROM unnest(%s) AS u(bucket, %s))"):format(casts(one, "u."), table.concat(arrays, ", "),
    names.each(one.key, "k%d"))
end

return labels
