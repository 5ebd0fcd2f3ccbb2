--- What a plug-in can see: an environment of its own, made anew for each load.
-- Everything is from a list of what is allowed, nothing can be written but a plug-in's own locals and tables, and what
-- would make a strategy or an extractor answer differently next time (I/O, the clock, randomness, addresses) is not there.
-- That keeps honest mistakes out; it is no wall against an author who means harm, who must not be able to write there.
-- @module lunashard.plugin.environment

local bit = require("bit")
local ffi = require("ffi")

local basics = require("lunashard.plugin.basics")
local core = require("lunashard.core.placement")
local globals = require("lunashard.plugin.globals")
local ordered = require("lunashard.plugin.ordered")
local strings = require("lunashard.plugin.strings")
local warn = require("lunashard.warn")

local environment = {}

local PLAIN = { "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "rawequal", "rawget", "rawset",
  "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall" }
local LIBRARIES = {
  bit = { "arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit", "tohex" },
  coroutine = { "create", "resume", "running", "status", "wrap", "yield" },
  math = { "abs", "acos", "asin", "atan", "atan2", "ceil", "cos", "cosh", "deg", "exp", "floor", "fmod", "frexp", "huge",
    "ldexp", "log", "log10", "max", "min", "modf", "pi", "pow", "rad", "sin", "sinh", "sqrt", "tan", "tanh" },
  string = { "byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse", "sub",
    "upper" },
  table = { "concat", "insert", "maxn", "remove", "sort" },
}

-- What aggregates and policies have besides.
local FREE = {
  math = { "random", "randomseed" },
  os = { "clock", "date", "difftime", "time" },
}

local PURE = { strategy = true, extractor = true }

local WHY = {
  io = "plug-ins do no I/O",
  print = "plug-ins do no I/O",
  os = "it would answer differently next time, or do I/O",
  debug = "plug-ins see nothing of the program's insides",
  ffi = "plug-ins see nothing of the program's insides",
  jit = "plug-ins see nothing of the program's insides",
  package = "require finds files of the plug-in folder",
  load = "plug-ins make no code",
  loadstring = "plug-ins make no code",
  loadfile = "plug-ins make no code; require finds files of the plug-in folder",
  dofile = "plug-ins make no code; require finds files of the plug-in folder",
  getfenv = "plug-ins keep their environment",
  setfenv = "plug-ins keep their environment",
  newproxy = "plug-ins see nothing of the program's insides",
  collectgarbage = "memory is the program's business",
  module = "return a table instead",
  _G = "plug-ins have no globals of their own; use locals",
}
local NO_CHANCE = "a strategy or extractor must give the same answer every time"

-- Tables that can be read and not written, also not by rawset, which plug-ins get as a function that asks here.
local frozen_set = setmetatable({}, { __mode = "k" })

-- A library: looking a function up must not cost a call.
local function frozen(what, content, missing)
  local proxy = setmetatable({}, {
    __index = missing and setmetatable(content, { __index = missing }) or content,
    __newindex = function(_, name)
      error(("%s.%s cannot be written in a plug-in"):format(what, tostring(name)), 2)
    end,
    __metatable = false,
  })
  frozen_set[proxy] = true
  return proxy
end

local function pick(from, names, into)
  for _, name in ipairs(names) do
    into[name] = from[name]
  end
  return into
end

-- Addresses differ from run to run.
local function plain_tostring(value)
  local kind = type(value)
  local meta = kind == "table" and getmetatable(value)
  if kind == "function" or kind == "thread" or kind == "userdata"
    or kind == "table" and not (type(meta) == "table" and meta.__tostring) then
    return kind
  end
  return tostring(value)
end

local function own_rawset(t, name, value)
  if frozen_set[t] then
    error("the libraries and globals of a plug-in cannot be written", 2)
  end
  return rawset(t, name, value)
end

-- That of strings is shared by the whole program.
local function own_getmetatable(value)
  if type(value) == "string" then
    return nil
  end
  return getmetatable(value)
end

local uint64, int64 = ffi.typeof("uint64_t"), ffi.typeof("int64_t")

-- The hash that PostgreSQL partitions by, reduced to 0..n-1: what most strategies are made of.
local function hash(key, n, key_type)
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 or n > 2 ^ 32 then
    error("lunashard.hash(key, n, key_type): n must be a whole number from 1 to 2^32", 2)
  end
  local value, err = core.row_hash(key_type, key)
  if value == nil then
    error("lunashard.hash: " .. err.message, 2)
  end
  return tonumber(ffi.cast(uint64, ffi.cast(int64, value)) % n)
end

local function say(shown)
  return function(...)
    local texts = { ... }
    for i = 1, select("#", ...) do
      texts[i] = tostring(texts[i])
    end
    warn.emit(("%s: %s"):format(shown, (table.concat(texts, " "):gsub("%s*[\r\n]+%s*", " "))))
  end
end

local function no_chance(_, member)
  if member == "random" or member == "randomseed" then
    error(("there is no math.%s in a plug-in of this kind: %s"):format(member, NO_CHANCE), 2)
  end
end

--- Make an environment.
-- @tparam table how `kind` of the plug-in (nil: whatever is allowed to all), `trusted`, `shown` (its path, for what a
--   policy prints), `require` (a function)
-- @treturn table
function environment.new(how)
  local pure = PURE[how.kind] or how.kind == nil
  if environment.is_open(how) then
    return setmetatable({ require = how.require }, { __index = _G })
  end
  local content = pick(_G, PLAIN, { _VERSION = _VERSION })
  content.getmetatable, content.rawset = own_getmetatable, own_rawset
  content.tostring = pure and plain_tostring or tostring
  if pure then
    content.next, content.pairs = ordered.next, ordered.pairs
  end
  content.require = how.require
  content.print = how.kind == "policy" and say(how.shown) or nil
  local libraries = { bit = pick(bit, LIBRARIES.bit, {}), lunashard = { hash = hash } }
  for name, members in pairs(LIBRARIES) do
    libraries[name] = libraries[name] or pick(_G[name], members, {})
  end
  for name, members in pairs(pure and {} or FREE) do
    libraries[name] = pick(_G[name], members, libraries[name] or {})
  end
  if not how.trusted then -- what is limited needs functions that can be stopped
    content.pcall, content.xpcall = basics.pcall, basics.xpcall
    libraries.string = pick(strings, LIBRARIES.string, {})
    for name in pairs({ coroutine = true, table = true }) do
      for member, fn in pairs(basics[name]) do
        libraries[name][member] = fn
      end
    end
  end
  for name, library in pairs(libraries) do
    content[name] = frozen(name, library, name == "math" and pure and no_chance or nil)
  end
  return setmetatable(content, {
    __index = function(_, name)
      error(environment.missing(name), 2)
    end,
    __newindex = function(_, name)
      error(environment.unwritable(name), 2)
    end,
    __metatable = false,
  })
end

--- Is this plug-in one that sees the program's own globals? A trusted policy acts, so whoever trusts it lets it do what
-- the functions of the cluster file may do.
-- @tparam table how as for @{new}
-- @treturn boolean
function environment.is_open(how)
  return how.trusted and how.kind == "policy"
end

--- What to say of a global that is not there.
-- @param name
-- @treturn string
function environment.missing(name)
  local why = WHY[name]
  return ("there is no global %s in a plug-in%s"):format(tostring(name), why and ": " .. why or "")
end

--- What to say of a global that is written.
-- @param name
-- @treturn string
function environment.unwritable(name)
  return ("the global %s cannot be written in a plug-in: make it local"):format(tostring(name))
end

--- Look for globals that code names and that are not there, or are written, before any of it has run.
-- @tparam function chunk compiled code
-- @tparam table env from @{new}
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong, with the line in front (`7: ...`)
function environment.check(chunk, env)
  for _, found in ipairs(globals.of(chunk)) do
    if found.writes then
      return nil, ("%d: %s"):format(found.line, environment.unwritable(found.name))
    elseif rawget(env, found.name) == nil then
      return nil, ("%d: %s"):format(found.line, environment.missing(found.name))
    end
  end
  return true
end

return environment
