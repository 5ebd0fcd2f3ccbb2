--- The declared tables, by the names that statements give them.
-- @module lunashard.sql.tables

local tables = {}

local SYSTEM_SCHEMAS = { pg_catalog = true, information_schema = true, pg_toast = true }

--- A table of the server's own: each server has rows of its own in it.
tables.SYSTEM = { system = true }

local Tables = {}
Tables.__index = Tables

-- A declared name as identifiers: `app.users` is two, `"a.b"` one.
local function identifiers(name)
  local parts, pos = {}, 1
  while pos <= #name do
    local part, after = name:match('^"([^"]*)"()', pos)
    if not part then
      part, after = name:match("^([^.]+)()", pos)
    end
    if not part then
      return { name }
    end
    while name:sub(after, after) == '"' do -- a doubled quote inside quotes
      local rest, stop = name:match('^"([^"]*)"()', after)
      if not rest then
        return { name }
      end
      part, after = part .. '"' .. rest, stop
    end
    parts[#parts + 1] = part
    pos = after + 1
  end
  return parts
end

local function qualified(schema, name)
  return schema .. "\0" .. name
end

local function key_of(name, shard_key, key_type)
  local columns = type(shard_key) == "table" and shard_key or { shard_key }
  local types, index = {}, {}
  for i, column in ipairs(columns) do
    types[i] = type(key_type) == "table" and key_type[i] or key_type or "any"
    index[column] = i
  end
  return { table = name, columns = columns, index = index, types = types, type_id = table.concat(types, ",") }
end

--- Take a declaration.
-- @tparam table declared as in the cluster file: name -> `{ shard_key =, type =, reference = }`; when it is empty,
--   every table has the columns of `shard_key`
-- @tparam[opt] string|table shard_key that of the strategy
-- @tparam[opt] string|table|function key_type that of the strategy, or what gives that of a table by its name
-- @treturn Tables
function tables.new(declared, shard_key, key_type)
  local self = setmetatable({ by_name = {}, by_schema = {}, by_declared = {}, names = {} }, Tables)
  local type_of = type(key_type) == "function" and key_type or function(name)
    return name and declared[name].type or key_type
  end
  for name, one in pairs(declared) do
    local entry = one.reference and { table = name, reference = true } or key_of(name, one.shard_key, type_of(name))
    local parts = identifiers(name)
    self.names[#self.names + 1], self.by_declared[name] = name, entry
    if #parts > 1 then
      self.by_schema[qualified(parts[#parts - 1], parts[#parts])] = entry
    else
      self.by_name[parts[1]] = entry
    end
  end
  if #self.names == 0 and shard_key then
    self.default = key_of(nil, shard_key, type_of())
  end
  self.declares = #self.names > 0
  return self
end

--- What is known of a table.
-- @tparam ?string schema as the statement has it
-- @string name
-- @treturn ?table `SYSTEM`; or `table` (its name in the declaration, nil when none is), and `reference = true` or
--   `columns`, `index` (by column), `types` (a list, `any` where undeclared) and `type_id`; nil when nothing is known
function Tables:find(schema, name)
  if schema and SYSTEM_SCHEMAS[schema] then
    return tables.SYSTEM
  end
  local entry = schema and self.by_schema[qualified(schema, name)] or self.by_name[name]
  if entry then
    return entry
  elseif not schema and name:find("^pg_") then
    return tables.SYSTEM -- pg_catalog is looked through before all other schemas
  end
  return self.default
end

--- The entry of a declared name.
-- @string name
-- @treturn ?table
function Tables:named(name)
  return self.by_declared[name]
end

local known = setmetatable({}, { __mode = "k" }) -- by the manager's strategies, which are new when its options are

--- The tables of a manager.
-- @tparam Manager manager
-- @treturn Tables
function tables.of(manager)
  local strategies = manager.strategies
  local made = known[strategies]
  if not made or made.declared ~= manager.tables then
    made = tables.new(manager.tables, manager.strategy.shard_key, function(name)
      return (name and manager:strategy_for(name) or manager.strategy).key_type
    end)
    made.declared = manager.tables
    known[strategies] = made
  end
  return made
end

return tables
