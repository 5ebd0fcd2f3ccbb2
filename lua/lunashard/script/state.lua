--- Where a long run stands, in a file, so that one that was broken off goes on from there.
-- The file is written as a whole or not at all, also by a run that is killed.
-- @module lunashard.script.state

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

local state = {}

local State = {}
State.__index = State

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

local function read(path)
  local file, reason = io.open(path, "rb")
  if not file then
    return nil, reason
  end
  local text = file:read("*a")
  file:close()
  return text, "cannot be read"
end

--- Read the file, or begin a new one.
-- @string path
-- @tparam table identity what the run is about (its table, source, ...): that of the file must be the same
-- @tparam[opt] table opts `restart`: forget what the file says
-- @treturn[1] State with `values`, a table to be changed and saved; `is_resumed`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: the file cannot be read, is none of ours, or is about something else
function state.open(path, identity, opts)
  local self = setmetatable({ path = path, identity = identity, values = {}, is_resumed = false }, State)
  if not system.stat(path) or opts and opts.restart then
    return self
  end
  local text, reason = read(path)
  if not text then
    return invalid("state file %s: %s", path, reason)
  end
  local given = cjson.decode(text)
  if type(given) ~= "table" or type(given.identity) ~= "table" or type(given.values) ~= "table" then
    return invalid("state file %s: is no state of a run; remove it, or name another one with --state", path)
  end
  for name, value in pairs(identity) do
    if given.identity[name] ~= value then
      return invalid("state file %s: is of another run (%s was %s, and is %s now); name another one with --state, or begin "
        .. "anew with --restart", path, name, tostring(given.identity[name]), tostring(value))
    end
  end
  self.values, self.is_resumed = given.values, true
  return self
end

--- Write the file.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it cannot be written
function State:save()
  local text = assert(cjson.encode({ identity = self.identity, values = self.values }))
  local ok, reason = system.write_file(self.path, text .. "\n", 384) -- 0600
  if not ok then
    return invalid("state file %s", reason)
  end
  return true
end

--- The run is over: remove the file.
function State:remove()
  system.unlink(self.path)
end

return state
