--- Where the rows of a bulk unload go to: a function, an open file, or a new file.
-- A new file has its name only when it is complete; before that it is called `<name>.<pid>-<n>.partial`.
-- @module lunashard.router.copy_sink

local errors = require("lunashard.errors")
local options = require("lunashard.options")
local system = require("lunashard.core.system")

local copy_sink = {}

local Sink = {}
Sink.__index = Sink

local function cannot(path, message)
  return nil, errors.new("INVALID", { message = ("copy_out: %s: %s"):format(path,
    (tostring(message):gsub("^" .. path:gsub("%p", "%%%0") .. ": ", ""))) })
end

local function to_function(fn)
  return function(bytes, shard_id)
    local ok, err = fn(bytes, shard_id)
    if ok == false or err ~= nil then
      error(err == nil and "the function returned false" or err, 0)
    end
    return true
  end
end

local function to_file(file, name)
  return function(bytes)
    local ok, message = file:write(bytes)
    if not ok then
      return cannot(name, message)
    end
    return true
  end
end

local EXISTS = "the file exists; overwrite = true replaces it"
local count = 0

local function to_path(self, path, overwrite)
  if not overwrite and system.stat(path) then
    return cannot(path, EXISTS)
  end
  count = count + 1
  local partial = ("%s.%d-%d.partial"):format(path, system.getpid(), count)
  local file, message = io.open(partial, "wb")
  if not file then
    return cannot(partial, message)
  end
  self.put = to_file(file, partial)
  function self.close()
    local ok, problem = file:close()
    if not ok then
      return cannot(partial, problem)
    elseif not overwrite and system.stat(path) then
      return cannot(path, EXISTS)
    end
    ok, problem = os.rename(partial, path)
    if not ok then
      return cannot(path, problem)
    end
    return true
  end
  function self.discard()
    if io.type(file) == "file" then
      file:close()
    end
    os.remove(partial)
  end
  return self
end

--- Open a sink.
-- @param given a function, an open file or a path
-- @tparam ?boolean overwrite a file of that name may exist
-- @treturn[1] Sink with `bytes`, how many were written
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function copy_sink.open(given, overwrite)
  local self = setmetatable({ bytes = 0 }, Sink)
  if type(given) == "string" then
    return to_path(self, given, overwrite)
  elseif io.type(given) == "file" then
    self.put = to_file(given, "the file")
    function self.close()
      local ok, message = given:flush()
      if not ok then
        return cannot("the file", message)
      end
      return true
    end
  else
    self.put = to_function(given)
  end
  return self
end

--- What is wrong with what a caller gave as a sink?
-- @param given
-- @treturn ?string
function copy_sink.problem(given)
  local kind = io.type(given)
  if kind == "closed file" then
    return "the file is closed"
  elseif kind == nil and type(given) ~= "function" and (type(given) ~= "string" or given == "") then
    return "expected a function, a file's name or an open file, got " .. options.describe(given)
  end
end

--- Write bytes. Yields when the function does.
-- @string bytes
-- @string shard_id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLUGIN_FAILED` when the function failed, `INVALID` when the file did
function Sink:write(bytes, shard_id)
  local ok, done, err = pcall(self.put, bytes, shard_id)
  if not ok then
    if errors.is(done, "CANCELED") then
      error(done, 0)
    end
    return nil, errors.wrap(done, { code = "PLUGIN_FAILED",
      message = "copy_out: the rows could not be handed over: " .. tostring(done) })
  elseif not done then
    return nil, err
  end
  self.bytes = self.bytes + #bytes
  return true
end

--- There is no more to come.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function Sink:finish()
  if self.close then
    return self.close()
  end
  return true
end

--- Something failed: a new file is removed. What a function or an open file got cannot be taken back.
-- @treturn boolean has nothing stayed?
function Sink:abort()
  if self.discard then
    self.discard()
    return true
  end
  return self.bytes == 0
end

return copy_sink
