--- Strategies made of other strategies: binding members, and buckets that name their member.
-- @module lunashard.strategy.members

local errors = require("lunashard.errors")

local strategy_members = {}

--- Bind a member to the shards of the whole.
-- @string what names the member, for messages
-- @param given anything that describes a strategy
-- @tparam {table,...} shards
-- @tparam table options of the whole: `shard_key`, `key_type`
-- @treturn lunashard.strategy.bound
function strategy_members.bind(what, given, shards, options)
  local strategy = require("lunashard.strategy") -- not above: it requires the strategies
  local ok, bound = pcall(strategy.bind, given, shards, {
    shard_key = options.shard_key,
    key_type = options.key_type,
  })
  if not ok then
    error(("strategy %s: %s"):format(what, tostring(bound)), 0)
  end
  return bound
end

--- Name a member's bucket: "2#4711" for number 4711, "2:name" for a text.
-- @tparam number i the member's position
-- @tparam number|string bucket
-- @treturn string
function strategy_members.join(i, bucket)
  return type(bucket) == "number" and ("%d#%d"):format(i, bucket) or i .. ":" .. bucket
end

--- `place` of strategies whose state has `members`.
-- @tparam table state
-- @tparam string bucket from @{join}
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function strategy_members.place(state, bucket)
  local i, kind, inner = tostring(bucket):match("^(%d+)([#:])(.*)$")
  local member = i and state.members[tonumber(i)]
  if not member then
    return nil, errors.new("INVALID", { message = ("there is no bucket %s"):format(tostring(bucket)) })
  end
  return member:place(kind == "#" and tonumber(inner) or inner)
end

--- `attach` of strategies whose state has `members`.
-- @tparam table state
-- @tparam function execute
function strategy_members.attach(state, execute)
  for _, member in ipairs(state.members) do
    member:attach(execute)
  end
end

--- `invalidate` of strategies whose state has `members`.
-- @tparam table state
-- @param[opt] key
function strategy_members.invalidate(state, key)
  for _, member in ipairs(state.members) do
    member:invalidate(key)
  end
end

return strategy_members
