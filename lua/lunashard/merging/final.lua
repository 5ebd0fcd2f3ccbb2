--- The statement that one shard runs over what all of them gave.
-- Values travel as texts and are cast to the types that they have, and beside them stands the shards' own statement, of
-- which nothing is run: it gives the columns the collations that they have.
-- @module lunashard.merging.final

local errors = require("lunashard.errors")
local scan = require("lunashard.sql.scan")
local statement = require("lunashard.router.statement")
local values = require("lunashard.values")

local final = {}

local WRITTEN = { char = '"char"' }
local UNWRITABLE = { bit = true, void = true, ["oid:2249"] = true } -- the last one is record

local function number_text(value)
  if value ~= value then
    return "NaN"
  elseif value == math.huge or value == -math.huge then
    return value > 0 and "Infinity" or "-Infinity"
  elseif value == math.floor(value) and math.abs(value) < 2 ^ 53 and not (value == 0 and 1 / value < 0) then
    return ("%d"):format(value)
  end
  return ("%.17g"):format(value)
end

local function hex(bytes)
  return "\\x" .. bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
end

-- What the server printed, or reads as the same.
local function text_of(value, sql_type)
  local kind = type(value)
  if kind == "number" then
    return number_text(value)
  elseif kind == "cdata" then
    return (tostring(value):gsub("U?LL$", ""))
  elseif kind == "boolean" then
    return value and "t" or "f"
  elseif kind == "string" then
    return sql_type == "bytea" and hex(value) or value
  elseif kind == "table" then
    local parts, of = {}, sql_type:gsub("%[%]$", "")
    for i, element in ipairs(value) do
      parts[i] = element == values.null and "NULL"
        or '"' .. text_of(element, of):gsub('[\\"]', "\\%0") .. '"'
    end
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return values.null -- an absent field
end

-- Types that have no name here have one on the server.
local function type_names(run, columns)
  local names, unknown, at = {}, {}, {}
  for i, column in ipairs(columns) do
    local name = column.sql_type
    local oid = name:match("^oid:(%d+)$")
    if UNWRITABLE[name:gsub("%[%]$", "")] then
      return nil, errors.new("NOT_MERGEABLE", {
        message = ("column %q: values of type %s cannot be sent back to the server: cast it to text"):format(column.name,
          name),
      })
    elseif oid then
      unknown[#unknown + 1], at[#at + 1] = tonumber(oid), i
    end
    names[i] = WRITTEN[name] or name
  end
  if unknown[1] then
    local result, err = run(
      "SELECT pg_catalog.format_type(o, NULL) AS name FROM unnest($1::oid[]) WITH ORDINALITY AS u (o, n) ORDER BY n",
      { unknown })
    if not result then
      return nil, err
    end
    for k, row in ipairs(result.rows) do
      names[at[k]] = row.name
    end
  end
  return names
end

--- Number the parameters that a text uses from 1 on: the server refuses those that are not used.
-- @string sql
-- @treturn string
-- @treturn {number,...} what was the number of each
function final.renumber(sql)
  local parts, order, numbers, at = {}, {}, {}, 1
  for _, token in ipairs((scan.tokens(sql))) do
    if token.kind == "param" then
      if not numbers[token.number] then
        order[#order + 1] = token.number
        numbers[token.number] = #order
      end
      parts[#parts + 1] = sql:sub(at, token.first - 1) .. "$" .. numbers[token.number]
      at = token.last + 1
    end
  end
  parts[#parts + 1] = sql:sub(at)
  return table.concat(parts), order
end

--- The parameters of a text that was numbered anew.
-- @tparam {number,...} order from @{renumber}
-- @tparam ?table given
-- @treturn table
function final.pick(order, given)
  local params = { n = #order }
  for i, number in ipairs(order) do
    params[i] = given and given[number]
    if params[i] == nil then
      params[i] = values.null
    end
  end
  return params
end

-- `p`, all rows that the shards gave: columns c1, c2, ... and o, a number. Its parameters begin behind `first`.
local function parts_text(shard_sql, columns, names, first)
  local own, cast, arrays, aliases = {}, {}, {}, {}
  for i, column in ipairs(columns) do
    own[i] = "s." .. statement.quote_ident(column.name)
    cast[i] = ("u.c%d::%s"):format(i, names[i])
    arrays[i] = ("$%d::text[]"):format(first + i)
    aliases[i] = "c" .. i
  end
  local list = table.concat(aliases, ", ")
  return ("WITH p (%s, o) AS (SELECT %s, NULL::int8 FROM (%s) AS s WHERE false UNION ALL "
    .. "SELECT %s, u.o FROM unnest(%s) WITH ORDINALITY AS u (%s, o))"):format(list, table.concat(own, ", "), shard_sql,
    table.concat(cast, ", "), table.concat(arrays, ", "), list)
end

local function values_of(results, column)
  local list, n = {}, 0
  for _, result in ipairs(results) do
    for _, row in ipairs(result.rows) do
      n = n + 1
      list[n] = text_of(row[column.name], column.sql_type)
    end
  end
  return list
end

-- The same for all calls with these types; kept with the plan.
local function text_over_parts(plan, columns, names, query, extra)
  local tail, first = {}, plan.n_params
  for i, one in ipairs(extra) do
    tail[i] = (" %s $%d"):format(one.clause, first + #columns + i)
  end
  local key = table.concat(names, ",") .. query .. table.concat(tail)
  local made = plan.final_texts[key]
  if not made then
    query = query:gsub("\1(%d+)\2", function(i)
      return names[tonumber(i)]
    end)
    made = {}
    made.sql, made.order = final.renumber(parts_text(plan.numbered, columns, names, first) .. " " .. query
      .. table.concat(tail))
    plan.final_texts[key] = made
  end
  return made
end

local function run_over_parts(run, plan, results, columns, params, query, extra)
  local names, err = type_names(run, columns)
  if not names then
    return nil, err
  end
  local made = text_over_parts(plan, columns, names, query, extra)
  local given = {}
  for i = 1, plan.n_params do
    given[i] = params and params[i]
  end
  for i, column in ipairs(columns) do
    given[plan.n_params + i] = values_of(results, column)
  end
  for i, one in ipairs(extra) do
    given[plan.n_params + #columns + i] = one.value
  end
  return run(made.sql, final.pick(made.order, given))
end

--- Evaluate a statement over groups. Yields.
-- @tparam func run `run(sql, params)` gives a result, or nil and an error
-- @tparam table plan from `merging.grouped`, with `n_params`; `numbered`, the shards' statement with the parameters
--   of the whole one; `final_texts`, what was written before
-- @tparam {table,...} results of the shards
-- @tparam ?table params
-- @tparam table numbers `limit`, `offset`
-- @tparam {string,...} types of the parts' columns, on the server that `run` asks
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function final.grouped(run, plan, results, params, numbers, types)
  local columns = {}
  for i in ipairs(plan.columns) do
    columns[i] = { name = "c" .. i, sql_type = types[i] }
  end
  local extra = {}
  if numbers.limit then
    extra[#extra + 1] = { clause = "LIMIT", value = numbers.limit }
  end
  if numbers.offset > 0 then
    extra[#extra + 1] = { clause = "OFFSET", value = numbers.offset }
  end
  return run_over_parts(run, plan, results, columns, params, plan.final, extra)
end

local function order_text(order)
  local parts = {}
  for i, item in ipairs(order) do
    parts[i] = ("p.c%d %s NULLS %s"):format(item.index, item.desc and "DESC" or "ASC",
      item.nulls_first and "FIRST" or "LAST")
  end
  return parts[1] and " ORDER BY " .. table.concat(parts, ", ") or ""
end

--- Ask in which order the rows come, and which of them are wanted. Yields.
-- @tparam func run
-- @tparam table plan from `merging.rows`, with the same
-- @tparam {table,...} results
-- @tparam ?table params
-- @tparam table how `columns`, each `name` and `sql_type`; `order`, items with `index` among these; `distinct`, a list
--   of indexes
-- @treturn[1] {number,...} numbers of rows, counted over all results
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function final.permutation(run, plan, results, params, how)
  local query
  if how.distinct and plan.distinct then
    local list = {}
    for i, index in ipairs(how.distinct) do
      list[i] = "c" .. index
    end
    query = ("SELECT p.o FROM (SELECT DISTINCT ON (%s) * FROM p) AS p"):format(table.concat(list, ", "))
  elseif how.distinct then
    local list = {}
    for i, index in ipairs(how.distinct) do
      list[i] = "p.c" .. index
    end
    query = ("SELECT DISTINCT ON (%s) p.o FROM p"):format(table.concat(list, ", "))
  else
    query = "SELECT p.o FROM p"
  end
  local result, err = run_over_parts(run, plan, results, how.columns, params, query .. order_text(how.order), {})
  if not result then
    return nil, err
  end
  local numbers = {}
  for i, row in ipairs(result.rows) do
    numbers[i] = row.o
  end
  return numbers
end

return final
