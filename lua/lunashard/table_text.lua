--- Rows as a table for people: aligned columns, or one line for each field.
-- NULL is told from an empty text, no digit is lost, and nothing that a terminal would act on is in it.
-- @module lunashard.table_text

local cjson = require("cjson.safe")
local options = require("lunashard.options")
local text = require("lunashard.core.text")
local values = require("lunashard.values")

local safe, width_of = text.safe, text.width

local table_text = {}

local MAX_CELL = 4096 -- bytes of one field
local NULL = "NULL"

local NUMBERS = { int2 = true, int4 = true, int8 = true, float4 = true, float8 = true, numeric = true, oid = true,
  money = true }
local JSON_TYPES = { json = true, jsonb = true }

local function number_text(value)
  if value % 1 == 0 and math.abs(value) < 1e15 then
    return ("%d"):format(value)
  end
  for digits = 15, 17 do -- the shortest that is this number
    local exact = ("%." .. digits .. "g"):format(value)
    if tonumber(exact) == value or digits == 17 then
      return exact
    end
  end
end

-- Texts that would be read as NULL, as another element's end, or as nothing.
local function quoted(element)
  if element == "" or element:upper() == NULL or element:find('[%s{},"\\]') then
    return '"' .. element:gsub('["\\]', "\\%0") .. '"'
  end
  return element
end

local function array_text(list)
  local parts, n = {}, math.max(#list, type(list.n) == "number" and list.n or 0)
  for i = 1, n do
    local value = list[i]
    if value == nil or value == values.null then
      parts[i] = NULL
    else
      local element = table_text.cell(value)
      parts[i] = type(value) == "string" and quoted(element) or element
    end
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function is_list(value)
  for key in pairs(value) do
    if type(key) ~= "number" and key ~= "n" then
      return false
    end
  end
  return true
end

--- One value as text. Nothing is cut and nothing escaped but bytea, which is shown in hexadecimal digits.
-- @param value as it is in a row; not nil
-- @tparam[opt] string sql_type as in `column_types`
-- @treturn string
function table_text.cell(value, sql_type)
  local kind = type(value)
  if kind == "number" then
    return number_text(value)
  elseif kind == "string" then
    return sql_type == "bytea" and "\\x" .. value:gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end) or value
  elseif kind == "cdata" then
    return (tostring(value):gsub("U?LL$", ""))
  elseif value == values.null then
    return NULL
  elseif kind == "table" and not (getmetatable(value) or {}).__tostring then
    local is_json = JSON_TYPES[sql_type] or not is_list(value)
    return is_json and cjson.encode(value) or array_text(value)
  end
  return tostring(value)
end

-- What is shown of a field: its lines, safe for a terminal.
local function cell_text(value, sql_type, max_cell)
  if value == nil then
    return NULL
  end
  local bytes
  if type(value) == "string" and #value > max_cell then
    bytes = #value
    value = value:sub(1, max_cell):gsub("[\192-\255][\128-\191]*$", "")
  end
  local shown = table_text.cell(value, sql_type)
  if type(value) == "string" and shown == NULL then
    return "'NULL'" -- a text that says so
  elseif not bytes and #shown > max_cell then
    bytes = #shown
    shown = shown:sub(1, max_cell):gsub("[\192-\255][\128-\191]*$", "")
  end
  return safe(shown, true) .. (bytes and ("... (%d bytes)"):format(bytes) or "")
end

local function split_lines(shown)
  if not shown:find("\n", 1, true) then
    return { shown }
  end
  local lines = {}
  for line in (shown .. "\n"):gmatch("(.-)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

-- Not by "%s+$", which takes the square of the length of every run of blanks.
local function without_end(line)
  return line:match("^.*%S") or ""
end

local function headings(columns)
  local names = {}
  for i, name in ipairs(columns) do
    names[i] = safe(name)
  end
  return names
end

-- Texts of all cells by row and column, and which columns hold numbers.
local function read(columns, rows, n, opts)
  local cells, numeric = {}, {}
  local types, max_cell = opts.types or {}, opts.max_cell or MAX_CELL
  for c, name in ipairs(columns) do
    numeric[c] = NUMBERS[types[c]] or false
    local only_numbers = types[c] == nil and n > 0
    for r = 1, n do
      local value = rows[r][name]
      cells[r] = cells[r] or {}
      cells[r][c] = cell_text(value, types[c], max_cell)
      only_numbers = only_numbers and (value == nil or type(value) == "number" or type(value) == "cdata")
    end
    numeric[c] = numeric[c] or only_numbers
  end
  return cells, numeric
end

local function widths_of(names, cells)
  local widths = {}
  for c, name in ipairs(names) do
    widths[c] = width_of(name)
    for r = 1, #cells do
      local shown = cells[r][c]
      if not shown:find("\n", 1, true) then
        widths[c] = math.max(widths[c], width_of(shown))
      else
        for _, line in ipairs(split_lines(shown)) do
          widths[c] = math.max(widths[c], width_of(line))
        end
      end
    end
  end
  return widths
end

local function pad(shown, width, to_the_right)
  local blanks = (" "):rep(width - width_of(shown))
  return to_the_right and blanks .. shown or shown .. blanks
end

-- A row whose fields have several lines takes as many; `+` marks those that go on.
local function add_row(lines, row, widths, numeric)
  local fields, height = {}, 1
  for c = 1, #widths do
    fields[c] = split_lines(row[c])
    height = math.max(height, #fields[c])
  end
  for line = 1, height do
    local parts = {}
    for c, width in ipairs(widths) do
      local goes_on = fields[c][line + 1] ~= nil
      parts[c] = " " .. pad(fields[c][line] or "", width, numeric[c]) .. (goes_on and "+" or " ")
    end
    lines[#lines + 1] = without_end(table.concat(parts, "|"))
  end
end

local function aligned(names, cells, widths, numeric)
  local lines, head, rule = {}, {}, {}
  for c, width in ipairs(widths) do
    local left = math.floor((width - width_of(names[c])) / 2)
    head[c] = (" "):rep(left + 1) .. pad(names[c], width - left) .. " "
    rule[c] = ("-"):rep(width + 2)
  end
  lines[1] = without_end(table.concat(head, "|"))
  lines[2] = table.concat(rule, "+")
  for r = 1, #cells do
    add_row(lines, cells[r], widths, numeric)
  end
  return lines
end

local function expanded(names, cells)
  local lines, width = {}, 0
  for _, name in ipairs(names) do
    width = math.max(width, width_of(name))
  end
  for r = 1, #cells do
    local title = ("-[ %d ]"):format(r)
    lines[#lines + 1] = title .. ("-"):rep(math.max(width + 1 - #title, 0)) .. "+---"
    for c, name in ipairs(names) do
      for i, line in ipairs(split_lines(cells[r][c])) do
        lines[#lines + 1] = without_end(pad(i == 1 and name or "", width) .. " | " .. line)
      end
    end
  end
  return lines
end

local function is_too_wide(widths, limit)
  local total = 3 * #widths - 1
  for _, width in ipairs(widths) do
    total = total + width
  end
  return total > limit
end

local OPTIONS = { types = "table", max_rows = "count", max_cell = "number", expanded = "any", width = "count" }

--- Rows as text, with a line end after each line.
-- @tparam {string,...} columns
-- @tparam {table,...} rows by column name; an absent field is NULL
-- @tparam[opt] table opts `types`: the columns' `column_types`; `max_rows`: what is beyond is left out [none is];
--   `max_cell`: bytes of a field that are shown [4096]; `expanded`: a line for each field, true, false or `"auto"`: when
--   the table is wider than `width`
-- @treturn string empty when there are no columns
-- @treturn int how many rows were left out
function table_text.render(columns, rows, opts)
  opts = options.check(opts, OPTIONS, "table_text.render")
  local n = math.min(#rows, opts.max_rows or #rows)
  local left_out = #rows - n
  if #columns == 0 then
    return "", left_out
  end
  local names = headings(columns)
  local cells, numeric = read(columns, rows, n, opts)
  local lines
  if opts.expanded == true then
    lines = expanded(names, cells)
  else
    local widths = widths_of(names, cells)
    if opts.expanded == "auto" and n > 0 and opts.width and is_too_wide(widths, opts.width) then
      lines = expanded(names, cells)
    else
      lines = aligned(names, cells, widths, numeric)
    end
  end
  lines[#lines + 1] = ""
  return table.concat(lines, "\n"), left_out
end

return table_text
