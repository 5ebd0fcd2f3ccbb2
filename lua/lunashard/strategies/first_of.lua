--- First of several strategies that answers.
-- `first_of { pins, directory, consistent_hash }`: a member answers, or passes the key on by
-- `NO_SHARD`; any other failure is the answer. Members share the shard key and its type.
--
-- A bucket is the member's number and its bucket, so putting a key into an earlier member gives it
-- another bucket.
-- @module lunashard.strategies.first_of

local errors = require("lunashard.errors")
local members = require("lunashard.strategy.members")

local first_of = { api = 1, kind = "strategy", name = "first_of", options = {}, has_members = true }

--- Bind the members.
-- @tparam table options the members, in order
-- @tparam {table,...} shards
-- @treturn table state
function first_of.new(options, shards)
  local list = {}
  for i, given in ipairs(options) do
    list[i] = members.bind("first_of: member " .. i, given, shards, options)
  end
  if #list == 0 then
    error("strategy first_of needs at least one member", 0)
  end
  return { members = list }
end

--- Where a key lives. Yields when a member does.
-- @tparam table state
-- @param key
-- @treturn[1] string shard_id
-- @treturn[1] string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error the first that is not `NO_SHARD`, or the last member's
function first_of.route(state, key)
  local err
  for i, member in ipairs(state.members) do
    local shard_id, bucket = member:route(key)
    if shard_id ~= nil then
      return shard_id, members.join(i, bucket)
    end
    err = bucket
    if not errors.is(err, "NO_SHARD") then
      break
    end
  end
  return nil, err
end

--- The bucket of a key. Yields when a member has to be asked whether it knows the key.
-- @tparam table state
-- @param key
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error as of `route`
function first_of.bucket(state, key)
  local shard_id, bucket = first_of.route(state, key)
  if shard_id == nil then
    return nil, bucket
  end
  return bucket
end

first_of.place = members.place
first_of.attach = members.attach
first_of.invalidate = members.invalidate

return first_of
