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
  if text == "" or text:find('[,"\r\n]') or text:find("^%s") or text:find("%s$") or text == "\\." then
    return quoted(text)
  end
  return text
end

-- `line(row)` of each row, many in one write.
local function write_lines(list, line)
  local piece, pause = {}, breath.new()
  for i, row in ipairs(list) do
    piece[#piece + 1] = line(row)
    if #piece == PIECE or i == #list then
      piece[#piece + 1] = ""
      output.write(table.concat(piece, "\n"))
      piece = {}
      pause()
    end
  end
end

local function write_csv(columns, list, types)
  local names = {}
  for i, name in ipairs(columns) do
    names[i] = csv_value(name)
  end
  output.write(table.concat(names, ","), "\n")
  write_lines(list, function(row)
    local parts = {}
    for i, name in ipairs(columns) do
      parts[i] = csv_value(row[name], types[i])
    end
    return table.concat(parts, ",")
  end)
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
    write_lines(list, function(row)
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

return rows
