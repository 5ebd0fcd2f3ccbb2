--- Shards that join a cluster with a catalog, or leave it.
-- @module lunashard.rebalancer.shards

local errors = require("lunashard.errors")
local install = require("lunashard.catalog.install")
local record = require("lunashard.catalog.record")

local shards = {}

local KNOWN = "SELECT shard_id, state FROM lunashard_catalog.shard"

-- Those who route read the map again for its version.
local NEWS = "WITH news AS MATERIALIZED (SELECT lunashard_catalog.next_version()) "

local AGAIN = NEWS .. [[
  UPDATE lunashard_catalog.shard SET state = 'active', joined = joined AND state <> 'removed', host = $2, port = $3,
         database = $4 FROM news WHERE shard_id = $1]]

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

local function enrol_one(manager, member, state, deadline)
  local cluster, err = manager.catalog:execute("SELECT id FROM lunashard_catalog.cluster", nil, deadline)
  local ok
  if cluster then
    ok, err = install.shard(member, cluster.rows[1], deadline)
  end
  if ok then
    ok, err = record.join(manager, member, deadline)
  end
  if ok and state then -- it was one before
    local at = record.address(member)
    ok, err = manager.catalog:execute(AGAIN, { member.shard_id, at.host, at.port, member.info.database }, deadline)
  end
  return ok and true or nil, err
end

--- Which of these does the catalog not know as members? Yields.
-- @tparam table catalog
-- @tparam {string,...} ids
-- @tparam ?number deadline
-- @treturn[1] table shard_id -> its state in the catalog, or `new`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.fresh(catalog, ids, deadline)
  local states, err = known(catalog, deadline)
  if not states then
    return nil, err
  end
  local fresh = {}
  for _, id in ipairs(ids) do
    fresh[id] = states[id] ~= "active" and (states[id] or "new") or nil
  end
  return fresh
end

--- Make them known, with our schema on each. Changes nothing of the others. Yields.
-- @tparam Manager manager
-- @tparam table fresh from `fresh`
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.enrol(manager, fresh, deadline)
  for _, member in ipairs(manager.members) do
    local state = fresh[member.shard_id]
    if state then
      local ok, err = enrol_one(manager, member, state ~= "new" and state, deadline)
      if not ok then
        return nil, err.shard_id and err or errors.wrap(err, { shard_id = member.shard_id })
      end
    end
  end
  return true
end

-- One that had left has missed writes to reference tables.
local STATE = NEWS .. [[
  UPDATE lunashard_catalog.shard SET state = $2, joined = joined AND state <> 'removed' FROM news
   WHERE shard_id = $1 AND state <> $2]]

--- Say how the catalog regards a shard. Yields.
-- @tparam table catalog
-- @string shard_id
-- @string state `active` or `draining`
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shards.set(catalog, shard_id, state, deadline)
  return catalog:execute(STATE, { shard_id, state }, deadline)
end

-- One statement, so that no bucket can arrive in between.
local RETIRE = NEWS .. [[
  UPDATE lunashard_catalog.shard s SET state = 'removed' FROM news
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
