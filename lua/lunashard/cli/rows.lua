--- Rows as they leave a command: a table, CSV, JSON, or an object of JSON on each line.
-- @module lunashard.cli.rows

local breath = require("lunashard.plugin.breath")
local cjson = require("cjson.safe")
local output = require("lunashard.cli.output")
local table_text = require("lunashard.table_text")
local values = require("lunashard.values")

local rows = {}

--- The formats.
rows.formats = { "table", "csv", "json", "jsonl" }

local EXACT = 2 ^ 53
local BLANK = 32
local PIECE = 500 -- lines that are written together

local json_value

local function json_list(list, sql_type)
  local parts = {}
  for i = 1, math.max(#list, type(list.n) == "number" and list.n or 0) do
    parts[i] = json_value(list[i], sql_type)
  end
  return "[" .. table.concat(parts, ",") .. "]"
end

-- What JSON has no number for is a text of the same digits.
function json_value(value, sql_type)
  local kind = type(value)
  if value == nil or value == values.null then
    return "null"
  elseif kind == "number" then
    if value ~= value or math.abs(value) == math.huge then
      return ('"%s"'):format(value ~= value and "NaN" or value > 0 and "Infinity" or "-Infinity")
    end
    return value % 1 == 0 and math.abs(value) <= EXACT and ("%d"):format(value) or cjson.encode(value)
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "table" and (#value > 0 or next(value) == nil or type(value.n) == "number") and sql_type ~= "json"
    and sql_type ~= "jsonb" then
    return json_list(value, sql_type and sql_type:gsub("^_", ""))
  end
  return cjson.encode(table_text.cell(value, sql_type))
end

local function json_object(columns, types, row)
  local parts = {}
  for i, name in ipairs(columns) do
    parts[i] = cjson.encode(name) .. ":" .. json_value(row[name], types[i])
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function quoted(text)
  return '"' .. text:gsub('"', '""') .. '"'
end

-- As COPY writes it: an empty field is NULL, an empty text is "".
local function csv_value(value, sql_type)
  if value == nil then
    return ""
  end
  local text = table_text.cell(value, sql_type)
  if type(value) ~= "number" and (text == "" or text:find('[,"\r\n]') or text:byte(1) <= BLANK or text:byte(-1) <= BLANK
    or text == "\\.") then
    return quoted(text)
  end
  return text
end

-- `line(row)` of each row that `next_row` gives, many in one write; how many there were.
local function write_lines(next_row, line)
  local piece, pause, n = {}, breath.new(), 0
  local row, shard_id = next_row()
  while row do
    n = n + 1
    piece[#piece + 1] = line(row, shard_id)
    row, shard_id = next_row()
    if #piece == PIECE or not row then
      piece[#piece + 1] = ""
      output.write(table.concat(piece, "\n"))
      piece = {}
      pause()
    end
  end
  return n
end

local function each(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

local function csv_line(columns, types)
  local n = #columns
  return function(row, shard_id)
    local parts = {}
    for i = 1, n do
      parts[i] = csv_value(row[columns[i]], types[i])
    end
    local line = table.concat(parts, ",")
    return shard_id and csv_value(shard_id) .. (n > 0 and "," or "") .. line or line
  end
end

local function csv_heading(columns, with_shard)
  local names = { with_shard and "shard" or nil }
  for _, name in ipairs(columns) do
    names[#names + 1] = csv_value(name)
  end
  output.write(table.concat(names, ","), "\n")
end

local function write_csv(columns, list, types)
  csv_heading(columns)
  write_lines(each(list), csv_line(columns, types))
end

-- `fields`: what else is in the object, as JSON.
local function write_json(columns, list, types, fields)
  output.write("{")
  for _, field in ipairs(fields) do
    output.write(cjson.encode(field[1]), ":", cjson.encode(field[2]), ",")
  end
  output.write('"columns":', #columns > 0 and cjson.encode(columns) or "[]", ',"rows":[')
  local pause = breath.new()
  for i, row in ipairs(list) do
    output.write(i > 1 and ",\n" or "", json_object(columns, types, row))
    if i % PIECE == 0 then
      pause()
    end
  end
  output.write("]}\n")
end

--- Write rows on stdout.
-- @tparam table result `columns`, `column_types`, `rows`
-- @tparam table how `format`; `fields`: of JSON, a list of `{ name, value }` that stand before the rows; `max_rows` and
--   `width` of a table
-- @treturn number how many rows were left out
function rows.write(result, how)
  local columns, list, types = result.columns or {}, result.rows or {}, result.column_types or {}
  local left_out = 0
  if how.format == "json" then
    write_json(columns, list, types, how.fields or {})
  elseif how.format == "jsonl" then
    write_lines(each(list), function(row)
      return json_object(columns, types, row)
    end)
  elseif #columns > 0 and how.format == "csv" then
    write_csv(columns, list, types)
  elseif #columns > 0 then
    local text
    text, left_out = table_text.render(columns, list, { types = types, max_rows = how.max_rows, width = how.width,
      expanded = how.width and "auto" or nil })
    output.write(text)
  end
  return left_out
end

-- The first row has to be there before anybody knows the columns.
local function begun(stream)
  local row, shard_id = stream()
  local source = stream.sources[1]
  local function next_row()
    local this, from = row, shard_id
    if this then
      row, shard_id = stream()
    end
    return this, from
  end
  return next_row, source and source.columns() or {}, source and source.column_types() or {}
end

--- Write the rows of a stream as they come, as CSV or as objects of JSON; memory stays flat. Yields.
-- @tparam Stream stream what goes wrong is raised
-- @tparam table how `format`, `csv` or `jsonl`; `with_shard`: their shard's name is in front
-- @treturn number how many there were
function rows.stream(stream, how)
  local next_row, columns, types = begun(stream)
  local line
  if how.format == "csv" then
    csv_heading(columns, how.with_shard)
    line = csv_line(columns, types)
  else
    line = function(row, shard_id)
      local object = json_object(columns, types, row)
      return shard_id and ('{"shard":%s%s'):format(cjson.encode(shard_id), #columns > 0 and "," .. object:sub(2) or "}") or object
    end
  end
  return write_lines(function()
    local row, shard_id = next_row()
    return row, how.with_shard and shard_id or nil
  end, line)
end

return rows
