--- The buckets of a bound strategy, as the catalog writes them down.
-- In SQL a bucket is always a text. A group is open when not all of its buckets can be listed: a directory has one for
-- each key, a user's strategy those that it returns.
-- @module lunashard.catalog.buckets
-- @local

local members = require("lunashard.strategy.members")

local buckets = {}

local LISTED = {}

--- A bucket as SQL has it.
-- @tparam number|string bucket
-- @treturn string
function buckets.text(bucket)
  return type(bucket) == "number" and ("%.0f"):format(bucket) or bucket
end

local function add_map(list, map, prefix, shards_only)
  for bucket = 0, map:buckets() - 1 do
    list[#list + 1] = { prefix and prefix .. bucket or bucket, not shards_only and map:owner(bucket) or nil }
  end
end

function LISTED.range(list, bound)
  for _, one in ipairs(bound.state.list) do
    list[#list + 1] = { one.name, one.shard_id }
  end
  return true
end

function LISTED.geographic(list, bound)
  for region, shards in pairs(bound.state.regions) do
    local map = bound.state.maps[region]
    if map then
      add_map(list, map, region .. "/")
    else
      list[#list + 1] = { region, shards[1].shard_id }
    end
  end
  return true
end

local function add(list, bound)
  if bound.map then
    add_map(list, bound.map)
    return true
  elseif not bound.shipped then
    return false
  elseif LISTED[bound.name] then
    return LISTED[bound.name](list, bound)
  elseif not bound.state.members then
    return false
  end
  local complete = true
  for i, member in ipairs(bound.state.members) do
    local own = {}
    complete = add(own, member) and complete
    for _, one in ipairs(own) do
      list[#list + 1] = { members.join(i, one[1]), one[2] }
    end
  end
  return complete
end

--- All buckets that can be listed.
-- @tparam lunashard.strategy.bound bound
-- @treturn {table,...} each `{ bucket, shard_id }`
-- @treturn boolean are these all?
function buckets.list(bound)
  local list = {}
  return list, add(list, bound)
end

return buckets
