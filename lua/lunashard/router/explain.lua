--- Where a statement would go, and why. Needs no connection.
-- @module lunashard.router.explain

local options = require("lunashard.options")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local statement = require("lunashard.router.statement")

local explain = { methods = {} }

local EXPLAIN = options.known(routing.OPTIONS, {
  read_only = "boolean",
  all_shards = "boolean",
  shard_ids = "table",
  timeout = "seconds",
  retries = "count",
  decode_json = "boolean",
  max_result_bytes = "count",
  pipeline = "boolean",
})

local Plan = {}
Plan.__index = Plan

function Plan:__tostring()
  local lines = { "statement: " .. self.kind .. (self.word and " (" .. self.word .. ")" or "") }
  if self.bucket ~= nil then
    lines[#lines + 1] = ("bucket: %s (%s)"):format(tostring(self.bucket), self.strategy)
  end
  lines[#lines + 1] = "shards: " .. table.concat(self.shards, ", ")
  for _, shard_id in ipairs(self.shards) do
    lines[#lines + 1] = ("endpoint: %s at %s"):format(shard_id, self.endpoints[shard_id])
  end
  lines[#lines + 1] = "because: " .. self.reason
  return table.concat(lines, "\n")
end

-- Where it would go now, without taking a replica's turn.
local function endpoint_of(member, read_only)
  if not read_only or #member.replicas == 0 then
    return member.primary.name
  end
  local names = {}
  for i, replica in ipairs(member.replicas) do
    names[i] = replica.name
  end
  return table.concat(names, " or ") .. ", else " .. member.primary.name
end

local function plan(kind, word, members, reason, opts)
  local made = { kind = kind, word = word, shards = {}, endpoints = {}, reason = reason }
  for i, member in ipairs(members) do
    made.shards[i] = member.shard_id
    made.endpoints[member.shard_id] = endpoint_of(member, opts.read_only)
  end
  made.shard_id = #members == 1 and members[1].shard_id or nil
  return setmetatable(made, Plan)
end

local function key_text(key)
  if type(key) == "table" then
    local parts = {}
    for _, column in ipairs(key) do
      parts[#parts + 1] = options.describe(column)
    end
    return "(" .. table.concat(parts, ", ") .. ")"
  elseif type(key) == "cdata" then
    return tostring(key)
  end
  return options.describe(key)
end

local function column_text(strategy)
  local column = strategy.shard_key
  return type(column) == "table" and table.concat(column, ", ") or column or "the routing key"
end

local function single(manager, kind, word, opts)
  local member, bucket = routing.resolve(manager, opts)
  if not member then
    return nil, bucket
  elseif opts.routing_key == nil then
    return plan(kind, word, { member }, "shard_id names the shard", opts)
  end
  local strategy = manager:strategy_for(opts.table, opts.routing_key)
  local made = plan(kind, word, { member }, ("%s = %s falls into bucket %s, which strategy %s places on %s"):format(
    column_text(strategy), key_text(opts.routing_key), tostring(bucket), strategy.name, member.shard_id), opts)
  made.bucket, made.strategy = bucket, strategy.name
  return made
end

--- Say where `execute` or `scatter_gather` would send a statement.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts as for `execute`
-- @treturn[1] table `kind` (`read`, `write`), `shards` (list of names), `shard_id` when it is one, `bucket`,
--   `strategy`, `endpoints`
--   (by shard_id), `reason`; `tostring` gives lines of text
-- @treturn[2] nil
-- @treturn[2] lunashard.error as `execute` would return: `INVALID`, `NULL_KEY`, `NO_SHARD`, `KEY_MISMATCH`;
--   `NO_KEY` for a write
--   without a key
function explain.methods:explain(sql, params, opts)
  routing.check_arguments("explain", sql, params)
  opts = options.check(opts, EXPLAIN, "explain")
  local manager = self.manager
  local kind, err = routing.check_statement(sql, opts.read_only)
  if not kind then
    return nil, err
  end
  local _, word = statement.classify(sql)
  if routing.is_reference(manager, opts.table) then
    return plan(kind, word, manager.members, kind == "read"
      and opts.table .. " is a reference table: any one of the shards answers"
      or opts.table .. " is a reference table: every shard gets the write", opts)
  elseif opts.routing_key ~= nil or opts.shard_id ~= nil then
    return single(manager, kind, word, opts)
  elseif kind == "write" and not opts.all_shards then
    return routing.resolve(manager, opts) -- NO_KEY, with its advice
  end
  local members
  members, err = scatter.members(manager, opts.shard_ids)
  if not members then
    return nil, err
  end
  return plan(kind, word, members, "there is no routing_key: scatter_gather asks every shard", opts)
end

return explain
