--- What `router:explain` says.
--
--    kind            `read`, `write`, or `key` when only a key was asked for
--    word            the statement's first word
--    source          what names the shard: `routing_key`, `shard_id`, `table`, or the extractor, such as `by_column`
--    found           what the extractor found, in words
--    table           the declared table that the keys are of
--    keys            list with the key, when it is one
--    bucket, strategy of that key
--    shards          list of shard_ids; `shard_id` when it is one
--    any             true: any one of them answers
--    split           shard_id -> how many are its of what `split_in` says, `key` or `row`
--    endpoints       shard_id -> `host:port` or, for reads, those that may be asked
--    endpoint_kinds  shard_id -> `primary` or `replica, else primary`
--    statements      shard_id -> `{ sql, params }`, what it is sent
--    steps           list of words: what becomes of the shards' answers
--    assumed         true: no catalog was asked, so functions were taken for no aggregates, and relations for tables
--    reason          why it goes there
-- @classmod lunashard.router.explained

local json_text = require("lunashard.json_text")
local options = require("lunashard.options")

local explained = {}

local Explained = { __name = "lunashard.explained" }
Explained.__index = Explained

--- A key as text.
-- @param key
-- @treturn string
function explained.key_text(key)
  if type(key) == "table" then
    local parts = {}
    for _, column in ipairs(key) do
      parts[#parts + 1] = explained.key_text(column)
    end
    return "(" .. table.concat(parts, ", ") .. ")"
  elseif type(key) == "cdata" then
    return (tostring(key):gsub("U?LL$", ""))
  end
  return options.describe(key)
end

-- Where it would go now, without taking a replica's turn.
local function endpoint_of(member, read_only)
  if not read_only or #member.replicas == 0 then
    return member.primary.name, "primary"
  end
  local names = {}
  for i, replica in ipairs(member.replicas) do
    names[i] = replica.name
  end
  return table.concat(names, " or ") .. ", else " .. member.primary.name, "replica, else primary"
end

--- A first explanation, to be completed.
-- @string kind
-- @tparam ?string word
-- @tparam {table,...} members
-- @string reason
-- @tparam table opts `read_only`
-- @treturn Explained
function explained.new(kind, word, members, reason, opts)
  local made = { kind = kind, word = word, shards = {}, endpoints = {}, endpoint_kinds = {}, statements = {},
    reason = reason }
  for i, member in ipairs(members) do
    local shard_id = member.shard_id
    made.shards[i] = shard_id
    made.endpoints[shard_id], made.endpoint_kinds[shard_id] = endpoint_of(member, opts.read_only)
  end
  made.shard_id = #members == 1 and members[1].shard_id or nil
  return setmetatable(made, Explained)
end

local function counted(n, word)
  return ("%d %s%s"):format(n, word, n == 1 and "" or "s")
end

local function add_shards(lines, self)
  lines[#lines + 1] = (self.any and "any shard of: " or "shards: ") .. table.concat(self.shards, ", ")
  for _, shard_id in ipairs(self.shards) do
    lines[#lines + 1] = ("endpoint: %s at %s (%s)"):format(shard_id, self.endpoints[shard_id],
      self.endpoint_kinds[shard_id])
  end
end

-- One line for all that are sent the same.
local function add_statements(lines, self)
  local by_text, order = {}, {}
  for _, shard_id in ipairs(self.shards) do
    local sent = self.statements[shard_id]
    if sent then
      local split = self.split and self.split[shard_id]
      local key = sent.sql .. "\0" .. tostring(split)
      if not by_text[key] then
        by_text[key] = { sql = sent.sql, split = split }
        order[#order + 1] = by_text[key]
      end
      table.insert(by_text[key], shard_id)
    end
  end
  for _, one in ipairs(order) do
    local split = one.split and (" (%s of its own)"):format(counted(one.split, self.split_in)) or ""
    lines[#lines + 1] = ("sent to %s%s: %s"):format(table.concat(one, ", "), split, (one.sql:gsub("%s+", " ")))
  end
end

--- Lines of text; of parameters only keys are shown.
function Explained:__tostring()
  local lines = { self.kind == "key" and "a key alone"
    or "statement: " .. self.kind .. (self.word and " (" .. self.word .. ")" or "") }
  if self.source then
    lines[#lines + 1] = "named by: " .. self.source .. (self.found and ": " .. self.found or "")
  end
  if self.bucket ~= nil then
    lines[#lines + 1] = ("bucket: %s (%s)"):format(tostring(self.bucket), self.strategy)
  end
  add_shards(lines, self)
  add_statements(lines, self)
  for i, step in ipairs(self.steps or {}) do
    lines[#lines + 1] = ("then %d: %s"):format(i, step)
  end
  if self.assumed then
    lines[#lines + 1] = "on trust: functions are no aggregates and relations no views, for no catalog was asked"
  end
  lines[#lines + 1] = "because: " .. self.reason
  return table.concat(lines, "\n")
end

local PLAIN = { "kind", "word", "source", "found", "table", "strategy", "shard_id", "any", "split", "split_in",
  "endpoints", "endpoint_kinds", "assumed", "reason" }

--- A plain tree for JSON. Of parameters only keys are in it, as text.
-- @treturn table
function Explained:to_table()
  local plain = { shards = json_text.list({ unpack(self.shards) }), statements = {}, steps = self.steps or nil }
  for _, name in ipairs(PLAIN) do
    plain[name] = self[name]
  end
  plain.bucket = self.bucket ~= nil and tostring(self.bucket) or nil
  plain.key = self.keys and explained.key_text(self.keys[1]) or nil
  for shard_id, sent in pairs(self.statements) do
    plain.statements[shard_id] = sent.sql
  end
  return plain
end

return explained
