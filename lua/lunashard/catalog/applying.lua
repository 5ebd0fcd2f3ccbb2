--- From a map that was read to one that statements are routed by.
-- @module lunashard.catalog.applying
-- @local

local admit = require("lunashard.catalog.admit")
local adoption = require("lunashard.strategy.adoption")
local binding = require("lunashard.manager.binding")
local errors = require("lunashard.errors")

local applying = {}

local NONE = {}

-- The number of buckets decides which one a key has: a map that lacks some is no map.
local function check_count(group, owners)
  local n = 0
  for _ in pairs(owners) do
    n = n + 1
  end
  if group.buckets and n ~= group.buckets then
    return nil, errors.new("INVALID", {
      message = ("the map of the group %s has %d buckets, but the group has %d: it is damaged; restore the catalog"):format(
        group.name, n, group.buckets),
    })
  end
  return owners
end

-- Owners that the manager has, of all buckets that the strategy is expected to have; for a router that goes on, what is
-- owned by a shard that it does not have is owned by nobody.
local function known_owners(group, bound, has, lenient, is_partial)
  local expected, is_known = NONE, true
  if is_partial then
    local set, err = admit.expected(group, bound)
    if not set then
      return nil, err
    end
    expected = set
  end
  for _, shard_id in pairs(group.owners) do
    is_known = is_known and (has[shard_id] or not lenient)
  end
  if is_known and not is_partial then
    return check_count(group, group.owners)
  end
  local owners = {}
  for bucket, shard_id in pairs(group.owners) do
    owners[bucket] = (has[shard_id] or not lenient) and shard_id or adoption.UNKNOWN
  end
  for bucket in pairs(expected) do
    owners[bucket] = owners[bucket] or adoption.UNKNOWN
  end
  return check_count(group, owners)
end

--- Let strategies place by a map. Does not yield; nothing is changed on failure.
-- @tparam table found the map
-- @tparam table strategies from `binding.bind`
-- @tparam {table,...} members each with `info`
-- @tparam[opt] boolean lenient what is owned by a shard that is not among the members is owned by nobody
-- @tparam[opt] table serving groups that may go on as they are, when nothing in them changed
-- @treturn[1] table groups by name, as the catalog keeps them
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function applying.run(found, strategies, members, lenient, serving)
  local list, groups, has = {}, {}, {}
  for _, member in ipairs(members) do
    has[member.shard_id] = true
  end
  for name, group in pairs(found.groups) do
    local bound, before = strategies.by_type[name], serving and serving[name]
    local is_same = before and before.bound == bound and before.owners == group.owners and not found.silent
      and not bound.has_unknown
    if bound and not is_same then
      local owners, err = known_owners(group, bound, has, lenient, found.silent ~= nil)
      if not owners then
        return nil, err
      end
      list[#list + 1] = { bound = bound, owners = owners }
    end
    groups[name] = bound and { name = name, bound = bound, versions = group.versions, buckets = group.buckets,
      tables = group.tables, owners = group.owners }
  end
  local ok, message = adoption.adopt(list, binding.described(members))
  if not ok then
    return nil, errors.new("INVALID", { message = "the catalog's map: " .. message })
  end
  return groups
end

return applying
