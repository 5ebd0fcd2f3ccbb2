--- Bringing what was written meanwhile: keys are taken from the list and their rows read as they are now.
-- The keys leave the list in a transaction of the source that commits after that of the destination: whatever is
-- interrupted is done again, and doing it again changes nothing.
-- @module lunashard.rebalancer.catchup
-- @local

local source_job = require("lunashard.rebalancer.source_job")
local copy = require("lunashard.rebalancer.copy")
local labels = require("lunashard.rebalancer.labels")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")

local catchup = {}

local BATCH = 2000 -- keys

-- Keys are taken by where they lie, not by a number: numbers of entries that commit out of order would be passed over.
local TAKE = [[
  WITH gone AS (
    DELETE FROM %s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %s WHERE bucket IN (SELECT unnest($1::text[])) LIMIT %d))
     RETURNING bucket, %s),
  listed AS (INSERT INTO %s SELECT DISTINCT * FROM gone ON CONFLICT DO NOTHING)
  SELECT DISTINCT %s FROM gone]]

local FORGET = "DELETE FROM %s AS s USING (SELECT %s FROM unnest(%s) AS u(%s)) AS w WHERE %s"

-- The keys by column, as texts.
local function by_column(one, rows)
  local columns = {}
  for i = 1, #one.key do
    columns[i] = {}
    for j, row in ipairs(rows) do
      columns[i][j] = row["k" .. i]
    end
  end
  return columns
end

-- A relation of these keys with the columns k1, k2, ...
local function relation(one, columns)
  local arrays = {}
  for i in ipairs(one.key) do
    arrays[i] = names.array(columns[i]) .. "::text[]"
  end
  local casts = {}
  for i, key_type in ipairs(one.key_types) do
    casts[i] = ("u.k%d::%s AS k%d"):format(i, key_type, i)
  end
  return ("(SELECT %s FROM unnest(%s) AS u(%s))"):format(table.concat(casts, ", "), table.concat(arrays, ", "),
    names.each(one.key, "k%d"))
end

local function forget(into, row, one, columns)
  local casts, arrays = {}, {}
  for i, key_type in ipairs(one.key_types) do
    casts[i] = ("u.k%d::%s AS k%d"):format(i, key_type, i)
    arrays[i] = ("$%d::text[]"):format(i)
  end
  return into:execute(FORGET:format(names.staging(row, one.n), table.concat(casts, ", "), table.concat(arrays, ", "),
    names.each(one.key, "k%d"), names.each(one.key, "s.%s = w.k%d", " AND ")), columns, { deadline = session.soon() })
end

-- A query for the present rows of these keys, as far as the copy has passed their places; false when there are none.
local function present(context, from, row, tables, i, columns, progress)
  local one, keys = tables[i], relation(tables[i], columns)
  local bucket, mine = 'w.bucket COLLATE "C"', "true"
  if context.in_sql then
    bucket = context.bucket_of(one, "t")
    mine = ("%s = ANY (%s::text[])"):format(bucket, names.array(row.buckets))
  else
    local list, err = labels.present(context, from, row, one, keys)
    if not list or not list[1] then
      return list and false, err
    end
    keys = labels.literals(one, list)
  end
  return ("SELECT %s FROM %s AS w JOIN %s AS t ON %s WHERE %s AND %s"):format(names.each(one.columns, "t.%s"), keys,
    one.qualified, names.each(one.key, "t.%s = w.k%d", " AND "), mine,
    copy.is_behind(progress, tables, i, ("(%s, %s)"):format(bucket, names.each(one.key, "t.%s"))))
end

local function bring(context, from, into, row, tables, i, rows, progress)
  local one = tables[i]
  local columns = by_column(one, rows)
  local ok, err = forget(into, row, one, columns)
  local query
  if ok then
    query, err = present(context, from, row, tables, i, columns, progress)
  end
  if query then
    return copy.rows(from, query, into, copy.target(row, one))
  end
  return query == false or nil, err
end

--- Take one batch of keys from the list of each table, and bring their rows. Yields.
-- @tparam table context
-- @tparam table sides
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam table progress of the copy
-- @tparam ?number deadline
-- @treturn[1] number keys taken; 0 when there were none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function catchup.batch(context, sides, row, tables, progress, deadline)
  local named, problem = source_job.name(context, sides.source, row, tables)
  if not named then
    return nil, problem
  end
  return sides.source:transaction("catchup.source", function(from)
    local taken, total = {}, 0
    for i, one in ipairs(tables) do
      local dirty = names.dirty(row, one.n)
      local found, err = from:execute(TAKE:format(dirty, dirty, BATCH, names.each(one.key, "k%d"), names.keys(row, one.n),
        names.each(one.key, "k%d::text AS k%d")), { row.buckets }, { deadline = deadline or session.soon() })
      if not found then
        return nil, err
      end
      taken[i], total = found.rows, total + #found.rows
    end
    if total == 0 then
      return 0
    end
    return sides.destination:transaction("catchup", function(into)
      for i in ipairs(tables) do
        if taken[i][1] then
          local ok, err = bring(context, from, into, row, tables, i, taken[i], progress)
          if not ok then
            return nil, err
          end
        end
      end
      return total
    end, { deadline = deadline })
  end, { deadline = deadline })
end

return catchup
