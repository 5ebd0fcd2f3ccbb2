--- Random mutations of a text of Lua, for fuzzing what reads it.
-- @module spec.support.mutate

local mutate = {}

local TOKENS = { "return", "while true do end", "end", "function() ", "nil", "0/0", "-1", "2^53", "1e308", "1LL", "{}", "(", ")",
  '"', "[[", "]]", "--[[", "\0", "\255", "\27LJ", "..", "...", "#", ",", "=", "==", "local x = ", "error()", "error({})",
  "os.exit()", "setmetatable({}, {})", 'require("tier")', "coroutine.yield()", ('("x"):rep(1e9)'), "goto a", "::a::",
  "string.rep(tostring(key), 2^31)", "pcall(error)", "break", "repeat ", "until false", "_G", "key", "state", "shards" }

local function insert(random, text)
  local at = random(0, #text)
  return text:sub(1, at) .. TOKENS[random(#TOKENS)] .. text:sub(at + 1)
end

local function flip(random, text)
  local at = random(1, math.max(1, #text))
  return text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
end

local function range(random, text)
  local from = random(1, math.max(1, #text))
  return from, math.min(#text, from + random(1, 40))
end

local function cut(random, text)
  local from, to = range(random, text)
  return text:sub(1, from - 1) .. text:sub(to + 1)
end

local function double(random, text)
  local from, to = range(random, text)
  return text:sub(1, to) .. text:sub(from)
end

local function truncate(random, text)
  return text:sub(1, random(0, #text))
end

-- A word becomes another one of the text, or a token.
local function swap(random, text)
  local words = {}
  for at, word in text:gmatch("()([%w_]+)") do
    words[#words + 1] = { at = at, word = word }
  end
  if #words == 0 then
    return text
  end
  local chosen = words[random(#words)]
  local other = random(3) == 1 and TOKENS[random(#TOKENS)] or words[random(#words)].word
  return text:sub(1, chosen.at - 1) .. other .. text:sub(chosen.at + #chosen.word)
end

local KINDS = { insert, flip, cut, double, swap, swap, swap, truncate }

--- Change a text in one to four places.
-- @tparam function random as math.random
-- @string text
-- @string other a text to splice with, now and then
-- @treturn string
function mutate.text(random, text, other)
  if random(20) == 1 then
    text = text:sub(1, random(0, #text)) .. other:sub(random(1, math.max(1, #other)))
  end
  for _ = 1, random(4) do
    text = KINDS[random(#KINDS)](random, text)
  end
  return text
end

return mutate
