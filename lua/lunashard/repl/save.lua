--- A script made of the lines of a session.
-- @module lunashard.repl.save

local errors = require("lunashard.errors")

local save = {}

local function long_string(text)
  local level = ""
  while text:find("]" .. level .. "]", 1, true) or text:sub(-1 - #level) == "]" .. level do
    level = level .. "="
  end
  return "[" .. level .. "[" .. (text:find("^\n") and "\n" or "") .. text .. "]" .. level .. "]"
end

local function options_text(options)
  local parts = {}
  for name, value in pairs(options) do
    parts[#parts + 1] = ("%s = %s"):format(name, type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  table.sort(parts)
  return #parts > 0 and ", { " .. table.concat(parts, ", ") .. " }" or ""
end

local CALLS = {}

function CALLS.EXECUTE(details)
  local options = options_text(details.options)
  return ("show(assert(router:execute(%s%s)))"):format(long_string(details.sql), options ~= "" and ", nil" .. options or "")
end

function CALLS.BROADCAST(details)
  local names = {}
  for i, shard_id in ipairs(details.shard_ids) do
    names[i] = ("%q"):format(shard_id)
  end
  return ("assert(router:execute_on_all_shards(%s, { shard_ids = { %s } }))"):format(long_string(details.sql),
    table.concat(names, ", "))
end

function CALLS.BEGIN(details)
  return ("tx = assert(router:begin({ shard_id = %q }))"):format(details.shard_id)
end

function CALLS.TX(details)
  return ("show(assert(tx:execute(%s)))"):format(long_string(details.sql))
end

function CALLS.COMMIT()
  return "assert(tx:commit())"
end

function CALLS.ROLLBACK()
  return "assert(tx:rollback())"
end

function CALLS.SAVEPOINT(details)
  return "-- a savepoint, which tx:transaction makes in scripts: " .. details.sql:gsub("%s+", " ")
end

local HEAD = [[
#!/usr/bin/env -S lunashard run
-- Made of a session's lines by \save; run it with lunashard run -c FILE.
local table_text = require("lunashard.table_text")

local function show(result)
  io.write((table_text.render(result.columns or {}, result.rows or {}, { types = result.column_types })))
end
]]

local function add_line(parts, line)
  local text = line.text:gsub("^%s*=", ""):gsub("^%s*return%f[^%w_]", ""):gsub("%s*;?%s*$", "")
  if line.kind == "lua" and (text:find("%f[%w_]_%d*%f[^%w_]") or text:find("%f[%w_]_err%f[^%w_]")) then
    parts[#parts + 1] = "-- of the session's own variables: " .. text:gsub("\n", "\n-- ")
  elseif line.kind == "lua" then
    parts[#parts + 1] = line.is_expression and not text:find("^print%W") and ("print((%s))"):format(text) or line.text
  end
  for _, call in ipairs(line.calls) do
    parts[#parts + 1] = CALLS[call.what](call.details)
  end
end

--- The script's text.
-- @tparam {table,...} lines `text`, `kind`, `calls`, `ok`
-- @int[opt] count of the last lines; all by default
-- @treturn string
function save.text(lines, count)
  local good = {}
  for _, line in ipairs(lines) do
    if line.ok and line.kind ~= "command" then
      good[#good + 1] = line
    end
  end
  local body = {}
  for i = math.max(#good - (count or #good) + 1, 1), #good do
    add_line(body, good[i])
  end
  local code = table.concat(body, "\n")
  local own = {}
  if not code:find("show(", 1, true) then
    own[1] = HEAD:match("^(.-\n.-\n)")
  else
    own[1] = HEAD
  end
  if code:find("tx = assert(", 1, true) then
    own[#own + 1] = "local tx"
  end
  own[#own + 1] = code
  return table.concat(own, "\n") .. "\n"
end

--- Write the script. A file that is there already is left alone.
-- @tparam Session session
-- @string name with or without `.lua`
-- @int[opt] count
-- @treturn[1] string its path
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function save.write(session, name, count)
  local path = name:find("%.lua$") and name or name .. ".lua"
  local existing = io.open(path, "r")
  if existing then
    existing:close()
    return nil, errors.new("INVALID", { message = path .. " exists already; give another name" })
  end
  local file, why = io.open(path, "w")
  local ok = file
  if file then
    ok, why = file:write(save.text(session.lines, count))
    local closed, problem = file:close()
    ok, why = ok and closed, why or problem
  end
  if not ok then
    return nil, errors.new("INVALID", { message = "\\save: " .. tostring(why) })
  end
  return path
end

return save
