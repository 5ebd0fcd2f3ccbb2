--- The sandbox's directory and the files in it that are ours: state, cluster file, passfile.
--
--     DIR/                0711, ours: the servers' user must get through
--       .sandbox          marks the directory as a sandbox; holds the pid of who made it
--       state.json        0600; there once everything is complete
--       cluster.lua       0600
--       passfile          0600, for psql and the cluster file
--       ca.crt            with TLS
--       conf/NAME.conf    one for each server
--       data/             0700, the servers' user's: data directories, logs, keys
-- @module lunashard.sandbox.files

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local files = {}

local PRIVATE, OPEN = 384, 457 -- 0600, 0711
local REMOVE_TIMEOUT = 30
local MARK = "/.sandbox"

local function failure(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

local function read(path)
  local file = io.open(path)
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  return text
end

local function write(path, content, mode)
  local ok, reason = system.write_file(path, content, mode or PRIVATE)
  if not ok then
    return failure("%s", reason)
  end
  return true
end

-- Ours, a directory, and nobody else may change what is in it.
local function check_ours(path, stat)
  if stat.type ~= "directory" then
    return failure("%s is there and is no directory", path)
  elseif stat.uid ~= system.getuid() then
    return failure("%s belongs to another user (uid %d)", path, stat.uid)
  elseif math.floor(stat.mode / 16) % 2 == 1 or math.floor(stat.mode / 2) % 2 == 1 then
    return failure("%s may be written to by others (mode %o)", path, stat.mode)
  end
  return true
end

local function make_directory(path)
  local ok, reason, name = system.mkdir(path, OPEN)
  if not ok and name ~= "EEXIST" then
    return failure("%s", reason)
  end
  return check_ours(path, assert(system.stat(path)))
end

-- Can the servers' user get there?
local function is_reachable(dir, user)
  return not user or process.run({ argv = { "true" }, user = user, cwd = dir }) ~= nil
end

--- Where sandboxes live that were given no directory: below TMPDIR when the servers' user can
-- get there, else below /tmp, in a directory of ours. Yields.
-- @tparam ?string user
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function files.base(user)
  local parent = os.getenv("TMPDIR")
  if not parent or parent:sub(1, 1) ~= "/" or not is_reachable(parent, user) then
    parent = "/tmp"
  end
  local base = ("%s/lunashard-sandbox-%d"):format(parent:gsub("/+$", ""), system.getuid())
  local ok, err = make_directory(base)
  if not ok then
    return nil, err
  end
  return base
end

--- The absolute path of a directory that may not exist yet.
-- @string path
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when its parent does not exist
function files.absolute(path)
  local parent, name = path:gsub("/+$", ""):match("^(.-)/?([^/]+)$")
  if not name or name == "." or name == ".." then
    local full = system.realpath(path)
    if full then
      return full
    end
    return failure("%s: no such directory", path)
  end
  local root = path:sub(1, 1) == "/" and parent == ""
  local full, reason = system.realpath(root and "/" or parent == "" and "." or parent)
  if not full then
    return failure("%s", reason)
  end
  full = (full == "/" and "" or full) .. "/" .. name
  if full:find("['\\\n]") then -- it goes into settings files and connection strings
    return failure("the directory's name may not contain quotes, backslashes or line ends: %s", full)
  end
  return system.realpath(full) or full
end

--- The state of a complete sandbox.
-- @string dir
-- @treturn ?table
function files.load(dir)
  local text = read(dir .. "/state.json")
  return text and cjson.decode(text) or nil
end

--- Is there a sandbox, be it half-made?
-- @string dir
-- @treturn boolean
function files.is_sandbox(dir)
  return system.stat(dir .. MARK) ~= nil
end

--- May a new sandbox be made in this directory? A directory that is no sandbox is touched only when
-- it is empty, and one that another process is making not at all.
-- @string dir
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function files.check_usable(dir)
  local stat = system.stat(dir)
  if not stat then
    return true
  end
  local ok, err = check_ours(dir, stat)
  if not ok then
    return nil, err
  elseif files.is_sandbox(dir) then
    local maker = tonumber(read(dir .. MARK) or "")
    if maker and maker ~= system.getpid() and process.is_alive(maker) then
      return failure("another `sandbox start` (pid %d) is at work on %s", maker, dir)
    end
    return true
  elseif #assert(system.listdir(dir)) > 0 then
    return failure("%s is not empty and is no sandbox; nothing was changed", dir)
  end
  return true
end

--- Make the directories of a new sandbox, removing what a broken-off start left. Yields.
-- To be called after `check_usable`.
-- @string dir
-- @tparam ?string user
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function files.prepare(dir, user)
  if system.stat(dir) then
    files.remove(dir)
  end
  local ok, err = make_directory(dir)
  if not ok then
    return nil, err
  end
  ok, err = write(dir .. MARK, tostring(system.getpid()))
  if not ok then
    files.remove(dir)
    return nil, err
  end
  if not is_reachable(dir, user) then
    files.remove(dir)
    return failure("the servers' user %s cannot enter %s; choose a --dir that others may enter, or none", user, dir)
  end
  ok, err = make_directory(dir .. "/conf")
  if ok then
    ok, err = system.mkdir(dir .. "/data", 448) -- 0700
  end
  if ok and user then
    local account = system.user(user)
    ok, err = system.chown(dir .. "/data", account.uid, account.gid)
  end
  if not ok then
    files.remove(dir)
    return failure("%s", tostring(err))
  end
  return true
end

--- Remove a sandbox's directory with all that is in it. Yields.
-- @string dir
function files.remove(dir)
  local deadline = task.now() + REMOVE_TIMEOUT
  repeat
    process.run({ argv = { "rm", "-rf", "--one-file-system", "--", dir }, timeout = REMOVE_TIMEOUT })
    local left = system.stat(dir) -- what a killed program's last child still wrote
    if left then
      task.sleep(0.1)
    end
  until not left or task.now() > deadline
end

--- Remove the directory that `base` made, when no other sandbox is in it.
-- @string dir of the sandbox that was there
function files.remove_base(dir)
  system.rmdir((dir:gsub("/[^/]+$", "")))
end

--- A random word for a password: letters and digits only, so that it needs no quoting anywhere.
-- @treturn string
function files.password()
  return (system.random_bytes(18):gsub(".", function(byte)
    return ("%02x"):format(byte:byte())
  end))
end

local function passfile_text(state)
  local lines = {}
  for _, node in ipairs(state.nodes) do
    lines[#lines + 1] = ("127.0.0.1:%d:*:app:%s\n"):format(node.port, state.password)
    lines[#lines + 1] = ("127.0.0.1:%d:*:postgres:%s\n"):format(node.port, state.superuser_password)
  end
  return table.concat(lines)
end

local SHARD = [[
    {
      shard_id = %q, host = "127.0.0.1", port = %d, database = %q, user = "app",
      passfile = %q,%s
    },
]]

local function shard_text(state, node)
  local more = {}
  if state.tls then
    more[1] = ('\n      sslmode = "verify-full", sslrootcert = %q,'):format(state.dir .. "/ca.crt")
  end
  local replicas = {}
  for _, other in ipairs(state.nodes) do
    if other.replica_of == node.name then
      replicas[#replicas + 1] = ('{ host = "127.0.0.1", port = %d }'):format(other.port)
    end
  end
  if #replicas > 0 then
    more[#more + 1] = ("\n      replicas = { %s },"):format(table.concat(replicas, ", "))
  end
  local passfile = state.dir .. "/passfile"
  return SHARD:format(node.shard_id, node.port, node.database, passfile, table.concat(more))
end

local function cluster_text(state)
  local shards = {}
  for _, node in ipairs(state.nodes) do
    if not node.replica_of then
      shards[#shards + 1] = shard_text(state, node)
    end
  end
  return ([[
-- Written by `lunashard sandbox start`, anew at every start: copy it rather than change it.
return {
  name = %q,
  shards = {
%s  },
  strategy = { "hash", shard_key = "user_id" },
  tables = {
    users = { shard_key = "user_id", type = "int8" },
    orders = { shard_key = "user_id", type = "int8" },
  },
}
]]):format(state.name, table.concat(shards))
end

--- Write the passfile, which the set-up of the servers needs.
-- @tparam table state
function files.write_passfile(state)
  return write(state.dir .. "/passfile", passfile_text(state))
end

--- Write what users and later starts read: passfile, cluster file and, last, the state.
-- @tparam table state
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function files.save(state)
  local ok, err = files.write_passfile(state)
  if ok then
    ok, err = write(state.dir .. "/cluster.lua", cluster_text(state))
  end
  if ok then
    ok, err = write(state.dir .. "/state.json", cjson.encode(state))
  end
  if ok then
    ok, err = write(state.dir .. MARK, "") -- nobody is at work any more
  end
  return ok, err
end

return files
