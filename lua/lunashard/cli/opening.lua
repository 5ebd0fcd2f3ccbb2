--- The cluster that a command works on.
-- @module lunashard.cli.opening

local cli = require("lunashard.cli")
local cluster_file = require("lunashard.cluster")
local errors = require("lunashard.errors")

local opening = {}

-- The manager of a cluster file, some of whose options are given by the command line.
local function build(path, overrides)
  local given, err = cluster_file.load(path)
  if not given then
    return nil, err
  end
  for name, value in pairs(overrides or {}) do
    given[name] = value
  end
  local manager, message = require("lunashard.manager").build(given)
  if not manager then
    return nil, errors.new("INVALID", { message = ("cluster file %s: %s"):format(path, message) })
  end
  return manager
end

--- A router for a command, which says on stderr which cluster it acts on. Yields. Ends the command when no cluster is named.
-- @tparam table args `cluster`
-- @tparam[opt] table how `offline = true`: connects nowhere; `overrides`: options instead of the file's; `quiet`
-- @treturn[1] Router
-- @treturn[1] Manager to be shut down
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function opening.router(args, how)
  how = how or {}
  local path = cli.cluster_path(args)
  local manager, err = build(path, how.overrides)
  if not manager then
    return nil, err
  end
  if not how.quiet then
    cli.say("cluster %s (%s)%s", manager.name or "without a name", path, how.offline and ", not connected" or "")
  end
  if not how.offline then
    local ok
    ok, err = manager:initialize()
    if not ok then
      manager:shutdown()
      return nil, err
    end
  end
  return require("lunashard.router").new({ shard_manager = manager }), manager
end

return opening
