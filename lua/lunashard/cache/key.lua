--- Keys of cached results: one text for everything that decides what a statement answers.
-- @module lunashard.cache.key

local values = require("lunashard.values")

local MAX_VALUES = 65535 -- a statement takes no more parameters, and longer arrays are not worth keeping
local MAX_DEPTH = 6 -- of arrays, on the server; a table that holds itself ends here too

local cache_key = {}

--- The tag of results that were asked for without a routing key.
cache_key.NO_TAG = "-"

-- What `execute` is told besides the parameters, and that changes the answer.
local DECIDING = { "shard_id", "table", "read_only", "decode_json", "all_shards" }

-- Text of a value, tagged by type and unambiguous when joined with others; nil for values whose
-- content cannot be seen. 1 and 1LL are sent to the server as the same text; "1" is not the same,
-- for it may be compared as text.
local function text_of(value, depth)
  local kind = type(value)
  if value == nil or value == values.null then
    return "N;"
  elseif kind == "string" then
    return ("s%d:%s"):format(#value, value)
  elseif kind == "number" then
    return ("n%.17g;"):format(value)
  elseif kind == "boolean" then
    return value and "t;" or "f;"
  elseif kind == "cdata" then
    local digits = tostring(value):match("^(-?%d+)U?LL$")
    return digits and "n" .. digits .. ";"
  elseif kind == "table" and getmetatable(value) == nil then
    return cache_key.list(value, (depth or 0) + 1)
  end
end

--- Text of a list of values.
-- @tparam table list with `n` when it ends in nil
-- @number[opt=0] depth of arrays around it
-- @treturn ?string nil when a value in it has no visible content, or it is too large
function cache_key.list(list, depth)
  local n = type(list.n) == "number" and list.n or 0
  for index in pairs(list) do
    if type(index) == "number" then
      n = math.max(n, index)
    elseif index ~= "n" then
      return nil
    end
  end
  if n > MAX_VALUES or (depth or 0) > MAX_DEPTH then
    return nil
  end
  local texts = {}
  for i = 1, n do
    local text = text_of(list[i], depth)
    if text == nil then
      return nil
    end
    texts[i] = text
  end
  return ("[%d:%s]"):format(n, table.concat(texts))
end

--- The key of a statement with its parameters and options.
-- @string sql
-- @tparam ?table params
-- @tparam table opts of `execute`
-- @treturn ?string nil when a parameter's content cannot be seen: then there is nothing to compare
function cache_key.of(sql, params, opts)
  local list, key = cache_key.list(params or {}), text_of(opts.routing_key)
  if not list or not key then
    return nil
  end
  local parts = { text_of(sql), list, key }
  for i, name in ipairs(DECIDING) do
    parts[3 + i] = text_of(opts[name]) or "?"
  end
  return table.concat(parts)
end

-- Blanks, signs, leading zeros, case and the punctuation of a uuid do not tell keys apart here.
local function plain(text)
  return "k" .. text:lower():gsub("[%s{}+-]", ""):gsub("^0+(%w)", "%1")
end

--- The tag by which results of a routing key are invalidated. Coarser than the key itself: all
-- spellings of one key share it, so that none survives.
-- @param routing_key
-- @treturn string `NO_TAG` for nil
function cache_key.tag(routing_key)
  local kind = type(routing_key)
  if kind == "nil" then
    return cache_key.NO_TAG
  elseif kind == "number" then
    return plain(("%.17g"):format(routing_key))
  elseif kind == "cdata" then
    return plain((tostring(routing_key):gsub("U?LL$", "")))
  elseif kind == "table" then
    -- Columns by position or by name, which is all that is known here.
    local parts = {}
    for _, part in pairs(routing_key) do
      parts[#parts + 1] = type(part) == "table" and "t" or cache_key.tag(part)
    end
    table.sort(parts)
    return table.concat(parts, ",")
  end
  return plain(tostring(routing_key))
end

return cache_key
