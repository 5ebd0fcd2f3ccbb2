--- The scripts for operators as they are run: `lunashard run scripts/NAME.lua` on a sandbox.
-- @module spec.support.scripts

local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local cluster_file = require("lunashard.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")

local scripts = {}

local opened, databases = {}, {}

--- Run a script. Yields.
-- @string name of the script, or its path
-- @tparam[opt] {string,...} arguments
-- @tparam[opt] table options those of `spec.support.cli.run`, and `cluster`: the cluster file [the shared sandbox's]; `spawn`:
--   start it only
-- @treturn table as from `cli.run`, with `json`: stdout, decoded, when `--json` is among the arguments
function scripts.run(name, arguments, options)
  local how = {}
  for key, value in pairs(options or {}) do
    how[key] = value
  end
  local path = name:find("/", 1, true) and name or "scripts/" .. name .. ".lua"
  local argv = { "run", "-c", how.cluster or sandbox.shared().cluster_file, path }
  for _, argument in ipairs(arguments or {}) do
    argv[#argv + 1] = argument
  end
  local spawn = how.spawn
  how.cluster, how.spawn = nil, nil
  if spawn then
    return cli.spawn(argv, how)
  end
  local result = cli.run(argv, how)
  for _, argument in ipairs(arguments or {}) do
    if argument == "--json" then
      result.json = assert(cjson.decode(result.stdout), result.stdout .. result.stderr)
    end
  end
  return result
end

--- A cluster file beside the shared sandbox's, with other options. It is removed by `scripts.release`.
-- @tparam[opt] table options `down`: number of a shard whose server does not answer; `database`: another one,
--   from `scripts.database`; `lines`: Lua that goes into the options table, with `user` and `passfile` for the shards
-- @string[opt] base another sandbox's cluster file
-- @treturn string path
function scripts.cluster_file(options, base)
  scripts.dir = scripts.dir or cli.directory()
  scripts.count = (scripts.count or 0) + 1
  local text = ([[
local options = dofile(%q)
local own = { %s }
for _, shard in ipairs(options.shards) do
  shard.passfile = own.passfile or %q
  shard.user = own.user or shard.user
end
own.user, own.passfile = nil, nil
for name, value in pairs(own) do
  options[name] = value
end
%s
%s
return options
]]):format(base or sandbox.shared().cluster_file, options.lines or "", sandbox.shared().passfile,
    options.down and ("options.shards[%d].port = 1"):format(options.down) or "",
    options.database and ("for _, shard in ipairs(options.shards) do shard.database = %q end"):format(options.database) or "")
  return cli.write(scripts.dir, ("cluster%d.lua"):format(scripts.count), text)
end

local function as_superuser(format, name)
  local router = scripts.connect(scripts.cluster_file({ lines = 'user = "postgres"' }))
  assert(router:execute_on_all_shards(format:format(name)))
end

--- Make a database of this name on every shard of the shared sandbox, for specs that look at all that is in one. Removed by
-- `release`. Yields.
-- @string name
-- @treturn string name
function scripts.database(name)
  as_superuser("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)
  as_superuser("CREATE DATABASE %s OWNER app", name)
  databases[#databases + 1] = name
  return name
end

--- A router and a manager on a cluster file, closed by `release`. Yields.
-- @string[opt] path [the shared sandbox's]
-- @tparam[opt] table overrides of its options
-- @treturn Router
-- @treturn Manager
function scripts.connect(path, overrides)
  local options = assert(cluster_file.load(path or sandbox.shared().cluster_file))
  for name, value in pairs(overrides or {}) do
    options[name] = value
  end
  local manager = lunashard.manager(options)
  opened[#opened + 1] = manager
  assert(manager:initialize())
  return lunashard.router({ shard_manager = manager, extractor = false }), manager
end

--- For a `teardown`. Yields.
function scripts.release()
  for _, name in ipairs(databases) do
    as_superuser("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)
  end
  databases = {}
  for _, manager in ipairs(opened) do
    manager:shutdown()
  end
  opened, scripts.dir = {}, nil
  cli.remove_all()
  sandbox.release()
end

return scripts
