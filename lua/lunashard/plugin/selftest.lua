--- What a plug-in must prove before it is used: it is called with samples, and must keep what its contract promises.
-- A strategy answers every key, the same way each time, in any order, after a new start, and however the key is
-- spelled. Nothing here knows what the right answer is; it finds those that cannot be right.
-- @module lunashard.plugin.selftest

local aggregate_test = require("lunashard.plugin.selftest.aggregate")
local breath = require("lunashard.plugin.breath")
local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local extractor_test = require("lunashard.plugin.selftest.extractor")
local recent = require("lunashard.plugin.recent")
local registry = require("lunashard.plugin.registry")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")
local telling = require("lunashard.plugin.telling")

local selftest = {}

local SAMPLED = 512 -- keys drawn by chance
local SPELLED = 64 -- of those are tried in all their forms
local SEED = 20261122
local PIECE = 16 -- keys between two looks at the clock
local MOST_SECONDS = 20 -- of processor time in all

local INT64_HINT = " (an int8 key beyond 2^53 is an int64, and its remainder may be negative: tonumber(key % n) % n)"
local REASON_NEEDED = "to say that a key has no shard, return nil and the reason"

-- Call a function that must not yield; gives what it returns, or nil and what is wrong.
local function at_once(fn, ...)
  local co = coroutine.create(fn)
  local ok, value, why = coroutine.resume(co, ...)
  if not ok then
    error(value, 0)
  elseif coroutine.status(co) ~= "dead" then
    return nil, "it yields, but must answer at once"
  end
  return value, why
end

-- The answer as a value that can be compared, and as words; or nil and what is wrong.
local function ask(bound, key)
  local shard_id, bucket = bound:route(key)
  if shard_id ~= nil then
    return { shard_id = shard_id, bucket = bucket }
  elseif bucket.code == "PLUGIN_FAILED" or bucket.unexplained then
    return nil, ("key %s: %s%s%s"):format(samples.describe(key), bucket.message,
      bucket.unexplained and "; " .. REASON_NEEDED or "", type(key) == "cdata" and INT64_HINT or "")
  end
  return { refusal = bucket.message }
end

local function same(a, b)
  return a.shard_id == b.shard_id and a.bucket == b.bucket
end

local function in_words(answer)
  if answer.refusal then
    return "no shard"
  elseif answer.bucket == answer.shard_id then
    return answer.shard_id
  end
  return ("%s (bucket %s)"):format(answer.shard_id, tostring(answer.bucket))
end

-- Walk over a list in pieces, others having their turn in between.
local function each_piece(list, from, to, step, fn)
  local pause, began, resting = breath.new(), os.clock(), 0
  for at = from, to, step * PIECE do
    local last = step > 0 and math.min(at + PIECE - 1, to) or math.max(at - PIECE + 1, to)
    local ok, why = recent.unnoticed(at_once, function()
      for i = at, last, step do
        local fine, message = fn(list[i], i)
        if not fine then
          return nil, message
        end
      end
      return true
    end)
    if not ok then
      return nil, why
    elseif os.clock() - began - resting > MOST_SECONDS then
      return nil, ("it is too slow: %d keys took %d s"):format(math.abs(last - from) + 1, MOST_SECONDS)
    end
    local before = os.clock()
    pause()
    resting = resting + os.clock() - before
  end
  return true
end

-- The keys to try, those that the strategy names among them; none that cannot be a key of the type.
local function keys_for(bound, key_type)
  local keys = {}
  for _, list in ipairs({ samples.edges(key_type), telling.keys(bound, key_type),
    samples.keys(key_type, SAMPLED, SEED) }) do
    for _, key in ipairs(list) do
      if core.canonical(bound.key_type, key) ~= nil then
        keys[#keys + 1] = key
      end
    end
  end
  return keys
end

local function check_repeated(bound, keys, answers, what)
  return each_piece(keys, #keys, 1, -1, function(key, i)
    local answer, why = ask(bound, key)
    if not answer then
      return nil, why
    elseif not same(answer, answers[i]) then
      return nil, ("key %s: %s, and %s %s: the answer may depend on nothing but the key"):format(
        samples.describe(key), in_words(answers[i]), what, in_words(answer))
    end
    return true
  end)
end

local function check_forms(bound, key_type, keys, answers)
  local stride = math.max(1, math.floor(#keys / SPELLED))
  local chosen = {}
  for i = 1, #keys do
    if i <= SPELLED or i % stride == 0 then
      chosen[#chosen + 1] = i
    end
  end
  return each_piece(chosen, 1, #chosen, 1, function(i)
    -- Without a declared type a text is a text: its digits beyond 2^53 are no number's.
    local forms = (bound.key_type ~= nil or type(keys[i]) ~= "cdata") and samples.forms(key_type, keys[i]) or {}
    for _, form in ipairs(forms) do
      local answer, why = ask(bound, form)
      if not answer then
        return nil, why
      elseif not same(answer, answers[i]) then
        return nil, ("%s and %s are one key of type %s, but one is on %s, the other on %s"):format(
          samples.describe(keys[i]), samples.describe(form), table.concat(samples.types(key_type), ", "),
          in_words(answers[i]), in_words(answer))
      end
    end
    return true
  end)
end

-- The same version of the plug-in, from the beginning: with a state that nothing was handed down to.
local function made_anew(bound)
  local entry = bound.entry
  local old_states = entry.old_states
  entry.old_states = nil
  local ok, again = registry.staged(entry, strategy.bind, bound.spec, bound.shards, { key_type = bound.key_type,
    shard_key = bound.shard_key })
  entry.old_states = old_states
  if not ok then
    return nil, "made a second time it fails: " .. tostring(errors.is(again) and again.message or again)
  end
  return again
end

local function hint(bound, message)
  if bound.key_type == nil then
    return message .. " (tried with int8 keys, for no type is declared: see the option key_type, and type in tables)"
  end
  return message
end

--- Try a strategy. Yields.
-- Over the edges of the key's type, the keys that the strategy names itself, and keys drawn by chance: it must answer
-- (a shard that exists; or nil with a reason), again the same in another order, the same when it is made anew, and
-- the same for every spelling of a key.
-- @tparam lunashard.strategy.bound bound not a shipped one
-- @tparam[opt] string|{string,...} key_type the strategy's, else int8
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong, with the key, in one line
function selftest.strategy(bound, key_type)
  key_type = key_type or bound.key_type or "int8"
  local keys, answers = keys_for(bound, key_type), {}
  local ok, why = each_piece(keys, 1, #keys, 1, function(key, i)
    local message
    answers[i], message = ask(bound, key)
    return answers[i], message
  end)
  if ok then
    ok, why = check_repeated(bound, keys, answers, "asked again")
  end
  if ok then
    local again
    again, why = made_anew(bound)
    if not again then
      return nil, why
    end
    ok, why = check_repeated(again, keys, answers, "after a new start and in another order")
  end
  if ok then
    ok, why = check_forms(bound, key_type, keys, answers)
  end
  if not ok then
    return nil, hint(bound, why)
  end
  return true
end

--- Try an aggregate.
-- On the rows of three shards: `step`, `merge` and `finish` return what they must, and the result does not depend on
-- how rows are dealt out to shards, nor on empty ones.
-- @tparam table contract
-- @treturn[1] boolean true
-- @treturn[1] ?string why it could not be tried, for none of the sample rows are what it works on
-- @treturn[2] nil
-- @treturn[2] string what is wrong, in one line
function selftest.aggregate(contract)
  return at_once(aggregate_test.check, contract)
end

--- Try an extractor.
-- It gives a key, or nil and the reason, and the same one when it is asked again.
-- @tparam table contract
-- @treturn[1] boolean true
-- @treturn[1] ?string why it could not be tried, for it fails with all of the sample statements
-- @treturn[2] nil
-- @treturn[2] string what is wrong, in one line
function selftest.extractor(contract)
  return at_once(extractor_test.check, contract)
end

return selftest
