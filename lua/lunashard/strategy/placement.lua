--- What the strategies share: bucket maps, checks of shards, quoting.
-- Raw placement is in C (`lunashard.core.placement`); a map routes a key in one call.
-- @module lunashard.strategy.placement

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")

local placement = {}

--- The value, or raise the message of an error: for constructors, whose failures are misuse.
-- @param value
-- @tparam ?lunashard.error err
-- @return value
function placement.must(value, err)
  if value == nil then
    error(err.message, 0)
  end
  return value
end

--- Raise unless a shard of this id exists.
-- @string what names it, for the message
-- @param shard_id
-- @tparam {table,...} shards
function placement.check_shard(what, shard_id, shards)
  local ids = {}
  for i, shard in ipairs(shards) do
    if shard.shard_id == shard_id then
      return
    end
    ids[i] = shard.shard_id
  end
  local near = errors.nearest(shard_id, ids)
  error(("%s: there is no shard %q%s"):format(what, tostring(shard_id),
    near and ("; did you mean %q?"):format(near) or " (shards: " .. table.concat(ids, ", ") .. ")"), 0)
end

--- Raise unless all shards weigh the same, for strategies that cannot weigh.
-- @string what names the strategy
-- @tparam {table,...} shards
function placement.check_equal_weights(what, shards)
  for _, shard in ipairs(shards) do
    if shard.weight ~= shards[1].weight then
      error(("%s gives every shard the same share, but %s has weight %g and %s %g; "
        .. "use consistent_hash or rendezvous"):format(what, shards[1].shard_id, shards[1].weight,
        shard.shard_id, shard.weight), 0)
    end
  end
end

--- `bucket` of strategies whose state has a `map`.
-- @tparam table state
-- @param key
-- @treturn[1] number
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY` or `INVALID`
function placement.map_bucket(state, key)
  return state.map:bucket(key)
end

--- `place` of strategies whose state has a `map`.
-- @tparam table state
-- @tparam number bucket
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function placement.map_place(state, bucket)
  local shard_id = type(bucket) == "number" and state.map:owner(bucket)
  if shard_id then
    return shard_id
  end
  return nil, errors.new("INVALID", {
    message = ("there is no bucket %s: buckets are 0 to %d"):format(tostring(bucket), state.map:buckets() - 1),
  })
end

--- A key of one column as a table index: equal keys give equal indexes.
-- @tparam ?string key_type
-- @param key
-- @treturn[1] number|string the canonical key, an int8 beyond 2^53 as its digits
-- @return[1] the canonical key itself
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY` or `INVALID`
function placement.index(key_type, key)
  local canonical, err = core.canonical(key_type, key)
  if canonical == nil then
    return nil, err
  end
  return type(canonical) == "cdata" and tostring(canonical):sub(1, -3) or canonical, canonical
end

--- An SQL identifier in double quotes.
-- @string name
-- @treturn string
function placement.quote_ident(name)
  if type(name) ~= "string" or name == "" or name:find("%z") then
    error("an identifier must be a text that is not empty", 2)
  end
  return '"' .. name:gsub('"', '""') .. '"'
end

return placement
