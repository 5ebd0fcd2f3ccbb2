--- Is a database the shard that the cluster file says it is? Asked once of each endpoint, when it is first seen.
-- Where a map decides, a database that belongs to another shard, or to a cluster of whose map the manager knows nothing,
-- must not be used at all: for those who look after endpoints it is one that does not answer.
-- @module lunashard.manager.identity
-- @local

local identity = {}

--- Consider what a probe has found. Yields.
-- @tparam Manager manager
-- @tparam table endpoint
-- @tparam table found from `probe.run`
-- @number deadline
-- @treturn[1] table `found`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function identity.check(manager, endpoint, found, deadline)
  endpoint.managed = found.managed
  local catalog = manager.catalog
  if not manager.looked_for_catalog or endpoint.identified then
    return found -- `initialize` looks at all that were found, once they were
  elseif not catalog and not found.managed then
    return found
  end
  local err
  if not catalog then
    catalog, err = require("lunashard.catalog").attach(manager, deadline)
    if not catalog then
      return catalog == false and found or nil, err
    end
  end
  local owns = catalog:owned_by(endpoint.shard_id) > 0
  local ok
  ok, err = require("lunashard.catalog.admit").identity(endpoint, catalog.id, owns, deadline)
  if not ok then
    return nil, err
  end
  endpoint.identified = found.managed
  return found
end

return identity
