--- Extractors: where the shard key of a statement is found, when its caller does not say.
-- `lunashard.extractor.<name>(...)` gives one. Shipped: `by_column` (by PostgreSQL's own parser and the declared tables),
-- `by_comment` (`/* shard_key: 42 */`, `/* shard: s1 */`), `by_param(n)`, and to combine them `first_of { ... }`. A user's
-- is a plug-in with `extract(statement, params, options) -> key`, or nil and the reason in words; `statement` has `sql`,
-- `kind` (`SELECT INSERT UPDATE DELETE MERGE UTILITY`; nil for a text of more than 32 KiB), `tables` (a list of names) and
-- `ast`, PostgreSQL's parse tree. Nothing of it may be changed.
--
-- Whatever an extractor says, a statement whose columns name another key is refused (`KEY_MISMATCH`).
-- @module lunashard.extractor

local assertion = require("lunashard.extraction.assertion")
local errors = require("lunashard.errors")
local options = require("lunashard.options")
local registry = require("lunashard.plugin.registry")

local extractor = {}

local Extractor = {}
Extractor.__index = Extractor
Extractor.__name = "lunashard.extractor"

function Extractor:__tostring()
  return "extractor " .. self.name
end

local function new(name, ...)
  local entry = registry.get("extractor", name)
  if not entry then
    error(registry.unknown("extractor", name), 3)
  end
  local self = {
    name = name, entry = entry, arguments = { n = select("#", ...), ... }, caches = setmetatable({}, { __mode = "k" }),
    cache = nil,
  }
  if entry.contract.new then
    self.options = entry.contract.new(...)
  else
    self.options = (...)
  end
  return setmetatable(self, Extractor)
end

-- The present version of a user's plug-in, made ready when it is another one.
local function present(self)
  local entry = registry.get("extractor", self.name) or self.entry
  if entry ~= self.entry then
    local made = self.arguments[1]
    if entry.contract.new then
      made = entry.contract.new(unpack(self.arguments, 1, self.arguments.n))
    end
    self.entry, self.options = entry, made
  end
  return entry.contract
end

local function call(self, asked, params)
  local ok, key, reason = pcall(function()
    return present(self).extract(asked, params, self.options)
  end)
  if ok then
    return key, reason
  elseif errors.is(key, "CANCELED") then
    error(key, 0)
  end
  return nil, nil, assertion.failure(self.name, key)
end

-- A user's extractor has to be asked each time.
local function ask_each_time(self, statement, manager)
  local against = assertion.by_columns(statement)
  if against and against.kind == "reference" and against.table then
    return against
  end
  local asked = { sql = statement.sql, kind = statement.kind, tables = statement.tables, ast = statement.ast }
  local table_name = assertion.table_of(statement, against)
  local write = assertion.none(statement, self.name, "").write
  return {
    kind = "dynamic", write = write, extractor = self.name, table = table_name, reason = "extractor " .. self.name,
    ask = function(_, params)
      local key, reason, err = call(self, asked, params)
      if err then
        return nil, err
      elseif key == nil then
        return assertion.none(statement, self.name, ("%s: %s"):format(self.name, tostring(reason or "it found no key")))
      end
      return assertion.checked({
        kind = "key", value = key, write = write, extractor = self.name, table = table_name,
        reason = "extractor " .. self.name,
      }, against, manager)
    end,
  }
end

--- Plan a statement; see @{lunashard.extraction.plan}, which keeps plans.
-- @local
-- @tparam table statement
-- @tparam Manager manager
-- @treturn table plan
function Extractor:plan(statement, manager)
  local contract = self.entry.contract
  if contract.plan then
    return contract.plan(self.options, statement, manager)
  end
  return ask_each_time(self, statement, manager)
end

--- Is it an extractor?
-- @param value
-- @treturn boolean
function extractor.is(value)
  return getmetatable(value) == Extractor
end

--- The extractor that a value of the cluster file stands for. Raises when it stands for none.
-- @param given what `lunashard.extractor.<name>(...)` gives, a name, `{ name, argument, ... }`, a list of extractors to be
--   tried in turn, nil for the default (`first_of { by_comment, by_column }`), or false for none
-- @treturn ?Extractor nil for false
function extractor.find(given)
  if given == nil then
    return new("first_of", { "by_comment", "by_column" })
  elseif given == false then
    return nil
  elseif extractor.is(given) then
    return given
  elseif type(given) == "string" then
    return new(given)
  elseif type(given) == "table" and type(given[1]) == "string" then
    return new(unpack(given, 1, table.maxn(given)))
  elseif type(given) == "table" and extractor.is(given[1]) then
    return new("first_of", given)
  end
  error(("extractor: expected a name, { name, ... } or lunashard.extractor.<name>(...), got %s"):format(
    options.describe(given)), 2)
end

--- Check the option `extractor` of a cluster file or manager.
-- @local
-- @param given
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function extractor.check(given)
  local ok, problem = pcall(extractor.find, given)
  if ok then
    return true
  end
  problem = tostring(problem):gsub("^[^:]+%.lua:%d+: ", "")
  return nil, problem:find("^extractor: ") and problem or "extractor: " .. problem
end

--- Names of all extractors, sorted.
-- @treturn {string,...}
function extractor.names()
  return registry.names("extractor")
end

--- Make a plug-in available as `lunashard.extractor.<name>`, replacing an earlier one. Raises when it breaks its contract.
-- @tparam table contract
function extractor.register(contract)
  registry.set("extractor", contract)
end

return setmetatable(extractor, {
  __index = function(_, name)
    if not registry.get("extractor", name) then
      error(registry.unknown("extractor", name), 2)
    end
    return function(...)
      local made = new(name, ...)
      return made
    end
  end,
})
