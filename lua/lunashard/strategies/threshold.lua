--- Threshold: keys below a value by one strategy, the others by another.
-- `threshold { below = 1000000, old = hash, new = consistent_hash }`: growth without moving what is there.
-- Both share the shard key, which is one column of type int8, date or text (by bytes).
-- @module lunashard.strategies.threshold

local core = require("lunashard.core.placement")
local members = require("lunashard.strategy.members")

local threshold = { api = 1, kind = "strategy", name = "threshold", options = { "below", "old", "new" } }

--- Bind both members.
-- @tparam table options `below`, `old`, `new`
-- @tparam {table,...} shards
-- @treturn table state
function threshold.new(options, shards)
  for _, name in ipairs({ "below", "old", "new" }) do
    if options[name] == nil then
      error(("strategy threshold needs the options below, old and new; %s is missing"):format(name), 0)
    end
  end
  local key_type = options.key_type or (type(options.below) == "string" and "text" or "int8")
  if type(key_type) ~= "string" or key_type == "uuid" then
    error("strategy threshold: the key must be one column of type int8, text or date", 0)
  end
  local below, err = core.canonical(key_type, options.below)
  if below == nil then
    error("strategy threshold: below: " .. err.message:gsub("^routing key ", ""), 0)
  end
  -- Two ranges that meet: the first is the old one's.
  local ranges = core.ranges(key_type, { { high = below, high_exclusive = true }, { low = below } })
  return {
    ranges = ranges,
    members = {
      members.bind("threshold: old", options.old, shards, options),
      members.bind("threshold: new", options.new, shards, options),
    },
  }
end

--- The bucket of a key. Yields when the member does.
-- @tparam table state
-- @param key
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function threshold.bucket(state, key)
  local i, err = state.ranges:find(key)
  if not i then
    return nil, err
  end
  local bucket
  bucket, err = state.members[i]:bucket(key)
  if bucket == nil then
    return nil, err
  end
  return members.join(i, bucket)
end

threshold.place = members.place
threshold.attach = members.attach
threshold.invalidate = members.invalidate

return threshold
