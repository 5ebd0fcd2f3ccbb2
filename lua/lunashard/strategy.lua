--- Sharding strategies: which shard a key lives on.
-- `lunashard.strategy.<name>{ options }` describes a strategy; the manager binds it to its
-- shards. Given `shards` among the options it binds itself at once, as in the guide. A strategy is a
-- plug-in: a `bucket` for each key, which never changes, and a `place` for each bucket. Shipped: `hash`,
-- `consistent_hash`, `rendezvous`, `range`, `geographic`, `directory`, and to combine them `first_of`, `pins`,
-- `threshold`; a user's own come from the folder `plugins` of the cluster file, or from @{register}.
--
-- Options of every strategy: `shard_key` (a column, or a list of columns), `key_type` (`int8`,
-- `text`, `uuid`, `date`, or a list for several columns; without it numbers are int8 keys and
-- strings text keys), `shards`.
-- @module lunashard.strategy

local bound_strategy = require("lunashard.strategy.bound")
local errors = require("lunashard.errors")
local registry = require("lunashard.plugin.registry")

local COMMON = { "key_type", "shard_key", "shards" }
local BIND = { key_type = true, shard_key = true }
local KEY_TYPES = { "int8", "text", "uuid", "date" }

local strategy = {}
local Spec = { __name = "lunashard.strategy" }
Spec.__index = Spec

-- The shards that a strategy was given, by spec: they may hold passwords, which printing it must not show.
local brought = setmetatable({}, { __mode = "k" })

-- Everything inside raises without a position; here it is given that of whoever called the public
-- function that calls this.
local function at_caller(fn, ...)
  local ok, result = pcall(fn, ...)
  if not ok then
    error(result, 3)
  end
  return result
end

local function is_spec(value)
  return getmetatable(value) == Spec
end

--- Make a plug-in known by its name, replacing one of the same name. Raises when it breaks the
-- contract or takes a shipped strategy's name.
-- @tparam table contract
function strategy.register(contract)
  at_caller(registry.set, "strategy", contract)
end

-- Members are given beside the named options. Strategies that do not list their options take any.
local function check_options(plugin, options)
  if type(options) ~= "table" then
    error(("strategy %s takes a table of options, not a %s"):format(plugin.name, type(options)), 0)
  elseif not plugin.options then
    return
  end
  local known = {}
  for _, list in ipairs({ COMMON, plugin.options }) do
    for _, name in ipairs(list) do
      known[name] = true
    end
  end
  for name in pairs(options) do
    if not known[name] and not (plugin.has_members and type(name) == "number") then
      error(errors.unknown_option("strategy " .. plugin.name, name, known), 0)
    end
  end
end

-- strategy.new and strategy.bind without a position in their errors; set below.
local new_spec, bind

local function to_spec(given)
  if is_spec(given) then
    return given
  elseif bound_strategy.is(given) then
    return given.spec
  elseif type(given) == "string" then
    given = { given }
  elseif type(given) ~= "table" or given[1] == nil then
    error('a strategy is a name, a table such as { "hash", shard_key = "user_id" }, '
      .. "or lunashard.strategy.<name>{ ... }", 0)
  end
  local entry = registry.get("strategy", given[1])
  local plugin = entry and entry.contract
  local options = {}
  for name, value in pairs(given) do
    if name ~= 1 then
      local is_member = plugin and plugin.has_members and type(name) == "number"
      options[is_member and name - 1 or name] = value
    end
  end
  options.shards = nil
  return new_spec(given[1], options)
end

function new_spec(name, options)
  local entry = registry.get("strategy", name)
  if not entry then
    error(registry.unknown("strategy", name), 0)
  end
  options = options or {}
  check_options(entry.contract, options)
  local own = {}
  for option, value in pairs(options) do
    own[option] = value
  end
  own.shards = nil
  local spec = setmetatable({ name = name, options = own, entry = entry }, Spec)
  brought[spec] = options.shards
  return options.shards == nil and spec or bind(spec, options.shards, {})
end

--- Describe a strategy, or, when the options have `shards`, bind it at once.
-- Raises for an unknown name or option.
-- @string name
-- @tparam[opt] table options
-- @treturn table to be given to a manager or to @{bind}
function strategy.new(name, options)
  local result = at_caller(new_spec, name, options)
  return result
end

--- Take whatever describes a strategy: what @{new} made, a bound strategy, a name, or
-- `{ "hash", shard_key = ... }`. Raises when it does not.
-- @param given
-- @treturn table what @{new} makes without `shards`
function strategy.spec(given)
  local result = at_caller(to_spec, given)
  return result
end

--- The shards that a strategy was given among its options.
-- @local
-- @param given anything that @{spec} takes
-- @treturn ?{table,...}
function strategy.given_shards(given)
  if is_spec(given) or bound_strategy.is(given) then
    return brought[given.spec or given]
  end
  return type(given) == "table" and given.shards or nil
end

-- What a strategy may know of a shard: no address, no secret.
local function described(shards)
  if type(shards) ~= "table" or #shards == 0 then
    error("shards must be a list of at least one shard", 0)
  end
  local list, seen = {}, {}
  for i, shard in ipairs(shards) do
    local id = type(shard) == "table" and shard.shard_id
    if type(id) ~= "string" or id == "" then
      error(("shards[%d]: shard_id must be a text that is not empty"):format(i), 0)
    elseif seen[id] then
      error(("shards[%d]: duplicate shard_id %q"):format(i, id), 0)
    end
    local weight = shard.weight == nil and 1 or shard.weight
    if type(weight) ~= "number" or not (weight > 0 and weight < math.huge) then
      error(("shards[%d] (%s): weight is %s, but must be a number above 0"):format(i, id, tostring(weight)), 0)
    end
    seen[id] = true
    list[i] = { shard_id = id, weight = weight, region = shard.region, tags = shard.tags }
  end
  return list
end

local function same_types(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  return table.concat(a, ",") == table.concat(b, ",")
end

local function types_text(types)
  return type(types) == "table" and table.concat(types, ", ") or tostring(types)
end

local function check_key_type(name)
  for _, known in ipairs(KEY_TYPES) do
    if name == known then
      return
    end
  end
  local near = errors.nearest(name, KEY_TYPES)
  error(("unknown key type %q%s"):format(tostring(name), near and ("; did you mean %q?"):format(near)
    or "; known: " .. table.concat(KEY_TYPES, ", ")), 0)
end

-- The types of the key's columns, from the strategy's options or from the table's declaration.
local function key_types(spec, shard_key, declared)
  local own = spec.options.key_type
  if own ~= nil and declared ~= nil and not same_types(own, declared) then
    error(("strategy %s has key_type %s, but the table declares %s"):format(spec.name, types_text(own),
      types_text(declared)), 0)
  end
  local types = own or declared
  if type(shard_key) == "table" and types ~= nil and (type(types) ~= "table" or #types ~= #shard_key) then
    error(("the shard key (%s) has %d columns: key_type must be a list of as many types"):format(
      table.concat(shard_key, ", "), #shard_key), 0)
  elseif type(shard_key) == "string" and type(types) == "table" and #types ~= 1 then
    error(("the shard key %s is one column, but key_type has %d types"):format(shard_key, #types), 0)
  elseif type(shard_key) == "table" and types == nil then
    error(("the shard key (%s) has several columns: give key_type, such as { \"int8\", \"text\" }"):format(
      table.concat(shard_key, ", ")), 0)
  end
  for _, name in ipairs(type(types) == "table" and types or { types }) do
    check_key_type(name)
  end
  return type(types) == "table" and #types == 1 and types[1] or types
end

local function check_shard_key(shard_key)
  local list = type(shard_key) == "table" and shard_key or { shard_key }
  if type(shard_key) == "table" and #shard_key == 0 then
    error("shard_key must name a column", 0)
  end
  for _, column in ipairs(list) do
    if type(column) ~= "string" or column == "" then
      error("shard_key must be a column's name or a list of them", 0)
    end
  end
  return type(shard_key) == "table" and #shard_key == 1 and shard_key[1] or shard_key
end

-- What a user's plug-in does to what it is given is nothing to us.
local function deep_copy(value, seen)
  if type(value) ~= "table" then
    return value
  elseif not seen[value] then
    local copy = {}
    seen[value] = copy
    for key, item in pairs(value) do
      copy[key] = deep_copy(item, seen)
    end
    setmetatable(copy, debug.getmetatable(value))
  end
  return seen[value]
end

-- A new version of a plug-in may take over from the states of the old one, which stay as they are: tasks may run with
-- them, and they are gone back to when the new one is refused. `entry.old_states` has them in the order of binding.
local function make_state(entry, options, shards)
  local contract = entry.contract
  if entry.source == registry.BUILT_IN then
    return contract.new(options, shards)
  end
  local state = contract.new(deep_copy(options, {}), deep_copy(shards, {}))
  local old = entry.old_states and table.remove(entry.old_states, 1)
  if old and contract.upgrade then
    local upgraded = contract.upgrade(deep_copy(old.state, {}), state)
    return upgraded == nil and state or upgraded
  end
  return state
end

function bind(given, shards, opts)
  for name in pairs(opts) do
    if not BIND[name] then
      error(errors.unknown_option("strategy.bind", name, BIND), 0)
    end
  end
  local spec = to_spec(given)
  -- The present version of the plug-in, which may be another one than when the options were given.
  local entry = registry.get("strategy", spec.name) or spec.entry
  if entry ~= spec.entry then
    check_options(entry.contract, spec.options)
  end
  local options = {}
  for name, value in pairs(spec.options) do
    options[name] = value
  end
  options.shards = nil
  options.shard_key = check_shard_key(spec.options.shard_key or opts.shard_key)
  options.key_type = key_types(spec, options.shard_key, opts.key_type)
  local list = described(shards)
  return bound_strategy.new(spec, entry, make_state(entry, options, list), list, options)
end

--- Bind a strategy to shards.
-- Raises, with one line that names what is wrong, for anything the strategy cannot place with.
-- @param given anything that @{spec} takes
-- @tparam {table,...} shards each with `shard_id`, and `weight` and `region` where they matter
-- @tparam[opt] table opts `key_type` as the table declares it, `shard_key` when the strategy has none
-- @treturn lunashard.strategy.bound
function strategy.bind(given, shards, opts)
  local result = at_caller(bind, given, shards, opts or {})
  return result
end

return setmetatable(strategy, {
  __index = function(_, name)
    if not registry.get("strategy", name) then
      error(registry.unknown("strategy", name), 2)
    end
    return function(options)
      local result = at_caller(new_spec, name, options)
      return result
    end
  end,
})
