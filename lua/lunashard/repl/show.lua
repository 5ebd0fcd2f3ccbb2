--- How a session shows what came out: rows as tables, Lua values so that nothing is lost.
-- @module lunashard.repl.show

local errors = require("lunashard.errors")
local failure = require("lunashard.repl.failure")
local table_text = require("lunashard.table_text")
local text = require("lunashard.core.text")
local values = require("lunashard.values")

local show = {}

local safe = text.safe

local MAX_DEPTH = 6
local MAX_ENTRIES = 200 -- of one table
local MAX_STRING = 4096
local MAX_ROWS = 1000
local WIDTH = 78 -- a table that fits is shown in one line

local WORD = "^[%a_][%w_]*$"
local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
  until while]]):gmatch("%a+") do
  KEYWORDS[word] = true
end

local function quoted(value)
  local shown = #value > MAX_STRING and value:sub(1, MAX_STRING) or value
  shown = safe((shown:gsub('[\\"]', "\\%0")))
  return '"' .. shown .. '"' .. (#value > MAX_STRING and ("... (%d bytes)"):format(#value) or "")
end

local function function_text(fn)
  local info = debug.getinfo(fn, "S")
  return info.what == "C" and tostring(fn) or ("%s (%s:%d)"):format(tostring(fn), info.short_src, info.linedefined)
end

local function scalar(value)
  local kind = type(value)
  if kind == "string" then
    return quoted(value)
  elseif value == values.null then
    return "null"
  elseif kind == "function" then
    return function_text(value)
  end
  local shown = kind == "cdata" and tostring(value) or kind == "number" and table_text.cell(value) or nil
  if shown then
    return safe(shown)
  end
  local ok, own = pcall(tostring, value)
  return ok and safe(own, true) or kind
end

-- The order in which keys are shown: the list first, then names.
local function sorted_keys(value)
  local keys, n = {}, #value
  for key in next, value do
    if not (type(key) == "number" and key >= 1 and key <= n and key % 1 == 0) then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, function(a, b)
    local ta, tb = type(a), type(b)
    if ta == tb and (ta == "number" or ta == "string") then
      return a < b
    end
    return ta < tb
  end)
  return keys, n
end

local nested

local function add_entry(parts, state, depth, key, value)
  local shown = nested(value, state, depth + 1)
  if key == nil then
    parts[#parts + 1] = shown
  elseif type(key) == "string" and key:find(WORD) and not KEYWORDS[key] then
    parts[#parts + 1] = key .. " = " .. shown
  else
    parts[#parts + 1] = "[" .. nested(key, state, depth + 1) .. "] = " .. shown
  end
end

local function entries(value, state, depth)
  local parts, keys, n = {}, sorted_keys(value)
  for i = 1, math.min(n, MAX_ENTRIES) do
    add_entry(parts, state, depth, nil, rawget(value, i))
  end
  for i = 1, math.min(#keys, MAX_ENTRIES - math.min(n, MAX_ENTRIES)) do
    add_entry(parts, state, depth, keys[i], rawget(value, keys[i]))
  end
  local left_out = n + #keys - #parts
  if left_out > 0 then
    parts[#parts + 1] = ("... %d more"):format(left_out)
  end
  return parts
end

function nested(value, state, depth)
  if type(value) ~= "table" then
    return scalar(value)
  end
  local meta = debug.getmetatable(value)
  if meta and type(meta.__tostring) == "function" then
    return scalar(value)
  elseif state[value] then
    return "{...}" -- it holds itself
  elseif depth > MAX_DEPTH then
    return next(value) == nil and "{}" or "{ ... }"
  end
  state[value] = true
  local parts = entries(value, state, depth)
  state[value] = nil
  if #parts == 0 then
    return "{}"
  end
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line + 2 * depth <= WIDTH and not line:find("\n", 1, true) then
    return line
  end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

--- Any value as text.
-- @param value
-- @treturn string
function show.value(value)
  return nested(value, {}, 0)
end

-- ---- rows ------------------------------------------------------------------------

local SCALAR = { string = true, number = true, boolean = true, cdata = true }

-- The columns of a list of rows; nil when it is no such list.
local function columns_of(list)
  local seen, columns = {}, {}
  if #list == 0 then
    return nil
  end
  for key, row in next, list do
    if type(key) ~= "number" or type(row) ~= "table" or debug.getmetatable(row) then
      return nil
    end
    for name, value in next, row do
      if type(name) ~= "string" or not SCALAR[type(value)] and value ~= values.null then
        return nil
      elseif not seen[name] then
        seen[name] = true
        columns[#columns + 1] = name
      end
    end
  end
  table.sort(columns)
  return #columns > 0 and columns or nil
end

local function is_result(value)
  return type(rawget(value, "rows")) == "table" and (type(rawget(value, "columns")) == "table" or
    type(rawget(value, "shard_results")) == "table")
end

local function counted(n, word)
  return ("%d %s%s"):format(n, word, n == 1 and "" or "s")
end

local function shards_of(result)
  if type(result.shard_results) ~= "table" then
    return result.shard_id
  end
  local names = {}
  for name in pairs(result.shard_results) do
    names[#names + 1] = tostring(name)
  end
  table.sort(names)
  return #names > 0 and table.concat(names, ", ") or nil
end

local function duration_text(seconds)
  return seconds < 1 and ("%.1f ms"):format(seconds * 1000) or ("%.2f s"):format(seconds)
end

local function footer(session, result, left_out, seconds)
  local rows = #result.rows
  local is_query = type(result.columns) == "table" and #result.columns > 0 or rows > 0
  local count = is_query and counted(rows, "row")
    or result.row_count and result.command and ("%s %d"):format(result.command, result.row_count) or result.command or "done"
  local parts = { count, shards_of(result) }
  local time = seconds or result.duration
  if session.settings.timing and time then
    parts[#parts + 1] = duration_text(time)
  end
  local more = left_out > 0 and ("; %d left out, \\rows N shows N of them, \\rows 0 all"):format(left_out) or ""
  return "(" .. table.concat(parts, ", ") .. more .. ")\n"
end

-- On a terminal what is too long is cut; elsewhere it is data.
local function options_of(session, types)
  local width = session.width and session.width()
  local cap = session.settings.max_rows or width and MAX_ROWS or 0
  return {
    types = types,
    max_rows = cap > 0 and cap or nil,
    max_cell = not width and math.huge or nil,
    expanded = session.settings.expanded,
    width = width,
  }
end

-- Rows are kept by name: of several columns of one name the last is there.
local function without_doubles(columns, types)
  local last, names, own_types, doubled = {}, {}, {}, nil
  for i, name in ipairs(columns) do
    doubled = doubled or last[name] and name
    last[name] = i
  end
  if not doubled then
    return columns, types
  end
  for i, name in ipairs(columns) do
    if last[name] == i then
      names[#names + 1] = name
      own_types[#names] = types and types[i]
    end
  end
  return names, own_types, doubled
end

--- Show a result: its rows, and below them shards, rows and time.
-- @tparam Session session
-- @tparam table result of a router
-- @number[opt] seconds that it took
function show.result(session, result, seconds)
  local left_out = 0
  local columns = result.columns
  if not columns or #columns == 0 and #result.rows > 0 then
    columns = columns_of(result.rows) or {}
  end
  if #columns > 0 then
    local shown, types, doubled
    columns, types, doubled = without_doubles(columns, result.column_types)
    shown, left_out = table_text.render(columns, result.rows, options_of(session, types))
    session:show(shown)
    if doubled then
      session.err(("WARNING: several columns are called %s, and only the last is shown; name them with AS\n"):format(doubled))
    end
  end
  session.err(footer(session, result, left_out, seconds))
end

--- Show one value that an expression gave.
-- @tparam Session session
-- @param value
function show.print(session, value)
  if type(value) == "table" and not errors.is(value) then
    if is_result(value) then
      return show.result(session, value)
    end
    local columns = not debug.getmetatable(value) and columns_of(value)
    if columns then
      return show.result(session, { rows = value, columns = columns })
    end
  elseif errors.is(value) then
    return session.err(failure.text(value) .. "\n")
  end
  session:show(show.value(value) .. "\n")
end

return show
