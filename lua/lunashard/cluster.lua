--- Cluster files: Lua that returns the options of a manager and its router.
-- The file is code and may hold secrets, so one that others can write is refused,
-- and none is ever looked for: its path is always given.
-- @module lunashard.cluster

local bit = require("bit")

local config = require("lunashard.config")
local errors = require("lunashard.errors")
local options = require("lunashard.options")

local cluster = {}

local GROUP_OR_WORLD_WRITABLE = 18 -- 0022

local PLUGIN_HINT = " (the folder of plug-ins is read after this file: name one as in strategy = { \"name\", ... })"

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

-- The text and the true path; symbolic links are followed first, so that the
-- permissions that are looked at are those of the file that is read.
local function read(path)
  local system = require("lunashard.core.system")
  local real, reason = system.realpath(path)
  local info = real and system.stat(real)
  if not info then
    return invalid("cluster file %s: %s", path, reason or "cannot be examined")
  elseif info.type ~= "file" then
    return invalid("cluster file %s: is a %s, not a file", path,
      info.type == "directory" and "directory" or "special file")
  elseif bit.band(info.mode, GROUP_OR_WORLD_WRITABLE) ~= 0 then
    return invalid("cluster file %s: others may write it (mode %s) and it is code that runs as you; chmod go-w it",
      path, ("%03o"):format(info.mode))
  end
  local file, why = io.open(real, "rb")
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  if not text then
    return invalid("cluster file %s: %s", path, why or "cannot be read")
  end
  return text, real
end

local function raised(err)
  return errors.is(err) and err or tostring(err)
end

--- Read a cluster file.
-- It runs with the normal globals readable (`os.getenv` gives secrets); globals that it
-- sets stay its own. File names in its options (`passfile`, `sslrootcert`, `plugins`, ...) are
-- relative to the file's directory.
-- @string path
-- @treturn[1] table the options, not yet checked
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: missing, unreadable, writable by others, a syntax
--   error or a raised one (with file:line), or not a table
function cluster.load(path)
  local text, real = read(path)
  if not text then
    return nil, real
  end
  -- A first line `#!...` becomes a comment, so that line numbers stay right.
  local chunk, problem = load((text:gsub("^#", "--#")), "@" .. path, "t",
    setmetatable({}, { __index = _G }))
  if not chunk then
    return invalid("cluster file: %s", problem)
  end
  local ok, given = pcall(chunk)
  if not ok then
    local message = raised(given)
    if errors.is(message) then
      return nil, message
    end
    return invalid("cluster file: %s%s", message, message:find("unknown %l+ \"") and PLUGIN_HINT or "")
  elseif type(given) ~= "table" then
    return invalid("cluster file %s: returns %s, not a table of options", path,
      given == nil and "nothing" or "a " .. type(given))
  end
  return config.resolve_paths(given, real:match("^(.*)/[^/]*$"))
end

local Cluster = {}
Cluster.__index = Cluster

function Cluster:__tostring()
  return ("lunashard.cluster(%s, %d shards)"):format(self.name or self.path, #self.manager.shards)
end

--- Close the cluster's manager and so every connection. May be called again.
-- @treturn boolean true
function Cluster:close()
  return self.manager:shutdown()
end

--- Read the cluster file again and work with what it says now, without disturbing what runs. Yields.
-- A file that is wrong changes nothing.
-- @tparam[opt] table opts as for `manager:reload`
-- @treturn[1] {table,...} what changed, see `manager:reload`
-- @treturn[2] nil
-- @treturn[2] lunashard.error what is wrong with the file, or what `manager:reload` refuses
function Cluster:reload(opts)
  local given, err = cluster.load(self.path)
  if not given then
    return nil, err
  end
  given.read_only = given.read_only or self.is_protected
  local changed
  changed, err = self.manager:reload(given, opts)
  if not changed then
    return nil, errors.is(err, "INVALID") and errors.new("INVALID", {
      message = ("cluster file %s: %s"):format(self.path, err.message),
      shard_id = err.shard_id,
      endpoint = err.endpoint,
      cause = err.cause,
    }) or err
  end
  return changed
end

--- Build the manager of a cluster file. It has connected nowhere yet.
-- @local
-- @string path
-- @tparam[opt] table opts as for `open`
-- @treturn[1] Manager
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for a file that is missing or wrong
function cluster.build(path, opts)
  local given, err = cluster.load(path)
  if not given then
    return nil, err
  elseif opts and (opts.read_only or opts.protect and given.environment == "production") then
    given.read_only = true
  end
  local manager, message = require("lunashard.manager").build(given)
  if not manager then
    return invalid("cluster file %s: %s", path, message)
  end
  return manager
end

local OPEN = { read_only = "boolean", protect = "boolean" }

--- Build manager and router from a cluster file and probe the shards. Yields.
-- Shards that are down are warned of and not fatal, unless the file says `require_all = true`.
-- @string path
-- @tparam[opt] table opts `read_only = true`: the servers refuse to write, as if the file said so; `protect = true`: that for
--   a cluster with `environment = "production"`
-- @treturn[1] lunashard.cluster with `manager`, `router`, `path`, `name`, and `close`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for a file that is missing or wrong, or what
--   `manager:initialize` returns
function cluster.open(path, opts)
  if type(path) ~= "string" or path == "" then
    error("lunashard.open: expected the path of a cluster file, got " .. tostring(path), 2)
  end
  opts = options.check(opts, OPEN, "lunashard.open")
  local manager, err = cluster.build(path, opts)
  if not manager then
    return nil, err
  end
  local ok
  ok, err = manager:initialize()
  if not ok then
    manager:shutdown()
    return nil, err
  end
  return setmetatable({
    path = path,
    name = manager.name,
    is_protected = manager.options.read_only or nil,
    manager = manager,
    router = require("lunashard.router").new({ shard_manager = manager }),
  }, Cluster)
end

return cluster
