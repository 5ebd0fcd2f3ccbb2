--- Statements without their values: what those have in common that differ in nothing else.
-- @module lunashard.sql.normal

local core = require("lunashard.core.sql")
local scan = require("lunashard.sql.scan")

local normal = {}

local MAX_TEXT = 8192 -- bytes; longer ones are not worth their time
local CACHE_ENTRIES = 2048

-- The parser leaves comments, and constants where it knows of none (EXECUTE, COMMENT, ALTER SYSTEM, ...). A comment may
-- name a key, too.
local function without_values(text)
  local out, last = {}, 0
  for i, token in ipairs((scan.tokens(text))) do
    local piece = text:sub(token.first, token.last)
    if token.kind == "string" or token.kind == "number" or token.kind == "param" then
      piece = "?"
    end
    out[#out + 1] = i > 1 and token.first > last + 1 and " " or ""
    out[#out + 1] = piece
    last = token.last
  end
  return table.concat(out)
end

-- Lists of values are one, however long; and so are lists of such lists.
local function without_lengths(text)
  text = text:gsub("%?%s*,[%s,?]*%?", "?, ...")
  return (text:gsub("(%(%?[%s,.]*%))%s*,[%s,.()?]*%([%s,.?]*%)", "%1, ..."))
end

local WORDS = { SELECT = true, WITH = true, INSERT = true, UPDATE = true, DELETE = true, MERGE = true, COPY = true,
  CREATE = true, ALTER = true, DROP = true, VALUES = true }

local function unknown(sql)
  local word = scan.next(sql, 1)
  return ("%s... (%d bytes, not parsed)"):format(WORDS[word] and word .. " " or "", #sql)
end

local function look(sql)
  if #sql > MAX_TEXT then
    return unknown(sql)
  end
  local text = core.normalize(sql)
  return text and without_lengths(without_values(text)) or unknown(sql)
end

local known, n_known = {}, 0

--- What may be said of a statement to anybody: `?` for parameters and for values that were written into it, one for a
-- list of them, and no comment.
-- @string sql
-- @treturn string the same for statements that differ in values and lengths of lists
function normal.of(sql)
  local found = known[sql]
  if not found then
    found = look(sql)
    if #sql <= MAX_TEXT then
      if n_known >= CACHE_ENTRIES then
        known, n_known = {}, 0
      end
      known[sql], n_known = found, n_known + 1
    end
  end
  return found
end

return normal
