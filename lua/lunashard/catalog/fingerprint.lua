--- What makes two routers find the same bucket for a key: the strategy, its key's types, and the text of a plug-in.
-- Options that only say where a bucket lives are not in it; nor are the names of listed buckets, which are compared one
-- by one.
-- @module lunashard.catalog.fingerprint
-- @local

local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

local fingerprint = {}

-- Of a strategy made of others, what decides whose a key is.
local DECIDING = { threshold = { "below" } }

--- The types of a key as one text.
-- @tparam ?string|{string,...} key_type
-- @treturn string
function fingerprint.key_type(key_type)
  return type(key_type) == "table" and table.concat(key_type, ",") or key_type or "any"
end

local function scalar(value)
  return ("%s:%s"):format(type(value), type(value) == "number" and ("%.17g"):format(value) or tostring(value))
end

local text_of

-- The code of a function and what it has taken along; of those in C only that they are.
local function function_text(fn, seen)
  if debug.getinfo(fn, "S").what == "C" then
    return "C"
  end
  local parts, i = { system.sha256(string.dump(fn, true)) }, 1
  local name, value = debug.getupvalue(fn, 1)
  while name do
    parts[#parts + 1] = text_of(value, seen)
    i = i + 1
    name, value = debug.getupvalue(fn, i)
  end
  return table.concat(parts, "+")
end

local function table_text(value, seen)
  local items = {}
  for name, item in pairs(value) do
    if type(name) == "table" or type(name) == "function" then
      error("cannot be compared between routers: its tables must have texts and numbers as keys", 0)
    end
    items[#items + 1] = ("%q=%s"):format(scalar(name), text_of(item, seen))
  end
  table.sort(items)
  return "{" .. table.concat(items, ",") .. "}"
end

local WRITE = { ["function"] = function_text, table = table_text }

-- A text for a value that is the same in every process.
function text_of(value, seen)
  local kind = type(value)
  if kind == "userdata" or kind == "thread" then
    error("cannot be compared between routers: use texts, numbers and tables", 0)
  elseif not WRITE[kind] then
    return scalar(value)
  elseif seen[value] then
    return kind
  end
  seen[value] = true
  return WRITE[kind](value, seen)
end

local function of_plugin(bound)
  local options = {}
  for name, value in pairs(bound.spec.options) do
    if name ~= "shard_key" and name ~= "key_type" then
      options[name] = value
    end
  end
  return (bound.entry.sha256 or text_of(bound.plugin, {})) .. text_of(options, {})
end

local function describe(bound, parts)
  parts[#parts + 1] = bound.name .. "(" .. fingerprint.key_type(bound.key_type)
  if not bound.shipped then
    parts[#parts + 1] = of_plugin(bound)
  end
  for _, name in ipairs(bound.shipped and DECIDING[bound.name] or {}) do
    parts[#parts + 1] = scalar(bound.spec.options[name])
  end
  for _, member in ipairs(bound.shipped and bound.state.members or {}) do
    describe(member, parts)
  end
  parts[#parts + 1] = ")"
end

--- The fingerprint of a bound strategy.
-- @tparam lunashard.strategy.bound bound
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: it has options that no other router could be compared by
function fingerprint.of(bound)
  local parts = {}
  local ok, problem = pcall(describe, bound, parts)
  if not ok then
    return nil, errors.new("INVALID", { message = ("strategy %s: %s"):format(bound.name, tostring(problem)) })
  end
  return system.sha256(table.concat(parts, "\n"))
end

return fingerprint
