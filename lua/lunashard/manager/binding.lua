--- Strategies tied to shards, one for each key type that the tables declare.
-- @module lunashard.manager.binding

local errors = require("lunashard.errors")
local sorted = require("lunashard.sorted")
local strategy = require("lunashard.strategy")

local binding = {}

local ANY = "any" -- no type declared: int8 for numbers, text for strings

--- What strategies may know of shards. No address and no secret: placement must not depend on them.
-- @tparam {table,...} members each with `info`
-- @treturn {table,...} a list of `shard_id`, `weight`, `region`, `tags`
function binding.described(members)
  local list = {}
  for i, member in ipairs(members) do
    local info = member.info
    list[i] = { shard_id = info.shard_id, weight = info.weight, region = info.region, tags = info.tags }
  end
  return list
end

local OWN_SOURCES = debug.getinfo(1, "S").source:match("^@(.*)manager/binding%.lua$")

-- Strategies raise for what they cannot work with; here it becomes a message. Places in our own files say nothing to a
-- reader, those in a plug-in do.
local function call(fn, ...)
  local ok, value = pcall(fn, ...)
  if ok then
    return value
  end
  local message = tostring(value)
  if OWN_SOURCES and message:sub(1, #OWN_SOURCES) == OWN_SOURCES then
    message = message:gsub("^[^:]+%.lua:%d+: ", "")
  end
  return nil, message
end

local function to_spec(given)
  if given == nil then
    return nil, 'missing; expected a strategy such as { "hash", shard_key = "user_id" }'
  end
  return call(strategy.spec, given)
end

local function type_of(declared)
  local key_type = declared.type
  return type(key_type) == "table" and table.concat(key_type, ",") or key_type or ANY
end

-- The distinct key types of the declared tables: text form -> what was declared.
local function declared_types(tables)
  local types, n = {}, 0
  for _, declared in pairs(tables) do
    if not declared.reference then
      local name = type_of(declared)
      if not types[name] then
        types[name], n = { key_type = declared.type, shard_key = declared.shard_key }, n + 1
      end
    end
  end
  return types, n
end

--- Bind a strategy to shards.
-- @param given a name, `{ name, option = ... }`, or a strategy
-- @tparam {table,...} members with `info`
-- @tparam table tables as declared
-- @tparam ?table recorded type -> the shards that the catalog has for it, in place of the members
-- @treturn[1] table `default` (bound), `by_type`, `mixed` (tables declare several key types), `spec`
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function binding.bind(given, members, tables, recorded)
  local spec, message = to_spec(given)
  if not spec then
    return nil, message
  end
  local types, n = declared_types(tables)
  local result = { spec = spec, by_type = {}, mixed = n > 1 }
  if n == 0 then
    types[ANY] = {}
  end
  local names = {} -- sorted, for users of a plug-in's state rely on the order
  for name in pairs(types) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local declared = types[name]
    local bound
    bound, message = call(strategy.bind, spec, recorded and recorded[name] or binding.described(members), {
      key_type = declared.key_type,
      shard_key = declared.shard_key,
    })
    if not bound then
      return nil, message
    end
    result.by_type[name] = bound
    if n <= 1 or name == "int8" then
      result.default = bound
    end
  end
  result.default = result.default or result.by_type[next(result.by_type)]
  return result
end

--- The bound strategy for a key of a table.
-- @tparam table strategies from @{bind}
-- @tparam table tables as declared
-- @tparam ?string table_name
-- @param key
-- @treturn[1] table bound strategy
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function binding.choose(strategies, tables, table_name, key)
  if table_name ~= nil then
    local declared = tables[table_name]
    if not declared then
      return nil, errors.new("INVALID", { message = errors.unknown_option("tables", table_name, tables)
        :gsub("^unknown option", "unknown table"):gsub("valid options", "declared tables") })
    elseif declared.reference then
      return nil, errors.new("INVALID", {
        message = ("%s is a reference table: it has no shard key"):format(table_name),
      })
    end
    return strategies.by_type[type_of(declared)]
  end
  -- A number can only be an int8 key; a string may be of any of the declared types.
  if type(key) ~= "string" and type(key) ~= "table" then
    local bound = strategies.by_type.int8 or strategies.by_type[ANY]
    if bound then
      return bound
    end
  end
  local names = sorted.keys(strategies.by_type)
  return nil, errors.new("INVALID", {
    message = "tables declare keys of several types (" .. table.concat(names, ", ")
      .. "): say which table the key is of, with the option table",
  })
end

--- The manager's options with the shards that a strategy brings along, as the guide writes it.
-- @tparam table given
-- @treturn table `given`, or a copy with `shards`
function binding.adopt_shards(given)
  local brought = type(given.strategy) == "table" and strategy.given_shards(given.strategy)
  if given.shards ~= nil or not brought then
    return given
  end
  local copy = {}
  for name, value in pairs(given) do
    copy[name] = value
  end
  copy.shards = brought
  return copy
end

return binding
