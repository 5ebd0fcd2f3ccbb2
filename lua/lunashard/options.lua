--- Checks of the trailing options table of a call.
-- The set of known names is built once, so that a call costs one table lookup
-- for each option it is given.
-- @module lunashard.options

local errors = require("lunashard.errors")
local raise = require("lunashard.misuse").raise

-- Local functions are constants to the compiler; options are checked at every call.
local next, type = next, type

local options = {}

-- "seconds" is a number above zero; "any" is not looked at; nil is no option.
local function is_of(kind, value)
  if kind == "any" then
    return true
  elseif kind == "seconds" then
    return type(value) == "number" and value > 0
  elseif kind == "count" then
    return type(value) == "number" and value >= 0 and value % 1 == 0
  end
  return type(value) == kind
end

local WORDS = { seconds = "a number of seconds above 0", count = "a whole number, 0 or more" }

--- Merge sets of option names.
-- @tparam {table,...} ... name -> type: a Lua type's name, `seconds`, `count` or `any`
-- @treturn table
function options.known(...)
  local set = {}
  for _, part in ipairs({ ... }) do
    for name, kind in pairs(part) do
      set[name] = kind
    end
  end
  return set
end

--- A value as an error message may show it.
-- @param value anything
-- @treturn string
function options.describe(value)
  if type(value) == "string" then
    return ("%q"):format(#value > 60 and value:sub(1, 57) .. "..." or value)
  elseif type(value) == "number" then
    return ("%.14g"):format(value)
  elseif type(value) == "boolean" or value == nil then
    return tostring(value)
  end
  return "a " .. type(value)
end

--- Is this table a list without gaps, and nothing else? An `n` beside the items must count them.
-- @tparam table list
-- @treturn boolean
function options.is_list(list)
  local n = 0
  for index in pairs(list) do
    if index ~= "n" then
      n = n + 1
    end
  end
  for i = 1, n do
    if rawget(list, i) == nil then
      return false
    end
  end
  return rawget(list, "n") == nil or rawget(list, "n") == n
end

--- Raise, at the place that called our caller, unless every option is known and of its type.
-- @tparam ?table opts
-- @tparam table known from @{known}
-- @string what the function's name, for the message
-- @treturn table opts, or an empty table
function options.check(opts, known, what)
  if opts == nil then
    return {}
  elseif type(opts) ~= "table" then
    raise(("%s: options must be a table, got %s"):format(what, options.describe(opts)), 3)
  end
  -- The first four one by one: a loop in here would keep a caller's own loop from being compiled in one piece.
  local name, value = next(opts)
  if name ~= nil and is_of(known[name], value) then
    name, value = next(opts, name)
    if name ~= nil and is_of(known[name], value) then
      name, value = next(opts, name)
      if name ~= nil and is_of(known[name], value) then
        name, value = next(opts, name)
      end
    end
  end
  while name ~= nil do
    local kind = known[name]
    if kind == nil then
      raise(errors.unknown_option(what, name, known), 3)
    elseif not is_of(kind, value) then
      raise(("%s: option %s: expected %s, got %s"):format(what, name,
        WORDS[kind] or "a " .. kind, options.describe(value)), 3)
    end
    name, value = next(opts, name)
  end
  return opts
end

return options
