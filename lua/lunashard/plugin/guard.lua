--- The placement guard: a new version of a strategy must leave every key where its rows are.
-- Both versions are asked where keys live: those routed lately, those that either version names itself, the edges of
-- the key's type, and a sample; then where the buckets live, of which the keys hit only some. A key that had a shard
-- and would have another one, or none, is moved; keys that had none cannot be misplaced.
-- @module lunashard.plugin.guard

local breath = require("lunashard.plugin.breath")
local errors = require("lunashard.errors")
local options = require("lunashard.options")
local recent_keys = require("lunashard.plugin.recent")
local samples = require("lunashard.plugin.samples")
local telling = require("lunashard.plugin.telling")

local guard = {}

local SAMPLED = 4096
local SEED = 1
local PIECE = 16 -- keys between two looks at the clock
local EXAMPLES = 3
local MOST_BUCKETS = 65536 -- that are gone through one by one

local OPTIONS = { allow_placement_change = "boolean", keys = "table", what = "string" }

local Comparison = {}
Comparison.__index = Comparison

local function new_comparison(before, after)
  return setmetatable({
    before = before,
    after = after,
    compared = 0,
    moved = 0,
    rebucketed = 0,
    examples = {},
    home = {}, -- bucket -> shard, as the old version says
    lowest = math.huge,
    highest = -math.huge,
  }, Comparison)
end

function Comparison:example(fields)
  if #self.examples < EXAMPLES then
    self.examples[#self.examples + 1] = fields
  end
end

function Comparison:key(key)
  local from, bucket_from = self.before:route(key)
  if from == nil then
    return
  end
  local to, bucket_to = self.after:route(key)
  self.compared = self.compared + 1
  if type(bucket_from) == "number" then
    self.lowest, self.highest = math.min(self.lowest, bucket_from), math.max(self.highest, bucket_from)
  end
  self.home[bucket_from] = from
  if to ~= from then
    self.moved = self.moved + 1
    self:example({
      key = key,
      from = from,
      to = to,
      bucket_from = bucket_from,
      bucket_to = to ~= nil and bucket_to or nil,
      reason = to == nil and bucket_to.message or nil,
    })
  elseif bucket_to ~= bucket_from then
    self.rebucketed = self.rebucketed + 1
  end
end

local function in_pieces(list, pause, fn)
  for from = 1, #list, PIECE do
    recent_keys.unnoticed(function()
      for i = from, math.min(from + PIECE - 1, #list) do
        fn(list[i])
      end
    end)
    pause()
  end
end

local function has_places(bound)
  return not bound.shipped and bound.plugin.place ~= nil
end

-- Buckets that no key of the sample fell into, when keys that fell into the others kept theirs.
function Comparison:buckets(pause)
  local has_both = has_places(self.before) and has_places(self.after)
  if not has_both or self.moved > 0 or self.rebucketed > 0 or self.highest - self.lowest >= MOST_BUCKETS then
    return
  end
  local list = {}
  for bucket = self.lowest, self.highest do
    if self.home[bucket] == nil then
      list[#list + 1] = bucket
    end
  end
  local compared, moved = 0, 0
  in_pieces(list, pause, function(bucket)
    local from = self.before:place(bucket)
    if from == nil then
      return
    end
    compared = compared + 1
    local to, err = self.after:place(bucket)
    if to ~= from then
      moved = moved + 1
      self:example({ from = from, to = to, bucket_from = bucket, bucket_to = bucket,
        reason = to == nil and err.message or nil })
    end
  end)
  if moved > 0 then
    for _ in pairs(self.home) do
      compared = compared + 1
    end
    self.unit, self.compared, self.moved = "buckets", compared, moved
  end
end

-- The keys of a list that are not `known` yet, which they are from then on.
local function unknown(keys, known)
  local list = {}
  for _, key in ipairs(keys) do
    local index = recent_keys.index(key)
    if not known[index] then
      known[index] = true
      list[#list + 1] = key
    end
  end
  return list
end

-- Where no type is declared, texts may be keys too; asking for many that only fail would count against the version that
-- serves.
local function takes_texts(bound)
  return recent_keys.unnoticed(bound.route, bound, samples.keys("text", 1, SEED)[1]) ~= nil
end

--- Keys that tell two versions apart, as far as keys can be known.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
-- @treturn table list
function guard.keys(before, after)
  local key_type, keys = before.key_type, {}
  local lists = { telling.keys(before, key_type), telling.keys(after, key_type), samples.edges(key_type),
    samples.keys(key_type, SAMPLED, SEED) }
  if key_type == nil and takes_texts(before) then
    lists[#lists + 1] = telling.keys(before, "text")
    lists[#lists + 1] = telling.keys(after, "text")
    lists[#lists + 1] = samples.keys("text", SAMPLED, SEED)
  end
  for _, list in ipairs(lists) do
    for _, key in ipairs(list) do
      keys[#keys + 1] = key
    end
  end
  return keys
end

--- What would move if one version of a strategy took the other's place. Yields.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
-- @tparam[opt] Recent|table recent the keys that were routed lately; by default those that `before` remembers
-- @tparam[opt] table opts `keys`: a list to compare by, instead of a sample
-- @treturn table `compared`, `moved`, `share` (0 to 1), `unit` (`keys`, or `buckets` when it is those that no key of the
--   sample fell into), `recent` (`compared` and `moved` of the keys routed lately), `rebucketed` (keys that stay, in
--   another bucket), `examples`: up to three of `{ key, from, to, bucket_from, bucket_to, reason }`, `to` nil with the
--   `reason` when the key would have no shard
function guard.compare(before, after, recent, opts)
  opts = opts or {}
  local comparison, known, pause = new_comparison(before, after), {}, breath.new()
  local function compare(key)
    comparison:key(key)
  end
  local used = recent and (recent.keys and recent:keys() or recent) or recent_keys.of(before)
  in_pieces(unknown(used, known), pause, compare)
  local of_recent = { compared = comparison.compared, moved = comparison.moved }
  in_pieces(unknown(opts.keys or guard.keys(before, after), known), pause, compare)
  comparison:buckets(pause)
  if not recent and comparison.unit == nil then -- what others routed while this waited; nothing waits from here on
    local last, compared, moved = unknown(recent_keys.of(before), known), comparison.compared, comparison.moved
    recent_keys.unnoticed(function()
      for _, key in ipairs(last) do
        comparison:key(key)
      end
    end)
    of_recent.compared = of_recent.compared + comparison.compared - compared
    of_recent.moved = of_recent.moved + comparison.moved - moved
  end
  return {
    compared = comparison.compared,
    moved = comparison.moved,
    share = comparison.compared > 0 and comparison.moved / comparison.compared or 0,
    unit = comparison.unit or "keys",
    rebucketed = comparison.rebucketed,
    recent = of_recent,
    examples = comparison.examples,
  }
end

local function percent(share)
  return share > 0 and share < 0.001 and "less than 0.1 %" or ("%.1f %%"):format(share * 100)
end

local function in_words(example)
  local what = example.key ~= nil and samples.describe(example.key) or "bucket " .. tostring(example.bucket_from)
  local buckets = ""
  if example.key ~= nil and example.bucket_from ~= example.from then
    buckets = example.bucket_from == example.bucket_to and (" (bucket %s)"):format(tostring(example.bucket_from))
      or (" (bucket %s, then %s)"):format(tostring(example.bucket_from), tostring(example.bucket_to or "none"))
  end
  return ("%s from %s to %s%s"):format(what, example.from, example.to or "no shard", buckets)
end

--- The error that refuses a change.
-- @string what would happen, such as "reloading the options"
-- @tparam table change from @{compare}
-- @treturn lunashard.error `PLACEMENT_CHANGED` with `movement`: `moved`, `total`, `fraction`, `unit`, `examples`
function guard.refusal(what, change)
  local examples = {}
  for i, example in ipairs(change.examples or {}) do
    examples[i] = in_words(example)
  end
  local lately_moved = change.recent and change.recent.moved > 0
    and ("; %d of %d that were routed lately"):format(change.recent.moved, change.recent.compared) or ""
  return errors.new("PLACEMENT_CHANGED", {
    message = ("%s would send %s of the %s (%d of %d looked at%s) to another shard while their rows stay where they "
      .. "are%s; move them with a rebalance job, or pass allow_placement_change = true when there are no rows yet"):format(
      what, percent(change.share), change.unit, change.moved, change.compared, lately_moved,
      #examples > 0 and ": " .. table.concat(examples, ", ") or ""),
    movement = { moved = change.moved, total = change.compared, fraction = change.share, unit = change.unit,
      by = change.by, examples = change.examples },
  })
end

--- Refuse a new version of a strategy that would look for keys elsewhere than where their rows are. Yields.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
-- @tparam[opt] table recent as for @{compare}
-- @tparam[opt] table opts `allow_placement_change`: there are no rows yet; `keys`: as for @{compare}; `what` happens,
--   for the message
-- @treturn[1] boolean true
-- @treturn[1] table what @{compare} says
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLACEMENT_CHANGED`, which says how many of how many keys would move and shows three
function guard.check(before, after, recent, opts)
  opts = options.check(opts, OPTIONS, "guard.check")
  local change = guard.compare(before, after, recent, opts)
  if change.moved > 0 and not opts.allow_placement_change then
    return nil, guard.refusal(opts.what or ("the new version of strategy %s"):format(after.name), change)
  end
  return true, change
end

return guard
