--- Making a bound strategy place its buckets where the catalog says.
-- Which bucket a key has stays the strategy's matter; whose a bucket is comes from the catalog's map, in which nothing is
-- guessed: where the strategy has a bucket that the map lacks, or the map one that the strategy never gives, it is not
-- adopted. Only in an open group, whose buckets cannot all be listed, is an unlisted bucket where the strategy says.
--
-- Everything is prepared first and then changed without a wait, so that who routes at any moment sees one map.
-- @module lunashard.strategy.adoption
-- @local

local core = require("lunashard.core.placement")

local adoption = {}

--- The owner of a bucket of which it is not known who has it.
adoption.UNKNOWN = ""

local function copy(original)
  local result = {}
  for name, value in pairs(original) do
    result[name] = value
  end
  return result
end

local function fail(format, ...)
  error({ adoption = format:format(...) }, 0)
end

-- The names of numbered buckets, made once: there are tens of thousands in a map.
local names = setmetatable({}, {
  __index = function(list, n)
    list[n] = ("%d"):format(n)
    return list[n]
  end,
})

-- The owners of buckets 0, 1, ... of a part of the map, as numbers of shards; nil when there are none.
local function numbered(owners, prefix, view)
  local list, n = {}, 0
  local owner = owners[prefix .. names[0]]
  while owner do
    n = n + 1
    list[n] = view.number_of[owner]
    owner = owners[prefix == "" and names[n] or prefix .. names[n]]
  end
  return n > 0 and list or nil
end

local function count(owners)
  local n = 0
  for _ in pairs(owners) do
    n = n + 1
  end
  return n
end

local function owner_map(key_type, view, list)
  local map, err = core.owner_map(key_type, view.shards_and_nobody, list)
  if not map then
    fail("%s", err.message)
  end
  return map
end

local function expect_all(owners, n)
  if count(owners) ~= n then
    fail("the catalog's map has %d buckets, of which the strategy has %d", count(owners), n)
  end
end

local ADOPT = {}

function ADOPT.range(bound, owners, _, changes)
  local state, list, owner = bound.state, {}, {}
  for i, one in ipairs(state.list) do
    if not owners[one.name] then
      fail("the range %s is not in the catalog's map: ranges cannot be changed in the cluster file", one.name)
    end
    list[i] = copy(one)
    list[i].shard_id, owner[one.name] = owners[one.name], owners[one.name]
  end
  expect_all(owners, #list)
  changes.state = copy(state)
  changes.state.list, changes.state.owner = list, owner
end

-- The regions are those of the catalog: one that came later in the cluster file has no bucket, and its keys stay with the
-- default region, where their rows are.
function ADOPT.geographic(bound, owners, view, changes)
  local inner = type(bound.key_type) == "table" and bound.key_type[2] or nil
  local regions, maps, found = {}, {}, 0
  for bucket, shard_id in pairs(owners) do
    local region, number = bucket:match("^(.*)/(%d+)$")
    if region and owners[region .. "/0"] and not maps[region] then
      local list = numbered(owners, region .. "/", view)
      regions[region], maps[region] = {}, owner_map(inner, view, list)
      found = found + #list
    elseif not number then
      regions[bucket], found = { { shard_id = shard_id } }, found + 1
    end
  end
  expect_all(owners, found)
  if bound.state.default and not regions[bound.state.default] then
    fail("default_region %s is not in the catalog's map", bound.state.default)
  end
  changes.state = copy(bound.state)
  changes.state.regions, changes.state.maps = regions, maps
end

local prepare

-- A member's part of the map: its buckets without their prefix.
local function part_of(owners, i)
  local part = {}
  for bucket, shard_id in pairs(owners) do
    local number, inner = bucket:match("^(%d+)[#:](.*)$")
    if tonumber(number) == i then
      part[inner] = shard_id
    end
  end
  return part
end

local function adopt_members(bound, owners, view, plan)
  local seen = 0
  for i, member in ipairs(bound.state.members) do
    local part = part_of(owners, i)
    seen = seen + count(part)
    prepare(member, part, view, plan)
  end
  expect_all(owners, seen)
end

-- Numbers and texts that read alike are one bucket.
local function by_bucket(owners)
  local set = copy(owners)
  for bucket, shard_id in pairs(owners) do
    local number = tonumber(bucket)
    if number and ("%.0f"):format(number) == bucket then
      set[number] = shard_id
    end
  end
  return set
end

function prepare(bound, owners, view, plan)
  local changes = { bound = bound }
  plan[#plan + 1] = changes
  if bound.map then
    local list = numbered(owners, "", view)
    if not list then
      fail("the catalog's map has no buckets for the strategy %s", bound.name)
    end
    expect_all(owners, #list)
    changes.map = owner_map(bound.key_type, view, list)
    changes.state = copy(bound.state)
    changes.state.map = changes.map
  elseif bound.shipped and bound.state.members then
    adopt_members(bound, owners, view, plan)
  else
    changes.owners = by_bucket(owners)
    changes.is_open = true
    if bound.shipped and ADOPT[bound.name] then
      changes.is_open = false
      ADOPT[bound.name](bound, owners, view, changes)
    end
  end
end

local function commit(plan, view)
  for _, changes in ipairs(plan) do
    local bound = changes.bound
    bound.owners, bound.is_open = changes.owners, changes.is_open
    bound.map, bound.state = changes.map or bound.map, changes.state or bound.state
    bound.shards, bound.shard_ids, bound.has_unknown = view.shards, view.ids, view.has_unknown
  end
end

local function view_of(owners, shards)
  local view = { shards = shards, ids = {}, number_of = {}, shards_and_nobody = {}, has_unknown = false }
  for i, one in ipairs(shards) do
    view.ids[i], view.number_of[one.shard_id], view.shards_and_nobody[i] = one.shard_id, i, one
  end
  for bucket, shard_id in pairs(owners) do
    if shard_id == adoption.UNKNOWN then
      view.has_unknown = true
    elseif not view.number_of[shard_id] then
      fail("bucket %s belongs to shard %s, which is not among the shards", bucket, shard_id)
    end
  end
  if view.has_unknown then
    local nobody = #shards + 1
    view.ids[nobody], view.number_of[adoption.UNKNOWN] = adoption.UNKNOWN, nobody
    view.shards_and_nobody[nobody] = { shard_id = adoption.UNKNOWN }
  end
  return view
end

--- Place the buckets of some strategies as a map says: all of them, or none.
-- @tparam {table,...} list each `{ bound, owners }`; `owners`: bucket, as a text, -> shard_id or `UNKNOWN`
-- @tparam {table,...} shards all of the cluster: `shard_id`, `weight`, `region`, `tags`
-- @treturn[1] boolean true
-- @treturn[2] nil, nothing was changed
-- @treturn[2] string what does not fit
function adoption.adopt(list, shards)
  local plans = {}
  local ok, problem = pcall(function()
    for i, one in ipairs(list) do
      local view, plan = view_of(one.owners, shards), {}
      prepare(one.bound, one.owners, view, plan)
      plans[i] = { plan, view }
    end
  end)
  if not ok then
    if type(problem) ~= "table" or not problem.adoption then
      error(problem, 0)
    end
    return nil, problem.adoption
  end
  for _, one in ipairs(plans) do
    commit(one[1], one[2])
  end
  return true
end

local function refuse(bound, view)
  if bound.map then
    local nobody = {}
    for i = 1, bound.map:buckets() do
      nobody[i] = #view.ids
    end
    bound.map = owner_map(bound.key_type, view, nobody)
    bound.state = copy(bound.state)
    bound.state.map = bound.map
  end
  for _, member in ipairs(bound.shipped and bound.state.members or {}) do
    refuse(member, view)
  end
  if not bound.map and not (bound.shipped and bound.state.members) then
    bound.owners, bound.is_open = {}, false
  end
  bound.shards, bound.shard_ids, bound.has_unknown = view.shards, view.ids, true
end

--- Let no key have a shard any more: their map is not to be believed.
-- @tparam table strategies name -> bound strategy
-- @tparam {table,...} shards all of the cluster
function adoption.refuse(strategies, shards)
  local view = view_of({ adoption.UNKNOWN }, shards)
  for _, bound in pairs(strategies) do
    refuse(bound, view)
  end
end

return adoption
