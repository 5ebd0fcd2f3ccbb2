--- The functions of `string` as plug-ins see them: bounded in time.
-- Matching a pattern may take Lua's own functions time that grows with a power of the text's
-- length, in which nothing can stop them. Those here take so many steps and then raise `pattern too
-- costly`. Everything else is LuaJIT's own, bounded by the limit on memory. During a plug-in's
-- call they are also what methods of strings are (`text:find(...)`).
-- @module lunashard.plugin.strings

local pattern = require("lunashard.core.pattern")

local NAMES = { "byte", "char", "format", "len", "lower", "rep", "reverse", "sub", "upper" }

local strings = {
  find = pattern.find,
  gmatch = pattern.gmatch,
  gsub = pattern.gsub,
  match = pattern.match,
}

for _, name in ipairs(NAMES) do
  strings[name] = string[name]
end

return strings
