--- What was written since rows were staged, as SQL: read where it was written, put where the staged rows are.
-- A delta is a list with an entry for each table, in the order of the source's tables: `keys` (all that were noted, a list
-- of texts for each column of the key), `gone` (those of them without a row of the move's buckets any more), `lines` (the rows
-- as texts of the staging table's type) and `sum` (see `sums`).
-- @module lunashard.rebalancer.delta
-- @local

local names = require("lunashard.rebalancer.names")
local sums = require("lunashard.rebalancer.sums")

local delta = {}

local READ = [[
  SELECT %d AS i, ARRAY[%s] AS key, p.line, p.h FROM (SELECT DISTINCT %s FROM %s WHERE bucket = ANY (%s::text[])) AS d
    LEFT JOIN LATERAL (SELECT ROW(%s)::text AS line, %s AS h FROM %s AS t WHERE %s AND %s) AS p ON true]]

--- What was noted of a move, with the present rows. Nothing is taken from the lists.
-- @tparam table context
-- @tparam table row
-- @tparam {table,...} tables of the source
-- @tparam {table,...} others those of the destination, in the same order
-- @treturn string
function delta.query(context, row, tables, others)
  local parts = {}
  for i, one in ipairs(tables) do
    parts[i] = READ:format(i, names.each(one.key, "d.k%d::text"), names.each(one.key, "k%d"), names.dirty(row, one.n),
      names.array(row.buckets), names.each(others[i].columns, "t.%s"), names.hash("t", one.columns), one.qualified,
      names.each(one.key, "t.%s = d.k%d", " AND "), names.is_moving(context, row, one, "t"))
  end
  return table.concat(parts, " UNION ALL ")
end

local function add_key(columns, key)
  for j, text in ipairs(key) do
    columns[j][#columns[j] + 1] = text
  end
end

local function empty_columns(one)
  local columns = {}
  for j in ipairs(one.key) do
    columns[j] = {}
  end
  return columns
end

--- Read its answer. Pure.
-- @tparam {table,...} rows those of other queries are passed over
-- @tparam {table,...} tables
-- @treturn table the delta
function delta.read(rows, tables)
  local all, hashes = {}, {}
  for i, one in ipairs(tables) do
    all[i], hashes[i] = { keys = empty_columns(one), gone = empty_columns(one), lines = {} }, {}
  end
  for _, found in ipairs(rows) do
    local own = all[found.i]
    if own then
      add_key(own.keys, found.key)
    end
    if own and found.line == nil then
      add_key(own.gone, found.key)
    elseif own then
      own.lines[#own.lines + 1] = found.line
      table.insert(hashes[found.i], found.h)
    end
  end
  for i, own in ipairs(all) do
    own.sum = sums.of(hashes[i])
  end
  return all
end

-- Rows from texts, as a relation with the columns of the staging table: each text is read once.
local function rows_of(row, one, lines, alias)
  return ("(SELECT %s FROM (SELECT u.line::%s AS r FROM unnest(%s::text[]) AS u(line) OFFSET 0) AS q) AS %s"):format(
    names.each(one.written, "(q.r).%s"), names.staging(row, one.n), names.array(lines), alias)
end

--- The rows of a move on its destination as they were when the delta was read: the staged ones, but for those that the delta
-- knows better.
-- @tparam table row
-- @tparam table one the table, on the destination
-- @tparam table own the delta's entry
-- @treturn string SQL of a relation with all columns that are written
function delta.staged(row, one, own)
  local staged = ("SELECT %s FROM %s AS s"):format(names.each(one.written, "s.%s"), names.staging(row, one.n))
  if #own.keys[1] > 0 then
    staged = ("%s WHERE NOT EXISTS (SELECT FROM %s AS w WHERE %s)"):format(staged, names.relation(one, own.keys),
      names.each(one.key, "s.%s = w.k%d", " AND "))
  end
  if #own.lines > 0 then
    staged = ("%s UNION ALL SELECT * FROM %s"):format(staged, rows_of(row, one, own.lines, "fresh"))
  end
  return "(" .. staged .. ")"
end

-- ---- into the live tables ------------------------------------------------------------------

local function same_key(one)
  return names.each(one.key, "t.%s = w.k%d", " AND ")
end

local function keep(name, i, checksum)
  return ("SELECT set_config('lunashard.%s_%d', (%s), true)"):format(name, i, checksum)
end

local function checksum_of(relation)
  return ("SELECT q.checksum FROM (%s) AS q"):format(names.checksum(relation))
end

local function text_before(context, row, one, i, own)
  return keep("before", i, checksum_of(("(SELECT %s AS h FROM %s AS w JOIN %s AS t ON %s WHERE %s) AS m"):format(
    names.hash("t", one.columns), names.relation(one, own.keys), one.qualified, same_key(one),
    names.is_moving(context, row, one, "t"))))
end

local function text_gone(context, row, one, own)
  return ("DELETE FROM %s AS t USING %s AS w WHERE %s AND %s"):format(one.qualified, names.relation(one, own.gone),
    same_key(one), names.is_moving(context, row, one, "t"))
end

-- A row of another bucket that has the key stays as it is: the count tells.
local function text_written(context, row, one, i, own)
  local changes = names.each(one.changeable, "%s = excluded.%s")
  return ("WITH written AS (INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE SELECT * FROM %s ON CONFLICT (%s) DO UPDATE "
    .. "SET %s WHERE %s RETURNING %s AS h) %s"):format(one.qualified, names.each(one.written, "%s"),
    rows_of(row, one, own.lines, "fresh"), names.each(one.key, "%s"), changes, names.is_moving(context, row, one, "t"),
    names.hash("t", one.columns), keep("after", i, checksum_of("written")))
end

--- Bring the merged rows from where one delta has left them to where a later one says that they are. Rows are updated where
-- they can be: what refers to them stays.
-- @tparam table context
-- @tparam table row
-- @tparam {table,...} others tables of the destination, parents first
-- @tparam table all the delta
-- @treturn {string,...} statements
-- @treturn string a list of expressions for a query behind them, for `delta.sums`
function delta.apply(context, row, others, all)
  local texts, kept = {}, { "0 AS n" }
  for i, one in ipairs(others) do
    if #all[i].keys[1] > 0 then
      texts[#texts + 1] = text_before(context, row, one, i, all[i])
      kept[#kept + 1] = ("current_setting('lunashard.before_%d') AS before_%d"):format(i, i)
    end
  end
  for i = #others, 1, -1 do
    if #all[i].gone[1] > 0 then
      texts[#texts + 1] = text_gone(context, row, others[i], all[i])
    end
  end
  for i, one in ipairs(others) do
    if #all[i].lines > 0 then
      texts[#texts + 1] = text_written(context, row, one, i, all[i])
      kept[#kept + 1] = ("current_setting('lunashard.after_%d') AS after_%d"):format(i, i)
    end
  end
  return texts, table.concat(kept, ", ")
end

--- What stands on the destination after that, by its answer. Pure.
-- @tparam table answer the row
-- @tparam {table,...} merged the sums before
-- @tparam table all the delta
-- @treturn[1] {table,...} the sums of all rows of the move, as they stand there
-- @treturn[2] nil
-- @treturn[2] int the table that is not as the delta says
-- @treturn[2] table what was found instead of its `sum`
function delta.sums(answer, merged, all)
  local list = {}
  for i, own in ipairs(all) do
    local before, after = answer["before_" .. i], answer["after_" .. i]
    local written = after and sums.parse(after) or sums.zero()
    if sums.check(written).checksum ~= sums.check(own.sum).checksum then
      return nil, i, written
    end
    list[i] = before and sums.add(sums.subtract(merged[i], sums.parse(before)), written) or merged[i]
  end
  return list
end

return delta
