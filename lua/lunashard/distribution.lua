--- How keys spread over shards and buckets, and what another version of the strategy does with them.
-- Keys are counted one by one and not kept, so that there may be any number of them.
-- @module lunashard.distribution

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local samples = require("lunashard.plugin.samples")
local values = require("lunashard.values")

local distribution = {}

local MOST_BUCKETS = 65536 -- that are counted apart; a directory has as many as it has keys
local FAILURES = 5 -- that are told
local EXAMPLES = 3

local Tally = {}
Tally.__index = Tally

--- An empty tally.
-- @tparam lunashard.strategy.bound bound
-- @tparam[opt] table opts `against`: another strategy, whose answers are the earlier ones; `top`: how many of the
--   hottest buckets to tell [5]
-- @treturn Tally
function distribution.new(bound, opts)
  opts = opts or {}
  local self = setmetatable({
    bound = bound,
    against = opts.against,
    top = opts.top or 5,
    keys = 0,
    null_keys = 0,
    failed_keys = 0,
    failures = {},
    per_shard = {},
    rows = nil, -- of those that say where they are: shard_id -> count
    misplaced = {},
    misplaced_examples = {},
    buckets = {},
    n_buckets = 0,
    forgotten = 0, -- keys that a bucket which is not counted apart may have at most
    compared = 0,
    moved = 0,
    ways = {},
    moved_examples = {},
  }, Tally)
  for _, shard in ipairs(bound.shards) do
    self.per_shard[shard.shard_id] = 0
  end
  return self
end

-- The buckets with the fewest keys make place: what is forgotten can be no hot one.
local function forget_small(self)
  local counts = {}
  for _, count in pairs(self.buckets) do
    counts[#counts + 1] = count
  end
  table.sort(counts)
  local limit = counts[math.ceil(#counts / 2)]
  local left = 0
  for bucket, count in pairs(self.buckets) do
    if count <= limit then
      self.buckets[bucket] = nil
    else
      left = left + 1
    end
  end
  self.n_buckets, self.forgotten = left, math.max(self.forgotten, limit)
end

local function count_bucket(self, bucket)
  local count = self.buckets[bucket]
  if count then
    self.buckets[bucket] = count + 1
    return
  elseif self.n_buckets >= MOST_BUCKETS then
    forget_small(self)
  end
  self.buckets[bucket] = 1 + self.forgotten
  self.n_buckets = self.n_buckets + 1
end

local function is_null(key)
  if type(key) == "table" then
    for _, value in ipairs(key) do
      if value == values.null then
        return true
      end
    end
  end
  return key == nil or key == values.null
end

--- A key from its text, as a program would pass it: without a declared type, a whole number is a number.
-- @tparam lunashard.strategy.bound bound
-- @param text or a list of texts
-- @return the key
function distribution.key_of(bound, text)
  if bound.key_type == nil and type(text) == "string" then
    return core.canonical("int8", text) or text
  end
  return text
end

local function shown(self, key)
  return samples.describe(core.canonical(self.bound.key_type, key) or key)
end

local function compare(self, key, to)
  local from = self.against:route(key)
  if from == nil then
    return
  end
  self.compared = self.compared + 1
  if from ~= to then
    self.moved = self.moved + 1
    local way = from .. "->" .. (to or "no shard")
    self.ways[way] = (self.ways[way] or 0) + 1
    if #self.moved_examples < EXAMPLES then
      self.moved_examples[#self.moved_examples + 1] = { key = shown(self, key), from = from, to = to }
    end
  end
end

--- Count a key. Yields when a directory has to be asked.
-- @param key
-- @param[opt] where it comes from, for the list of failures: a text, or what has a method `where`
-- @string[opt] at the shard that has its row
function Tally:add(key, where, at)
  if at then
    self.rows = self.rows or {}
    self.rows[at] = (self.rows[at] or 0) + 1
  end
  if is_null(key) then
    self.null_keys = self.null_keys + 1
    return
  end
  local shard_id, bucket = self.bound:route(key)
  if shard_id == nil then
    self.failed_keys = self.failed_keys + 1
    if #self.failures < FAILURES then
      where = type(where) == "table" and where:where() or where
      self.failures[#self.failures + 1] = { where = where, code = bucket.code, message = bucket.message }
    end
  else
    self.keys = self.keys + 1
    self.per_shard[shard_id] = self.per_shard[shard_id] + 1
    count_bucket(self, bucket)
    if at and at ~= shard_id then
      self.misplaced[at] = (self.misplaced[at] or 0) + 1
      if #self.misplaced_examples < EXAMPLES then
        self.misplaced_examples[#self.misplaced_examples + 1] = { key = shown(self, key), at = at, belongs_to = shard_id }
      end
    end
  end
  if self.against then
    compare(self, key, shard_id)
  end
end

local function share(part, whole)
  return whole > 0 and part / whole or 0
end

local function shards_of(self)
  local total, list = 0, {}
  for _, shard in ipairs(self.bound.shards) do
    total = total + shard.weight
  end
  for i, shard in ipairs(self.bound.shards) do
    local id = shard.shard_id
    local keys, expected = self.per_shard[id], shard.weight / total
    list[i] = {
      shard_id = id,
      keys = keys,
      share = share(keys, self.keys),
      expected_share = expected,
      ratio = share(keys, self.keys) / expected,
      rows = self.rows and (self.rows[id] or 0),
      misplaced = self.rows and (self.misplaced[id] or 0),
    }
  end
  return list
end

-- The shares beside the even ones: the least and the most, and how far they are apart on average.
local function balance_of(shards)
  local least, most, squares = math.huge, 0, 0
  for _, shard in ipairs(shards) do
    least, most = math.min(least, shard.ratio), math.max(most, shard.ratio)
    squares = squares + (shard.ratio - 1) ^ 2
  end
  return { least = least, most = most, deviation = math.sqrt(squares / #shards) }
end

local function hot_buckets(self)
  local list = {}
  for bucket, count in pairs(self.buckets) do
    list[#list + 1] = { bucket = bucket, keys = count }
  end
  table.sort(list, function(a, b)
    if a.keys ~= b.keys then
      return a.keys > b.keys
    end
    return tostring(a.bucket) < tostring(b.bucket)
  end)
  local hot, mean = {}, self.keys / #list
  for i = 1, math.min(self.top, #list) do
    local one = list[i]
    hot[i] = {
      bucket = one.bucket,
      shard_id = self.bound:place(one.bucket),
      keys = one.keys,
      share = share(one.keys, self.keys),
      times_mean = one.keys / mean,
    }
  end
  return hot
end

--- What was counted.
-- @treturn table `strategy`, `key_type`, `keys` (that have a shard), `null_keys`, `failed_keys` and `failures` (the first of
--   them: `where`, `code`, `message`); `shards`: a list in configured order of `shard_id`, `keys`, `share`,
--   `expected_share` (by weight), `ratio` of the two, and of a table's rows `rows`, `misplaced`; `balance`: `least`,
--   `most` and `deviation` of the ratios; `buckets`: how many there are, if that is known; `used_buckets`: how many
--   have keys (at least, unless `buckets_exact`); `hot_buckets`: those with the most keys, each `bucket`, `shard_id`,
--   `keys`, `share`, `times_mean` (of those that have keys); `misplaced` in all and `misplaced_examples`;
--   with another strategy `against`: `strategy`, `compared`, `moved`, `share`, `by` ("shard1->shard2" -> count),
--   `examples`
function Tally:report()
  local shards = shards_of(self)
  local types = self.bound.key_type
  local report = {
    strategy = self.bound.name,
    key_type = type(types) == "table" and table.concat(types, ", ") or types,
    keys = self.keys,
    null_keys = self.null_keys,
    failed_keys = self.failed_keys,
    failures = self.failures,
    shards = shards,
    balance = self.keys > 0 and balance_of(shards) or nil,
    buckets = self.bound.map and self.bound.map:buckets() or nil,
    used_buckets = self.n_buckets,
    buckets_exact = self.forgotten == 0,
    hot_buckets = {},
  }
  if self.keys > 0 then
    report.hot_buckets = hot_buckets(self)
  end
  if self.rows then
    report.misplaced, report.misplaced_examples = 0, self.misplaced_examples
    for _, count in pairs(self.misplaced) do
      report.misplaced = report.misplaced + count
    end
  end
  if self.against then
    report.against = {
      strategy = self.against.name,
      compared = self.compared,
      moved = self.moved,
      share = share(self.moved, self.compared),
      by = self.ways,
      examples = self.moved_examples,
    }
  end
  return report
end

--- Is there a shard to be asked before these keys can be routed? So it is for a directory that lives in a table.
-- @tparam lunashard.strategy.bound bound
-- @treturn boolean
function distribution.needs_servers(bound)
  if bound.name == "directory" and bound.shipped and bound.spec.options.table ~= nil then
    return true
  end
  for _, member in ipairs(bound.shipped and bound.state.members or {}) do
    if distribution.needs_servers(member) then
      return true
    end
  end
  return false
end

--- The error for keys that have no shard.
-- @tparam table report from `Tally:report`
-- @treturn lunashard.error
function distribution.failure(report)
  local first = report.failures[1]
  return errors.new(first.code, {
    message = ("%d key%s without a shard; the first: %s%s"):format(report.failed_keys,
      report.failed_keys == 1 and " is" or "s are", first.where and tostring(first.where) .. ": " or "", first.message),
  })
end

return distribution
