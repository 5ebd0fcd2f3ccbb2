--- A connection of one's own to one server, with the options that the cluster file has for its shard.
-- @module lunashard.script.server

local cluster_file = require("lunashard.cluster")
local errors = require("lunashard.errors")
local pool = require("lunashard.pool")

local server = {}

local TAKEN = { "database", "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey" }

-- A replica's own options come before its shard's.
local function replica_at(shard, host, port)
  for _, replica in ipairs(shard.replicas or {}) do
    if replica.host == host and (replica.port or 5432) == port then
      return replica
    end
  end
end

--- Make a pool of one connection. The server need not be in the cluster file any more. Yields when it is used.
-- @string path of the cluster file
-- @string shard_id whose options are taken
-- @tparam[opt] table others `host` and `port` [the shard's]; `user` and `password`, which take the place of its passfile
-- @treturn[1] Pool to be closed
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `NO_SHARD`
function server.connect(path, shard_id, others)
  others = others or {}
  local given, err = cluster_file.load(path)
  if not given then
    return nil, err
  end
  for _, shard in ipairs(given.shards) do
    if shard.shard_id == shard_id then
      local host, port = others.host or shard.host, others.port or shard.port or 5432
      local own = replica_at(shard, host, port) or shard
      local how = { shard_id = shard_id, host = host, port = port, max_size = 1, pipeline = false,
        application_name = "lunashard script" }
      for _, name in ipairs(TAKEN) do
        how[name] = own[name] ~= nil and own[name] or shard[name]
      end
      if others.user then
        how.user, how.password, how.passfile = others.user, others.password, nil
      end
      return pool.new(how)
    end
  end
  return nil, errors.new("NO_SHARD", { message = ("there is no shard %s in %s"):format(shard_id, path) })
end

return server
