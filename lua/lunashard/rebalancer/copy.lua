--- Copying the rows of a move into its staging tables, a chunk at a time.
-- How far it is stands with the rows, in the same transaction: a chunk is there with its mark or not at all. Chunks go by
-- bucket and primary key; what is written behind the mark is brought by `catchup`, what is written ahead of it is
-- read when it is reached, so that a row is never put where it stands already.
-- @module lunashard.rebalancer.copy
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")

local copy = {}

-- Of a row in the list of keys. The buckets are looked up by themselves: with the plain columns here, too, the index would
-- be read from the mark on for each of them.
local function position(one, alias)
  return ("(%s.bucket || '', %s)"):format(alias, names.each(one.key, alias .. ".k%d"))
end

-- The mark as a row of literals of the key's types; it was written with the mover's settings.
local function mark(one, after)
  local values = { names.literal(after[1]) .. "::text" }
  for i = 1, #one.key do
    values[i + 1] = names.literal(after[i + 1]) .. "::" .. one.key_types[i]
  end
  return "(" .. table.concat(values, ", ") .. ")"
end

--- What of a table has been copied, as an SQL condition.
-- @tparam table progress `table` (how many tables are done, and one), `after` (the mark in that one)
-- @tparam {table,...} tables
-- @int i the number of the table in this list
-- @string at SQL of a row's bucket and key in brackets
-- @treturn string
function copy.is_behind(progress, tables, i, at)
  if i < progress.table then
    return "true"
  elseif i > progress.table or not progress.after then
    return "false"
  end
  return at .. " <= " .. mark(tables[i], progress.after)
end

--- Send rows from one side to the other. Yields.
-- @tparam Lease from
-- @string query of COPY: a text without parameters
-- @tparam Lease into
-- @string target of COPY: a table with its columns
-- @treturn[1] number rows
-- @treturn[1] number bytes
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function copy.rows(from, query, into, target)
  local reader, err = from:copy_out(("COPY (%s) TO STDOUT"):format(query))
  if not reader then
    return nil, err
  end
  local writer, bytes = nil, 0
  local chunk
  chunk, err = reader:read()
  if chunk and chunk ~= "" then
    writer, err = into:copy_in(("COPY %s FROM STDIN"):format(target))
  end
  while chunk and chunk ~= "" and not err do
    local ok
    bytes = bytes + #chunk
    ok, err = writer:write(chunk)
    if ok then
      chunk, err = reader:read()
    end
  end
  if err then
    reader:close()
    if writer then
      writer:abort("the source failed")
    end
    return nil, err
  elseif not writer then
    return 0, 0
  end
  local result
  result, err = writer:finish()
  if not result then
    return nil, err
  elseif result.row_count ~= reader.row_count then
    return nil, errors.new("INVALID", { message = ("%d rows were read, and %d written"):format(reader.row_count,
      result.row_count) })
  end
  return result.row_count, bytes
end

--- Where rows of a staging table go.
-- @tparam table row
-- @tparam table one the table
-- @treturn string
function copy.target(row, one)
  return ("%s (%s)"):format(names.staging(row, one.n), names.each(one.columns, "%s"))
end

-- The buckets of a move from one to another, in the order of the list: what is left out need not be looked up.
local function between(buckets, first, last)
  local list = {}
  for _, bucket in ipairs(buckets) do
    if not (first and bucket < first or last and bucket > last) then
      list[#list + 1] = bucket
    end
  end
  return list
end

local LAST = [[
  SELECT %s AS place FROM %s AS k WHERE k.bucket = ANY ($1) AND %s ORDER BY k.bucket, %s OFFSET %d LIMIT 1]]

-- The mark at the end of the next chunk, or false when that is the last one of its table.
local function next_mark(source, row, one, after, size)
  local texts = names.each(one.key, "k.k%d::text")
  local found, err = source:execute(LAST:format("ARRAY[k.bucket, " .. texts .. "]", names.keys(row, one.n),
    after and position(one, "k") .. " > " .. mark(one, after) or "true", names.each(one.key, "k.k%d"), size - 1),
    { between(row.buckets, after and after[1]) }, { deadline = session.soon() })
  if not found then
    return nil, err
  end
  return found.rows[1] and found.rows[1].place or false
end

-- Does the primary key tell the bucket? Then a listed key is of its bucket for ever.
local function key_tells_bucket(one)
  local in_key = {}
  for _, column in ipairs(one.key) do
    in_key[column] = true
  end
  for _, column in ipairs(one.shard_key) do
    if not in_key[column] then
      return false
    end
  end
  return true
end

-- Sorted, so that each lookup finds in memory what the last one has read; by themselves, so that no plan can begin with
-- computing the buckets of a whole table.
local LISTED = "(SELECT * FROM %s AS k WHERE k.bucket = ANY (%s::text[])%s ORDER BY %s) AS k"

local function list_of(row, one, buckets, limits)
  return LISTED:format(names.keys(row, one.n), names.array(buckets), limits or "", names.each(one.key, "k.k%d"))
end

-- A row that is listed may be of another bucket by now.
local function matching(context, one)
  local text = names.each(one.key, "t.%s = k.k%d", " AND ")
  if not context.in_sql or key_tells_bucket(one) then
    return text
  end
  return ("%s AND %s IS NOT DISTINCT FROM k.bucket"):format(text, context.bucket_of(one, "t"))
end

local function rows_of(context, one, list)
  return ("FROM %s, %s AS t WHERE %s"):format(list, one.qualified, matching(context, one))
end

--- The rows of a move on its source, as they are now.
-- @tparam table context
-- @tparam table row
-- @tparam table one the table, by the alias `t`; its list of keys has the alias `k`
-- @treturn string the part of a query from FROM on
function copy.listed(context, row, one)
  return rows_of(context, one, list_of(row, one, row.buckets))
end

--- The same as a DELETE, without what it returns.
-- @tparam table context
-- @tparam table row
-- @tparam table one
-- @treturn string
function copy.removal(context, row, one)
  return ("DELETE FROM %s AS t USING %s WHERE %s"):format(one.qualified, list_of(row, one, row.buckets),
    matching(context, one))
end

local SAVE = [[
  UPDATE lunashard.move SET step = $4, detail = detail || jsonb_build_object('progress', $5::jsonb)
   WHERE job = $1 AND seq = $2 AND role = $3]]

-- The rows between two marks.
local function chunk_of(context, row, one, after, upto)
  local place, limits = position(one, "k"), ""
  if after then
    limits = (" AND %s > %s"):format(place, mark(one, after))
  end
  if upto then
    limits = ("%s AND %s <= %s"):format(limits, place, mark(one, upto))
  end
  local list = list_of(row, one, between(row.buckets, after and after[1], upto and upto[1]), limits)
  return ("SELECT %s %s"):format(names.each(one.columns, "t.%s"), rows_of(context, one, list))
end

-- Made when all rows are there: what is written later is looked up by it.
local INDEX = "ALTER TABLE %s ADD PRIMARY KEY (%s)"

local function copy_chunk(context, sides, row, tables, progress)
  local one, after = tables[progress.table], progress.after
  local upto, err = next_mark(sides.source, row, one, after, context.options.batch_size)
  if upto == nil then
    return nil, err
  end
  local from
  from, err = sides.source:connect()
  if not from then
    return nil, err
  end
  local query = chunk_of(context, row, one, after, upto)
  return sides.destination:transaction("copying", function(into)
    local n, bytes = copy.rows(from, query, into, copy.target(row, one))
    if not n then
      return nil, bytes
    end
    local reached = { table = upto and progress.table or progress.table + 1, after = upto or nil,
      rows = progress.rows + n, bytes = progress.bytes + bytes }
    local ok, problem = true, nil
    if not upto then
      ok, problem = into:execute(INDEX:format(names.staging(row, one.n), names.each(one.key, "%s")), nil,
        { deadline = session.soon() })
    end
    if not ok then
      return nil, problem
    end
    ok, problem = into:execute(SAVE, { row.job, row.seq, "destination",
      reached.table > #tables and "copied" or "copying", cjson.encode(reached) }, { deadline = session.soon() })
    return ok and reached, problem
  end, { async = true })
end

--- Copy what is left. Yields.
-- @tparam table context
-- @tparam table sides `source` and `destination`, sessions
-- @tparam table row the move
-- @tparam {table,...} tables
-- @tparam table progress how far it is
-- @tparam func after_chunk called with the progress after each chunk; may return nil and an error
-- @treturn[1] table progress
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function copy.run(context, sides, row, tables, progress, after_chunk)
  while progress.table <= #tables do
    turn.give_way(context)
    local reached, err = copy_chunk(context, sides, row, tables, progress)
    if not reached then
      return nil, err
    end
    progress = reached
    local ok
    ok, err = after_chunk(progress)
    if not ok then
      return nil, err
    elseif context.options.throttle_ms > 0 then
      task.sleep(context.options.throttle_ms / 1000)
    end
  end
  return progress
end

return copy
