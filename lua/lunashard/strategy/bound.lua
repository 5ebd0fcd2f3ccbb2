--- A strategy bound to shards: what routers, scripts and tools ask where keys live.
-- Made by `strategy.bind`. Shipped strategies that have a bucket map route in one C call; others
-- through their plug-in's functions, whose mistakes become `PLUGIN_FAILED`.
-- @classmod lunashard.strategy.bound

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local ffi = require("ffi")
local movement = require("lunashard.strategy.movement")
local options_of = require("lunashard.options")
local registry = require("lunashard.plugin.registry")
local find_route = require("lunashard.strategy.route").find
local recent = require("lunashard.plugin.recent")

local int64, istype, tonumber, type = ffi.typeof("int64_t"), ffi.istype, tonumber, type

local MAX_BUCKET_NAME = 255

local bound_strategy = {}
local Bound = { __name = "lunashard.strategy.bound" }
Bound.__index = Bound

function Bound.__tostring(self)
  return ("strategy %s over %d shards"):format(self.name, #self.shards)
end

local function traceback(err)
  return errors.is(err) and err or { message = tostring(err), traceback = debug.traceback("", 2) }
end

-- Call a function of a plug-in that is not shipped. A cancelled task's error must go through.
local function guarded(self, fn_name, ...)
  local ok, value, err = xpcall(self.plugin[fn_name], traceback, ...)
  if ok then
    return value, err
  elseif errors.is(value, "CANCELED") then
    error(value, 0)
  elseif errors.is(value, "PLUGIN_FAILED") then -- of a limited function: it says all of this
    return nil, value
  end
  return nil, errors.new("PLUGIN_FAILED", {
    message = ("strategy %s: %s: %s"):format(self.name, fn_name, value.message),
    cause = value,
    traceback = value.traceback,
  })
end

local function no_answer(self, err, what)
  if errors.is(err) then
    return nil, err
  end
  return nil, errors.new("NO_SHARD", {
    message = err ~= nil and tostring(err) or ("strategy %s has no %s for this key"):format(self.name, what),
    unexplained = err == nil, -- a plug-in that just falls off its end may do so by mistake
  })
end

local function is_bucket(value)
  return type(value) == "string" and #value <= MAX_BUCKET_NAME
    or type(value) == "number" and value % 1 == 0
end

-- What `key % 1000` gives for a key beyond 2^53 is an int64.
local function plain_number(value)
  if istype(int64, value) and tonumber(value) == value then
    return tonumber(value)
  end
  return value
end

local function custom_bucket(self, key)
  local canonical, err = core.canonical(self.key_type, key)
  if canonical == nil then
    return nil, err
  end
  local bucket
  bucket, err = guarded(self, "bucket", self.state, canonical)
  if bucket == nil then
    return no_answer(self, err, "bucket")
  elseif type(bucket) == "cdata" then
    bucket = plain_number(bucket)
  end
  if not is_bucket(bucket) then
    return nil, errors.new("PLUGIN_FAILED", {
      message = ("strategy %s: a bucket must be an integer or a short text, not %s"):format(self.name,
        options_of.describe(bucket)),
    })
  end
  return bucket
end

local function check_answer(self, shard_id, err)
  if shard_id == nil then
    return no_answer(self, err, "shard")
  elseif not self.has_shard[shard_id] then
    return nil, errors.new("PLUGIN_FAILED", {
      message = ("strategy %s placed a key on %s, which is no shard"):format(self.name, options_of.describe(shard_id)),
    })
  end
  return shard_id
end

local function custom_place(self, bucket)
  return check_answer(self, guarded(self, "place", self.state, bucket, self.lent_shards))
end

-- A strategy that only routes has its shards as buckets.
local function custom_route(self, key)
  local canonical, err = core.canonical(self.key_type, key)
  if canonical == nil then
    return nil, err
  end
  local shard_id
  shard_id, err = check_answer(self, guarded(self, "route", self.state, canonical))
  return shard_id, err or shard_id
end

-- A key of several columns may be given by their names.
local function by_position(self, key)
  local columns = self.shard_key
  if type(key) ~= "table" or key[1] ~= nil then
    return key
  end
  local list, seen = {}, 0
  for i, column in ipairs(columns) do
    list[i] = key[column]
    seen = seen + (key[column] ~= nil and 1 or 0)
    if key[column] == nil then
      return nil, errors.new("NULL_KEY", { message = ("column %s of the shard key is NULL"):format(column) })
    end
  end
  for name in pairs(key) do
    local near = not self.is_column[name] and errors.nearest(name, columns)
    if not self.is_column[name] then
      return nil, errors.new("INVALID", {
        message = ("%q is no column of the shard key (%s)%s"):format(tostring(name), table.concat(columns, ", "),
          near and ("; did you mean %q?"):format(near) or ""),
      })
    end
  end
  return list
end

--- A key of several columns by position, however it is given; any other key as it is.
-- @local
-- @param key
-- @return[1] key
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY` or `INVALID`
function Bound:positional(key)
  if self.is_column and key ~= nil then
    return by_position(self, key)
  end
  return key
end

--- The bucket of a key: an integer or short text that never changes for the key.
-- Yields when a directory has to be asked.
-- @param key
-- @treturn[1] number|string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID`, `NO_SHARD`, `PLUGIN_FAILED`
function Bound:bucket(key)
  if self.is_column and key ~= nil then
    local err
    key, err = by_position(self, key)
    if key == nil then
      return nil, err
    end
  end
  if self.plugin.bucket == nil then
    local shard_id, err = custom_route(self, key)
    return shard_id, shard_id == nil and err or nil
  elseif self.shipped then
    return self.plugin.bucket(self.state, key)
  end
  return custom_bucket(self, key)
end

-- Where the catalog says that a bucket is; false where the strategy says.
local function adopted(self, bucket)
  local shard_id = self.owners[bucket]
  if shard_id ~= nil then
    return shard_id
  elseif self.is_open then
    return false
  end
  return nil, errors.new("INVALID", {
    message = ("strategy %s: the catalog's map has no bucket %s"):format(self.name, tostring(bucket)),
  })
end

--- The shard of a bucket.
-- Yields when a directory has to be asked.
-- @tparam number|string bucket
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `NO_SHARD`, `PLUGIN_FAILED`
function Bound:place(bucket)
  if self.owners then
    local shard_id, err = adopted(self, bucket)
    if shard_id ~= false then
      return shard_id, err
    end
  end
  if self.plugin.place == nil then
    return check_answer(self, bucket)
  elseif self.shipped then
    return self.plugin.place(self.state, bucket, self.shards)
  end
  return custom_place(self, bucket)
end

-- What a strategy that routes by itself has answered, unless the catalog knows better.
local function routed(self, shard_id, bucket)
  if shard_id == nil or not self.owners then
    return shard_id, bucket
  end
  local owner, err = adopted(self, bucket)
  if owner == nil then
    return nil, err
  end
  return owner or shard_id, bucket
end

--- Where a key lives.
-- Yields when a directory has to be asked.
-- @param key a number, int64, string; for several columns a table of these, by position or name
-- @treturn[1] string shard_id
-- @treturn[1] number|string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID`, `NO_SHARD`, `PLUGIN_FAILED`
function Bound:route(key)
  if self.is_column and key ~= nil then
    local err
    key, err = by_position(self, key)
    if key == nil then
      return nil, err
    end
  end
  if self.map then
    return find_route(self.map, self.shard_ids, key)
  elseif self.shipped and self.plugin.route and not self.owners then
    return self.plugin.route(self.state, key)
  end
  local shard_id, bucket, err
  if self.shipped and self.plugin.route then
    shard_id, bucket = routed(self, self.plugin.route(self.state, key))
  elseif self.plugin.bucket == nil then
    shard_id, bucket = routed(self, custom_route(self, key))
  else
    bucket, err = self:bucket(key)
    if bucket == nil then
      return nil, err
    end
    shard_id, err = self:place(bucket)
  end
  if shard_id == nil then
    return nil, err or bucket
  elseif self.recent then
    self.recent:note(key)
  end
  return shard_id, bucket
end

-- The item's number in front of the message, and in `index`, as the C maps do it.
local function item_error(err, index)
  local fields = {}
  for name, value in pairs(err) do
    fields[name] = value
  end
  fields.message, fields.index = ("key %d: %s"):format(index, err.message), index
  return errors.new(err.code, fields)
end

local function positional_list(self, keys)
  if not self.is_column then
    return keys
  end
  local list = {}
  for i = 1, #keys do
    local key, err = by_position(self, keys[i])
    if key == nil then
      return nil, item_error(err, i)
    end
    list[i] = key
  end
  return list
end

--- Where many keys live.
-- Yields when a directory has to be asked.
-- @tparam table keys a list; a NULL in it is `lunashard.null`
-- @treturn[1] {string,...} the shard_id of each key
-- @treturn[2] nil
-- @treturn[2] lunashard.error of the first key without an answer, its position in `index`
function Bound:route_many(keys)
  if type(keys) ~= "table" then
    error("route_many: keys must be a list, not a " .. type(keys), 2)
  end
  local shard_ids = {}
  for i = 1, #keys do
    local shard_id, err = self:route(keys[i])
    if shard_id == nil then
      return nil, item_error(err, i)
    end
    shard_ids[i] = shard_id
  end
  return shard_ids
end

--- How many of the given keys live on each shard.
-- Yields when a directory has to be asked.
-- @tparam table keys a list
-- @treturn[1] table shard_id -> count, with every shard, zeros included
-- @treturn[2] nil
-- @treturn[2] lunashard.error of the first key without an answer, its position in `index`
function Bound:get_distribution(keys)
  if type(keys) ~= "table" then
    error("get_distribution: keys must be a list, not a " .. type(keys), 2)
  end
  if self.map then
    local list, err = positional_list(self, keys)
    if not list then
      return nil, err
    end
    return self.map:count(list)
  end
  local shard_ids, err = self:route_many(keys)
  if not shard_ids then
    return nil, err
  end
  local counts = {}
  for _, shard in ipairs(self.shards) do
    counts[shard.shard_id] = 0
  end
  for _, shard_id in ipairs(shard_ids) do
    counts[shard_id] = counts[shard_id] + 1
  end
  return counts
end

--- The shards that may hold keys from `low` to `high`: fewer than all only for `range`.
-- @param low inclusive; nil is open
-- @param high inclusive; nil is open
-- @treturn[1] {string,...} shard_ids in configured order
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function Bound:shards_for_range(low, high)
  local wanted
  if self:has_ranges() then
    local err
    wanted, err = self.plugin.shards_for_range(self.state, low, high)
    if wanted == nil then
      return nil, err
    end
  end
  local list = {}
  for _, shard in ipairs(self.shards) do
    if wanted == nil or wanted[shard.shard_id] then
      list[#list + 1] = shard.shard_id
    end
  end
  return list
end

--- Does `shards_for_range` ever name fewer than all shards?
-- @local
-- @treturn boolean
function Bound:has_ranges()
  return self.shipped and self.plugin.shards_for_range ~= nil
end

--- What would move if the shards, or the strategy, were others.
-- Exact over all buckets when both have the same ones (`consistent_hash`, `rendezvous`); else over
-- the given keys, or for hashing strategies over a sample.
-- @param other a list of shards for the same strategy, or a bound strategy
-- @tparam[opt] table keys a list of keys to compare by
-- @treturn[1] table `moved`, `total`, `fraction`, `by` ("shard1->shard4" -> count), `unit` (`buckets`, `keys`)
-- @treturn[2] nil
-- @treturn[2] lunashard.error of a key without an answer
function Bound:movement(other, keys)
  if not bound_strategy.is(other) then
    local strategy = require("lunashard.strategy")
    local ok, bound = pcall(strategy.bind, self.spec, other, { key_type = self.key_type })
    if not ok then
      error(bound, 2)
    end
    other = bound
  end
  if keys == nil and not (self.map and other.map) then
    error(("movement: strategy %s needs a list of keys to compare by"):format(
      self.map and other.name or self.name), 2)
  end
  return movement.compare(self, other, keys)
end

--- Give the strategy a way to query shards, for directories that live in a table.
-- @local
-- @tparam function execute `execute(shard_id, sql, params)` -> result | nil, err; may yield
function Bound:attach(execute)
  if self.shipped and self.plugin.attach then
    self.plugin.attach(self.state, execute)
  end
end

--- Forget what a directory's cache says.
-- @param[opt] key all keys when absent
function Bound:invalidate(key)
  if self.shipped and self.plugin.invalidate then
    self.plugin.invalidate(self.state, key)
  end
end

--- Is this a bound strategy?
-- @param value
-- @treturn bool
function bound_strategy.is(value)
  return getmetatable(value) == Bound
end

--- For `strategy.bind` alone.
-- @tparam table spec
-- @tparam table entry the version of the plug-in, from the registry
-- @tparam table state what the plug-in's `new` returned
-- @tparam {table,...} shards
-- @tparam table options `shard_key`, `key_type`
-- @treturn lunashard.strategy.bound
function bound_strategy.new(spec, entry, state, shards, options)
  local shipped = entry.source == registry.BUILT_IN
  local self = {
    name = spec.name,
    shard_key = options.shard_key,
    key_type = options.key_type,
    shards = shards,
    lent_shards = {}, -- for a user's plug-in, which may do to it what it likes
    spec = spec,
    entry = entry,
    plugin = entry.contract,
    shipped = shipped,
    state = state,
    map = shipped and state.map or nil,
    recent = not shipped and recent.new() or nil,
    has_shard = {},
    shard_ids = {},
    is_column = false, -- a set of the columns, when there are several
  }
  for i, shard in ipairs(shards) do
    self.shard_ids[i] = shard.shard_id
    self.lent_shards[i] = { shard_id = shard.shard_id, weight = shard.weight, region = shard.region, tags = shard.tags }
    self.has_shard[shard.shard_id] = true
  end
  if type(options.shard_key) == "table" then
    self.is_column = {}
    for _, column in ipairs(options.shard_key) do
      self.is_column[column] = true
    end
  end
  return setmetatable(self, Bound)
end

return bound_strategy
