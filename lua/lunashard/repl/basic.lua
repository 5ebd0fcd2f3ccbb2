--- A session that only runs Lua and SQL of one line.
-- @module lunashard.repl.basic

local task = require("lunashard.task")

local basic = {}

local Session = {}
Session.__index = Session

--- A session.
-- @tparam ?table cluster
-- @treturn Session
function basic.new(cluster)
  local function out(text)
    io.stdout:write(text)
  end
  return setmetatable({ cluster = cluster, out = out, env = setmetatable({}, { __index = _G }) }, Session)
end

--- Is it complete?
-- @string text
-- @treturn string `more` or `done`
function Session:feed(text)
  if text:find("^%s*%u+ ") then
    return text:find(";%s*$") and "done" or "more"
  end
  local _, message = load("return " .. text, "=line")
  if message then
    _, message = load(text, "=line")
  end
  return message and message:find("near '<eof>'$") and "more" or "done"
end

--- Run it. Yields.
-- @string text
-- @treturn boolean
function Session:run(text)
  if text:find("^%s*%u+ ") then
    local result, err = self.cluster.router:execute(text)
    if not result then
      io.stderr:write(tostring(err), "\n")
      return false
    end
    for _, row in ipairs(result.rows or {}) do
      local cells = {}
      for i, column in ipairs(result.columns) do
        cells[i] = tostring(row[column])
      end
      self.out(table.concat(cells, " | ") .. "\n")
    end
    return true
  end
  local chunk = load("return " .. text, "=line", "t", self.env)
  local message
  if not chunk then
    chunk, message = load(text, "=line", "t", self.env)
  end
  if not chunk then
    io.stderr:write(message, "\n")
    return false
  end
  self.running = task.daemon(chunk):watch()
  local results = { self.running:join() }
  self.running = nil
  if not results[1] then
    io.stderr:write(tostring(results[2]), "\n")
    return false
  end
  for i = 2, #results do
    self.out(tostring(results[i]) .. "\n")
  end
  return true
end

--- Stop it.
function Session:interrupt()
  if self.running then
    self.running:cancel()
  end
end

--- The prompt.
-- @tparam[opt] boolean continuation
-- @treturn string
function Session:prompt(continuation)
  local name = self.cluster and self.cluster.name or "lunashard"
  return continuation and (" "):rep(#name - 1) .. "-> " or name .. "> "
end

return basic
