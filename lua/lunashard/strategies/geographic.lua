--- Geographic strategy: a region's rows live on the shards of that region.
-- Each shard has a `region`. Where a region has one shard, the routing key is the region; where it
-- has several, keys are `{ region, key }` and the second part is hashed over the region's shards.
-- An unknown region goes to `default_region` when there is one; with `strict = true` (data
-- residency) it is always an error.
-- @module lunashard.strategies.geographic

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local placement = require("lunashard.strategy.placement")

local geographic = {
  api = 1,
  kind = "strategy",
  name = "geographic",
  options = { "default_region", "strict" },
}

local function fail(text, ...)
  error("strategy geographic: " .. text:format(...), 0)
end

local function by_region(shards)
  local regions = {}
  for _, shard in ipairs(shards) do
    if type(shard.region) ~= "string" or shard.region == "" then
      fail("shard %s has no region", shard.shard_id)
    end
    regions[shard.region] = regions[shard.region] or {}
    table.insert(regions[shard.region], shard)
  end
  return regions
end

-- The declared type of the second column, when there are two.
local function inner_type(key_type)
  if key_type == nil or key_type == "text" then
    return nil
  elseif type(key_type) ~= "table" or key_type[1] ~= "text" or #key_type > 2 then
    fail('the key is a region of type text, or { "text", type } when a region has several shards')
  end
  return key_type[2]
end

--- Group the shards by region.
-- @tparam table options `default_region`, `strict`, `key_type`
-- @tparam {table,...} shards with `region`
-- @treturn table state
function geographic.new(options, shards)
  local regions = by_region(shards)
  local default = options.default_region
  if default ~= nil and not regions[default] then
    local near = errors.nearest(default, regions)
    fail("default_region is %q, but no shard has that region%s", tostring(default),
      near and ("; did you mean %q?"):format(near) or "")
  elseif options.strict ~= nil and type(options.strict) ~= "boolean" then
    fail("strict must be true or false")
  end
  local maps, inner = {}, inner_type(options.key_type)
  for region, members in pairs(regions) do
    if #members > 1 then
      placement.check_equal_weights("strategy geographic: region " .. region, members)
      maps[region] = placement.must(core.hash_map(inner, members))
    end
  end
  return { regions = regions, maps = maps, default = not options.strict and default or nil,
    strict = options.strict or false }
end

local function unknown_region(state, region)
  local near = errors.nearest(region, state.regions)
  return nil, errors.new("NO_SHARD", {
    message = ("no shard has region %q%s"):format(region, near and ("; did you mean %q?"):format(near) or ""),
  })
end

-- The region that serves a key, and the key's second part.
local function split(state, key)
  local region, inner = key, nil
  if type(key) == "table" then
    region, inner = key[1], key[2]
    if #key > 2 then
      return nil, errors.new("INVALID", { message = "routing key must be a region, or { region, key }" })
    end
  end
  local text, err = core.canonical("text", region)
  if text == nil then
    return nil, err
  elseif state.regions[text] then
    return text, inner
  elseif state.default then
    return state.default, inner
  end
  return unknown_region(state, text)
end

--- The bucket of a key: the region, or `region/bucket` where a region has several shards.
-- @tparam table state
-- @param key a region, or `{ region, key }`
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID` or `NO_SHARD`
function geographic.bucket(state, key)
  local region, inner = split(state, key)
  if region == nil then
    return nil, inner
  end
  local map = state.maps[region]
  if not map then
    return region
  elseif inner == nil and type(key) ~= "table" then
    return nil, errors.new("INVALID", {
      message = ("region %s has %d shards: the routing key must be { region, key }"):format(region,
        #state.regions[region]),
    })
  end
  local bucket, err = map:bucket(inner)
  if bucket == nil then
    return nil, err
  end
  return region .. "/" .. bucket
end

--- The shard of a bucket.
-- @tparam table state
-- @tparam string bucket
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function geographic.place(state, bucket)
  local members = state.regions[bucket]
  if members and #members == 1 then
    return members[1].shard_id
  end
  local region, number = tostring(bucket):match("^(.*)/(%d+)$")
  local map = region and state.maps[region]
  local shard_id = map and map:owner(tonumber(number))
  if shard_id then
    return shard_id
  end
  return nil, errors.new("INVALID", { message = ("there is no bucket %s"):format(tostring(bucket)) })
end

--- The region of a bucket.
-- @tparam table state
-- @tparam string bucket
-- @treturn ?string
-- @treturn boolean must its rows live there?
function geographic.region(state, bucket)
  local region = state.regions[bucket] and bucket or tostring(bucket):match("^(.*)/%d+$")
  return region, state.strict
end

return geographic
