--- What policies that plan are told of a cluster: shards, buckets, owners, rows.
-- @module lunashard.rebalancer.state

local breath = require("lunashard.plugin.breath")
local buckets = require("lunashard.catalog.buckets")
local errors = require("lunashard.errors")
local load = require("lunashard.rebalancer.load")
local rights = require("lunashard.rebalancer.preflight.rights")
local strategy = require("lunashard.strategy")
local tables = require("lunashard.rebalancer.tables")
local task = require("lunashard.task")

local state = {}

local OWNERS = "SELECT bucket, shard_id, version FROM lunashard_catalog.bucket WHERE grp = $1"
local SHARDS = "SELECT shard_id, state FROM lunashard_catalog.shard"

-- Where the strategy itself would put a bucket over these shards; nil for one that has no opinion.
local function placer(bound, members)
  if bound.name == "hash" and bound.shipped or #members == 0 then
    return nil
  end
  local shards = {}
  for i, member in ipairs(members) do
    shards[i] = member.info
  end
  -- Raises where it cannot do with these shards, as ranges of a shard that is no more.
  local ok, fresh = pcall(strategy.bind, bound.spec, shards, { key_type = bound.key_type, shard_key = bound.shard_key })
  if ok then
    return function(bucket)
      return fresh:place(bucket)
    end
  end
  return function()
    return nil, errors.new("INVALID", { message = (tostring(fresh):gsub("^.-:%d+: ", "")) })
  end
end

-- Members that may get buckets.
local function candidates(manager, states, without)
  local list = {}
  for _, member in ipairs(manager.members) do
    local id = member.shard_id
    if id ~= without and states[id] ~= "draining" then
      list[#list + 1] = member
    end
  end
  return list
end

local function by_text(counts)
  local all, pause = {}, breath.new()
  for shard_id, counted in pairs(counts) do
    local own = {}
    for bucket, item in pairs(counted) do
      own[buckets.text(bucket)] = { bucket = bucket, rows = item.rows, bytes = item.bytes }
    end
    all[shard_id] = own
    pause()
  end
  return all
end

-- In the order of their buckets: numbers, then texts.
local function in_order(items)
  local numbers, texts, by_bucket = {}, {}, {}
  for _, item in ipairs(items) do
    local list = type(item.bucket) == "number" and numbers or texts
    list[#list + 1] = item.bucket
    by_bucket[item.bucket] = item
  end
  table.sort(numbers)
  table.sort(texts)
  for i, bucket in ipairs(numbers) do
    items[i] = by_bucket[bucket]
  end
  for i, bucket in ipairs(texts) do
    items[#numbers + i] = by_bucket[bucket]
  end
  return items
end

local function items_of(bound, owners, counts)
  local pause = breath.new()
  local known, listed = {}, buckets.list(bound)
  for _, one in ipairs(listed) do
    known[buckets.text(one[1])] = one[1]
  end
  pause()
  local items, seen = {}, {}
  local function add(text, bucket, shard_id)
    local counted = counts[shard_id] and counts[shard_id][text]
    seen[text] = true
    items[#items + 1] = { bucket = bucket, owner = shard_id, rows = counted and counted.rows or 0,
      bytes = counted and counted.bytes or 0 }
    if #items % 1024 == 0 then
      pause()
    end
  end
  for text, shard_id in pairs(owners) do
    local counted = counts[shard_id] and counts[shard_id][text]
    add(text, known[text] or counted and counted.bucket or text, shard_id)
  end
  -- Of an open group only what was moved is written down; the strategy says whose the others are.
  for _, counted in pairs(counts) do
    for text, item in pairs(counted) do
      local shard_id = not seen[text] and bound:place(item.bucket)
      if shard_id then
        add(text, item.bucket, shard_id)
      end
    end
  end
  pause()
  return in_order(items)
end

local WINDOW = 5 -- seconds in which shards are watched

-- What is known of shards and buckets besides their rows.
local function describe(result, manager, bound)
  local by_id, regions = {}, {}
  for _, member in ipairs(manager.members) do
    regions[member.shard_id] = member.info.region
  end
  for _, shard in ipairs(result.shards) do
    local info = manager.by_id[shard.shard_id].info
    shard.weight, shard.region, shard.tags = info.weight or 1, info.region, info.tags or {}
    shard.buckets, shard.rows, shard.bytes, shard.load = 0, 0, 0, 0
    by_id[shard.shard_id] = shard
  end
  local region_of = bound.plugin.region
  for _, item in ipairs(result.buckets) do
    local region, strict
    if region_of then
      region, strict = region_of(bound.state, item.bucket)
    end
    item.region, result.residency = region or regions[item.owner], result.residency or strict or nil
    local shard = by_id[item.owner]
    if shard then
      shard.buckets, shard.rows, shard.bytes = shard.buckets + 1, shard.rows + item.rows, shard.bytes + item.bytes
      shard.load = shard.load + item.load
    end
  end
end

--- Read it. Counts the rows of the group on all shards; of large tables a sample. Yields.
-- @tparam Manager manager with a catalog
-- @string group
-- @tparam[opt] table opts `without`: a shard that is to get nothing; `deadline`; `count`: false when the
--   rows do not matter; `load`: shards are watched for some seconds where this process knows nothing of their load
-- @treturn[1] table see `lunashard.rebalancer.plan`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function state.read(manager, group, opts)
  opts = opts or {}
  local catalog = manager.catalog
  local bound = catalog.groups[group].bound
  local list, err = tables.of_group(catalog, group, opts.deadline)
  local rows, shards, counts
  local may
  if list then
    may, err = rights.check_reading(manager.members, list, opts.deadline)
  end
  if may then
    rows, err = catalog:execute(OWNERS, { group }, opts.deadline)
  end
  if rows then
    shards, err = catalog:execute(SHARDS, nil, opts.deadline)
  end
  local own, total, of_shards = {}, 0, nil
  if shards then
    own, total = load.own(manager, bound)
    if opts.load and total == 0 then
      of_shards, err = load.of_shards(manager, list, WINDOW)
      shards = of_shards and shards
    end
  end
  if shards then
    counts, err = tables.count(manager.members, bound, opts.count == false and {} or list, opts.deadline)
  end
  if not counts then
    return nil, err
  end
  local owners, states = {}, {}
  for _, row in ipairs(rows.rows) do
    owners[row.bucket] = row.shard_id
  end
  for _, row in ipairs(shards.rows) do
    states[row.shard_id] = row.state
  end
  local members = candidates(manager, states, opts.without)
  local result = { group = group, strategy = bound.name, shards = {}, tables = list, place = placer(bound, members) }
  for i, member in ipairs(members) do
    result.shards[i] = { shard_id = member.shard_id }
  end
  result.buckets = items_of(bound, owners, by_text(counts))
  task.sleep(0)
  load.spread(result, own, total, of_shards)
  task.sleep(0)
  describe(result, manager, bound)
  return result
end

return state
