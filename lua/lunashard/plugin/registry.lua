--- All plug-ins by kind and name, ours and the users' alike.
-- An entry is one version of a plug-in: `contract`, `kind`, `name`, `source` (its path, or `built-in`), `generation`,
-- `trusted`, `failures` (in a row), `state`. A reload puts another entry in its place; whoever holds the old one goes on
-- with it.
-- @module lunashard.plugin.registry

local contract = require("lunashard.plugin.contract")
local errors = require("lunashard.errors")

local registry = {}

--- What an entry of ours has for `source`.
registry.BUILT_IN = "built-in"

-- kind -> where they are, and their names.
local SHIPPED = {
  strategy = { dir = "lunashard.strategies.", names = { "consistent_hash", "directory", "first_of", "geographic",
    "hash", "pins", "range", "rendezvous", "threshold" } },
  aggregate = { dir = "lunashard.aggregates.", names = { "avg", "chain", "concat", "count", "distinct", "group_by", "having",
    "limit", "max", "merge_sort", "min", "percentile", "sum", "top_n" } },
  extractor = { dir = "lunashard.extractors.", names = { "by_column", "by_comment", "by_param", "first_of" } },
  policy = { dir = "lunashard.policies.", names = { "by_load", "by_region", "drain", "even", "follow", "list",
    "minimal", "pace", "pin", "prefer" } },
}

local entries, shipped, staged = {}, {}, {}
for kind, list in pairs(SHIPPED) do
  entries[kind], shipped[kind], staged[kind] = {}, {}, {}
  for _, name in ipairs(list.names) do
    shipped[kind][name] = true
  end
end

local function new_entry(value, fields)
  local entry = {}
  for name, field in pairs(fields or {}) do
    entry[name] = field
  end
  entry.contract, entry.kind, entry.name = value, value.kind, value.name
  entry.generation, entry.failures = entry.generation or 1, 0
  entry.trusted, entry.state = entry.trusted or false, entry.state or "active"
  return entry
end

--- Is it the name of one of ours?
-- @string kind
-- @param name
-- @treturn boolean
function registry.is_shipped(kind, name)
  return shipped[kind][name] == true
end

--- The present version of a plug-in.
-- @string kind `strategy`, `aggregate`, `extractor` or `policy`
-- @param name
-- @treturn ?table entry
function registry.get(kind, name)
  local entry = staged[kind][name] or entries[kind][name]
  if not entry and shipped[kind][name] then
    local value = require(SHIPPED[kind].dir .. name)
    entry = new_entry(value, { source = registry.BUILT_IN, trusted = true })
    entries[kind][name] = entry
  end
  return entry
end

--- Make an entry, which nobody knows of yet.
-- @tparam table value a contract that was checked
-- @tparam[opt] table fields `source`, `generation`, `trusted`, `state`, ...
-- @treturn table entry
function registry.entry(value, fields)
  return new_entry(value, fields)
end

--- Put an entry in the place of the one of its name.
-- @tparam table entry
-- @treturn table entry
function registry.install(entry)
  entries[entry.kind][entry.name] = entry
  return entry
end

--- Make a plug-in known by its name, in place of an earlier one. Raises when it breaks its contract, or has the name of
-- one of ours.
-- @tparam ?string kind that it must be of
-- @tparam table value the contract
-- @tparam[opt] table fields of the entry: `source`, `generation`, `trusted`, ...
-- @treturn table entry
function registry.set(kind, value, fields)
  local ok, message = contract.check(kind, value, fields and fields.source)
  if not ok then
    error(message, 2)
  elseif registry.is_shipped(value.kind, value.name) then
    error(registry.taken(value.kind, value.name), 2)
  end
  return registry.install(new_entry(value, fields))
end

--- What to say of a plug-in with the name of one of ours.
-- @string kind
-- @string name
-- @treturn string
function registry.taken(kind, name)
  return ("%s %q is a shipped one: choose another name"):format(kind, name)
end

--- Forget a user's plug-in.
-- @string kind
-- @string name
function registry.remove(kind, name)
  entries[kind][name] = nil
end

--- Call a function, for which an entry is the present one of its name already. Nothing in it may wait.
-- @tparam table entry
-- @tparam function fn
-- @param ... its arguments
-- @return what `pcall` gives
function registry.staged(entry, fn, ...)
  staged[entry.kind][entry.name] = entry
  local function done(...)
    staged[entry.kind][entry.name] = nil
    return ...
  end
  return done(pcall(fn, ...))
end

--- The names of all plug-ins of a kind, sorted.
-- @string kind
-- @treturn {string,...}
function registry.names(kind)
  local names = {}
  for name in pairs(shipped[kind]) do
    names[#names + 1] = name
  end
  for name in pairs(entries[kind]) do
    if not shipped[kind][name] then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

--- What to say of a name that nobody has.
-- @string kind
-- @param name
-- @treturn string with the nearest name, or all of them
function registry.unknown(kind, name)
  local names = registry.names(kind)
  local near = errors.nearest(name, names)
  return ("unknown %s %q%s"):format(kind, tostring(name), near and ("; did you mean %q?"):format(near)
    or "; there are " .. table.concat(names, ", "))
end

return registry
