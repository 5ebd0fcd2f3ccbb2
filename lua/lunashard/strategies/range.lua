--- Range strategy: each shard owns ranges of keys.
-- Bounds are inclusive, as in the guide: `ranges = { shard1 = { 0, 1000000 }, shard2 = { 1000001 } }`;
-- a missing bound is open (`{ nil, 10 }`). A shard may own several: `{ { 0, 10 }, { 20, 30 } }`. An
-- upper bound may be exclusive instead, `{ "a", below = "n" }`: between two texts there is always
-- another one, so inclusive bounds cannot meet. Key types: `int8`, `date` (YYYY-MM-DD) and `text`,
-- which compares by bytes (as COLLATE "C").
--
-- Overlaps are errors; gaps too, unless `allow_gaps`; a key that no range holds is `NO_SHARD`.
-- A range is a bucket, so splitting one makes new buckets.
-- @module lunashard.strategies.range

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local placement = require("lunashard.strategy.placement")

local BOUNDS = { "below" }

local range = { api = 1, kind = "strategy", name = "range", options = { "ranges", "allow_gaps" } }

local function fail(text, ...)
  error("strategy range: " .. text:format(...), 0)
end

local function bound(shard_id, key_type, value)
  if value == nil then
    return nil
  end
  local canonical, err = core.canonical(key_type, value)
  if canonical == nil then
    fail("range of %s: bound %s", shard_id, (err.message:gsub("^routing key ", "")))
  end
  return canonical
end

local function text_of(value)
  return value == nil and "" or type(value) == "cdata" and tostring(value):sub(1, -3) or tostring(value)
end

local function check_names(shard_id, given)
  for name in pairs(given) do
    if name ~= 1 and name ~= 2 and name ~= "below" then
      fail("range of %s: %s", shard_id, errors.unknown_option("a range", name, BOUNDS))
    end
  end
  if given[2] ~= nil and given.below ~= nil then
    fail("range of %s has two upper bounds: give the second value or below, not both", shard_id)
  end
end

-- One range in the form that the core takes, with its owner and a name: "0..10", "a..<n", "5..".
local function parse(shard_id, key_type, given)
  if type(given) ~= "table" then
    fail("range of %s must be a table such as { 0, 1000000 }, not a %s", shard_id, type(given))
  end
  check_names(shard_id, given)
  local parsed = {
    low = bound(shard_id, key_type, given[1]),
    high = bound(shard_id, key_type, given.below == nil and given[2] or given.below),
    high_exclusive = given.below ~= nil,
    shard_id = shard_id,
  }
  parsed.name = text_of(parsed.low) .. (parsed.high_exclusive and "..<" or "..") .. text_of(parsed.high)
  return parsed
end

local function is_list(given)
  return type(given) == "table" and type(given[1]) == "table"
end

-- Without a declared type the first bound tells: a number int8, a string text.
local function infer_type(ranges)
  for _, given in pairs(ranges) do
    local first = is_list(given) and given[1] or given
    local value = type(first) == "table" and (first[1] or first[2] or first.below)
    if value then
      return type(value) == "string" and "text" or "int8"
    end
  end
  return "int8"
end

local function explain(fault, a, b, key_type)
  local one = ("%s (%s)"):format(a.shard_id, a.name)
  if fault == "empty" then
    fail("range of %s is empty: its lower bound is above its upper one", one)
  end
  local two = ("%s (%s)"):format(b.shard_id, b.name)
  if fault == "overlap" then
    fail("ranges of %s and %s overlap", one, two)
  end
  fail("keys between the ranges of %s and %s have no shard; close the gap or set allow_gaps = true%s", one, two,
    key_type == "text" and not a.high_exclusive
      and ('; text ranges meet with an exclusive bound, { "a", below = "n" }') or "")
end

--- Check and order the ranges.
-- @tparam table options `ranges`: shard_id -> range or list of ranges; `allow_gaps`; `key_type`
-- @tparam {table,...} shards
-- @treturn table state
function range.new(options, shards)
  if type(options.ranges) ~= "table" or next(options.ranges) == nil then
    fail("ranges is missing; expected a table such as { shard1 = { 0, 1000000 }, shard2 = { 1000001 } }")
  end
  local key_type = options.key_type or infer_type(options.ranges)
  if type(key_type) ~= "string" or key_type == "uuid" then
    fail("the key must be one column of type int8, text or date")
  end
  local list = {}
  for shard_id, given in pairs(options.ranges) do
    placement.check_shard("strategy range: ranges", shard_id, shards)
    for _, one in ipairs(is_list(given) and given or { given }) do
      list[#list + 1] = parse(shard_id, key_type, one)
    end
  end
  local ranges, fault, a, b = core.ranges(key_type, list, options.allow_gaps)
  if not ranges then
    explain(fault, list[a], list[b], key_type)
  end
  local owner = {}
  for _, one in ipairs(list) do
    owner[one.name] = one.shard_id
  end
  return { ranges = ranges, list = list, owner = owner }
end

--- The range that holds a key, by name.
-- @tparam table state
-- @param key
-- @treturn[1] string such as `0..1000000`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID` or `NO_SHARD`
function range.bucket(state, key)
  local i, err = state.ranges:find(key)
  if not i then
    return nil, err
  end
  return state.list[i].name
end

--- The shard of a range.
-- @tparam table state
-- @tparam string bucket
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function range.place(state, bucket)
  local shard_id = state.owner[bucket]
  if shard_id then
    return shard_id
  end
  return nil, errors.new("INVALID", { message = ("there is no range %s"):format(tostring(bucket)) })
end

--- Both at once.
-- @tparam table state
-- @param key
-- @treturn[1] string shard_id
-- @treturn[1] string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID` or `NO_SHARD`
function range.route(state, key)
  local i, err = state.ranges:find(key)
  if not i then
    return nil, err
  end
  return state.list[i].shard_id, state.list[i].name
end

--- The shards with a range that meets low..high.
-- @tparam table state
-- @param low inclusive; nil is open
-- @param high inclusive; nil is open
-- @treturn[1] table set of shard_ids
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function range.shards_for_range(state, low, high)
  local positions, err = state.ranges:span(low, high)
  if not positions then
    return nil, err
  end
  local set = {}
  for _, i in ipairs(positions) do
    set[state.list[i].shard_id] = true
  end
  return set
end

return range
