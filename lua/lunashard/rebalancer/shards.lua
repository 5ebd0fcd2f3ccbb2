--- Shards that join a cluster with a catalog, or leave it.
-- @module lunashard.rebalancer.shards

local errors = require("lunashard.errors")
local install = require("lunashard.catalog.install")
local record = require("lunashard.catalog.record")

local shards = {}

local KNOWN = "SELECT shard_id, state FROM lunashard_catalog.shard"

local ENROL = [[
  INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position)
  VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (shard_id) DO UPDATE SET state = 'active', host = excluded.host, port = excluded.port,
    database = excluded.database]]

-- What the catalog says of every shard: shard_id -> state.
local function known(catalog, deadline)
  local result, err = catalog:execute(KNOWN, nil, deadline)
  if not result then
    return nil, err
  end
  local states = {}
  for _, row in ipairs(result.rows) do
    states[row.shard_id] = row.state
  end
  return states
end

--- Make shards known to the catalog that are not yet, with our schema on each. Changes nothing of the others. Yields.
-- @tparam Manager manager
-- @tparam {string,...} ids
-- @tparam ?number deadline
-- @treturn[1] {string,...} those that are new
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.enrol(manager, ids, deadline)
  local catalog = manager.catalog
  local states, err = known(catalog, deadline)
  if not states then
    return nil, err
  end
  local fresh = {}
  for i, member in ipairs(manager.members) do
    local id, wanted = member.shard_id, false
    for _, one in ipairs(ids) do
      wanted = wanted or one == id
    end
    if wanted and states[id] ~= "active" then
      local cluster
      cluster, err = catalog:execute("SELECT id FROM lunashard_catalog.cluster", nil, deadline)
      local ok
      if cluster then
        ok, err = install.shard(member, cluster.rows[1], deadline)
      end
      if ok then
        ok, err = record.introduce(manager, member, deadline)
      end
      local at = record.address(member)
      if ok then
        ok, err = catalog:execute(ENROL, { id, at.host, at.port, member.info.database, i }, deadline)
      end
      if not ok then
        return nil, err.shard_id and err or errors.wrap(err, { shard_id = id })
      end
      fresh[#fresh + 1] = id
    end
  end
  return fresh
end

--- Say how the catalog regards a shard. Yields.
-- @tparam table catalog
-- @string shard_id
-- @string state `active` or `draining`
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.set(catalog, shard_id, state, deadline)
  return catalog:execute("UPDATE lunashard_catalog.shard SET state = $2 WHERE shard_id = $1 AND state <> $2", { shard_id, state },
    deadline)
end

-- One statement, so that no bucket can arrive in between.
local RETIRE = [[
  UPDATE lunashard_catalog.shard s SET state = 'removed'
   WHERE s.shard_id = $1 AND s.state = 'draining'
     AND NOT EXISTS (SELECT FROM lunashard_catalog.bucket b WHERE b.shard_id = s.shard_id) RETURNING 1]]

--- Strike a drained shard off the map, unless it still owns something. Yields.
-- @tparam table catalog
-- @string shard_id
-- @tparam ?number deadline
-- @treturn[1] boolean was it?
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.retire(catalog, shard_id, deadline)
  local result, err = catalog:execute(RETIRE, { shard_id }, deadline)
  if not result then
    return nil, err
  end
  return result.rows[1] ~= nil
end

return shards
