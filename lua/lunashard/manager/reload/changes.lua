--- What differs between the options of a manager and new ones, told without secrets; and what may not.
-- @module lunashard.manager.reload.changes

local extractor = require("lunashard.extractor")
local options = require("lunashard.options")

local changes = {}

-- The manager was made for these; others take a new start.
local FIXED = { "name", "plugins", "trusted_plugins", "plugin_time",
  "plugin_memory", "max_plugin_failures" }

local HIDDEN = { password = true, sslpassword = true }

--- Are two values the same, tables by what they hold?
-- @param a anything
-- @param b anything
-- @treturn boolean
function changes.same(a, b)
  if a == b or type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for name, value in pairs(a) do
    if not changes.same(value, b[name]) then
      return false
    end
  end
  for name in pairs(b) do
    if a[name] == nil then
      return false
    end
  end
  return true
end

local same = changes.same

--- Refuse what cannot be changed while a manager works.
-- @tparam Manager manager
-- @tparam table cfg from `config.manager`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string why
function changes.check(manager, cfg)
  for _, name in ipairs(FIXED) do
    if not same(manager.options[name], cfg[name]) then
      return nil, ("%s: cannot be changed while the manager works; that takes a new start"):format(name)
    end
  end
  for name, declared in pairs(cfg.tables or {}) do
    local before = manager.tables[name]
    if before and not same(before, declared) then
      return nil, ("tables.%s: the key of a table cannot be changed, for its rows lie where the present one says"):format(
        name)
    end
  end
  return true
end

local List = {}
List.__index = List

--- An empty list of changes.
-- @treturn List
function changes.new()
  return setmetatable({ items = {} }, List)
end

--- Note a change.
-- @string what `option`, `table`, `shard_added`, `shard_removed`, `shard`, `endpoint_added`, `endpoint_removed`,
--   `endpoint`, `primary`
-- @tparam ?string shard_id
-- @tparam ?string endpoint
-- @string message
function List:add(what, shard_id, endpoint, message)
  local where = shard_id and (endpoint and shard_id .. " (" .. endpoint .. ")" or shard_id)
  self.items[#self.items + 1] = {
    what = what,
    shard_id = shard_id,
    endpoint = endpoint,
    message = where and where .. ": " .. message or message,
  }
end

local function describe(value)
  return value == nil and "none" or options.describe(value)
end

--- A change of a value in words; secrets are not shown.
-- @string name
-- @param from
-- @param to
-- @treturn string
function changes.text(name, from, to)
  if HIDDEN[name] or type(from) == "table" or type(to) == "table" then
    return name .. " changed"
  end
  return ("%s: %s -> %s"):format(name, describe(from), describe(to))
end

local NOTED_APART = { shards = true, strategy = true, catalog = true, tables = true }

local function sorted(...)
  local names, seen = {}, {}
  for _, set in ipairs({ ... }) do
    for name in pairs(set) do
      if not seen[name] then
        seen[name], names[#names + 1] = true, name
      end
    end
  end
  table.sort(names)
  return names
end

--- Note the options of the manager itself. A function, or an extractor, cannot be told from the one before, so none is named.
-- @tparam table before
-- @tparam table cfg
function List:note_options(before, cfg)
  for _, name in ipairs(sorted(before, cfg)) do
    local from, to = before[name], cfg[name]
    local untold = type(from) == "function" and type(to) == "function" or extractor.is(from) and extractor.is(to)
    if not NOTED_APART[name] and not untold and not same(from, to) then
      self:add("option", nil, nil, changes.text(name, from, to))
    end
  end
end

--- Note the declared tables.
-- @tparam table before
-- @tparam table after
function List:note_tables(before, after)
  for _, name in ipairs(sorted(before, after)) do
    if not before[name] or not after[name] then
      self:add("table", nil, nil, ("tables.%s %s"):format(name, after[name] and "added" or "removed"))
    end
  end
end

--- All changes, in the order in which they were noted.
-- @treturn {table,...}
function List:list()
  return self.items
end

return changes
