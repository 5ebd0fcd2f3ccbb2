--- Where the catalog is: the database that the option `catalog` names, by default the first shard's.
-- @module lunashard.catalog.place
-- @local

local errors = require("lunashard.errors")
local shard = require("lunashard.manager.shard")

local place = {}

-- What a connection of its own takes over from the first shard, unless it says otherwise.
local INHERITED = { "database", "user", "password", "passfile", "sslmode", "sslrootcert", "sslcert", "sslkey",
  "sslpassword" }

--- What the option means.
-- @tparam table cfg from `config.manager`, with its shards
-- @treturn[1] table `shard_id` (one of the shards), or `endpoint`; `named`: the option is given
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function place.of(cfg)
  local given = cfg.catalog
  if type(given) == "table" then
    local own = {}
    for name, value in pairs(given) do
      own[name] = value
    end
    if own.host == nil then
      return nil, "catalog.host: missing; give the catalog's host, or catalog = \"<shard_id>\" for a shard's database"
    end
    for _, name in ipairs(INHERITED) do
      if own[name] == nil then
        own[name] = cfg.shards[1][name]
      end
    end
    return { endpoint = shard.endpoint("primary", own, "catalog", cfg), named = true }
  end
  local ids = {}
  for i, one in ipairs(cfg.shards) do
    ids[i] = one.shard_id
    if one.shard_id == given then
      return { shard_id = given, named = true }
    end
  end
  if given == nil then
    return { shard_id = ids[1], named = false }
  end
  local near = errors.nearest(given, ids)
  return nil, ("catalog: there is no shard %q%s"):format(given, near and (", did you mean %q?"):format(near) or
    "; give a shard_id, or a table with host and database")
end

--- The pool of connections to the catalog. Opened when it is first asked for.
-- @tparam Manager manager initialized
-- @treturn Pool
function place.pool(manager)
  local at = manager.catalog_place
  if at.endpoint then
    shard.open(at.endpoint)
    return at.endpoint.pool
  end
  return manager.by_id[at.shard_id].primary.pool
end

--- The endpoint where the catalog is now.
-- @tparam Manager manager
-- @treturn table
function place.endpoint(manager)
  local at = manager.catalog_place
  return at.endpoint or manager.by_id[at.shard_id].primary
end

--- A pool of one connection to it, beside those that statements share. Whoever asks closes it.
-- @tparam Manager manager
-- @treturn Pool
-- @treturn table the endpoint
function place.listener(manager)
  local endpoint = place.endpoint(manager)
  return shard.single(endpoint), endpoint
end

--- Is the catalog in a shard's database that was found to be down?
-- @tparam Manager manager
-- @treturn ?lunashard.error what was found
function place.down(manager)
  local at = manager.catalog_place
  local record = at.shard_id and manager.by_id[at.shard_id].primary.health
  if record and not record.is_healthy then
    return record.last_error or errors.new("SHARD_DOWN", {
      shard_id = at.shard_id,
      message = ("%s, in whose database the catalog is, was not seen yet"):format(at.shard_id),
    })
  end
end

--- The catalog's address, for people.
-- @tparam Manager manager
-- @treturn string
function place.describe(manager)
  local at = manager.catalog_place
  local info = at.endpoint and at.endpoint.info or manager.by_id[at.shard_id].info
  return ("%s:%d/%s"):format(info.host, info.port, info.database)
end

--- The database's name.
-- @tparam Manager manager
-- @treturn string
function place.database(manager)
  local at = manager.catalog_place
  return (at.endpoint and at.endpoint.info or manager.by_id[at.shard_id].info).database
end

--- Is a place that other options name the one where the catalog is? Without a catalog any place will do.
-- @tparam Manager manager
-- @tparam table at from `of`
-- @treturn boolean
function place.same(manager, at)
  local now = manager.catalog_place
  if not manager.catalog then
    return true
  elseif now.endpoint and at.endpoint then
    return now.endpoint.name == at.endpoint.name and now.endpoint.info.database == at.endpoint.info.database
  end
  return now.shard_id == at.shard_id
end

--- Close what was opened for it alone.
-- @tparam Manager manager
function place.close(manager)
  if manager.catalog_place.endpoint then
    shard.close(manager.catalog_place.endpoint)
  end
end

return place
