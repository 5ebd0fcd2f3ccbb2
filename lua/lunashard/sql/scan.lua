--- The words of an SQL text and where they stand.
-- A scanner, not a parser: comments, literals, quoted names and dollar quotes are read as PostgreSQL reads them
-- (standard_conforming_strings on), so that no word inside them is ever taken for a keyword.
-- Positions count bytes from 1; the parse tree's `location` counts them from 0.
-- @module lunashard.sql.scan

local find, sub, byte, upper = string.find, string.sub, string.byte, string.upper

local scan = {}

local function after_comment(sql, pos)
  local depth = 1
  pos = pos + 2
  while depth > 0 do
    local at, _, mark = find(sql, "([/*][*/])", pos)
    if not at then
      return #sql + 1
    elseif mark == "/*" then
      depth, pos = depth + 1, at + 2
    elseif mark == "*/" then
      depth, pos = depth - 1, at + 2
    else
      pos = at + 1 -- "**" or "//": its second character may begin a mark
    end
  end
  return pos
end

--- The position after a quoted part.
-- @string sql
-- @int pos after the opening quote
-- @string quote `'` or `"`
-- @tparam[opt] boolean escapes a backslash escapes, as in `E'...'`
-- @treturn int one beyond the text when it is never closed
function scan.after_quoted(sql, pos, quote, escapes)
  local stop = escapes and "[\\" .. quote .. "]" or quote
  while true do
    local at = find(sql, stop, pos)
    if not at then
      return #sql + 1
    elseif byte(sql, at) == 92 then
      pos = at + 2
    elseif sub(sql, at + 1, at + 1) == quote then
      pos = at + 2
    else
      return at + 1
    end
  end
end

-- The first position at or after `pos` that is neither blank nor in a comment; nil at the end. Comments are
-- told to `note(first, last)`.
local function skip_blank(sql, pos, note)
  while true do
    pos = find(sql, "%S", pos)
    if not pos then
      return nil
    end
    local two = sub(sql, pos, pos + 1)
    local after
    if two == "--" then
      after = find(sql, "[\r\n]", pos) or #sql + 1
    elseif two == "/*" then
      after = after_comment(sql, pos)
    else
      return pos
    end
    if note then
      note(pos, after - 1)
    end
    pos = after
  end
end

-- Kind of the token that begins at `pos`, and the position after it.
local function token_at(sql, pos)
  local c = sub(sql, pos, pos)
  local _, last = find(sql, "^[%a_\128-\255][%w_$\128-\255]*", pos)
  if last then
    if last == pos and (c == "e" or c == "E") and sub(sql, pos + 1, pos + 1) == "'" then
      return "string", scan.after_quoted(sql, pos + 2, "'", true)
    end
    return "word", last + 1
  elseif c == "'" then
    return "string", scan.after_quoted(sql, pos + 1, c, false)
  elseif c == '"' then
    return "name", scan.after_quoted(sql, pos + 1, c, false)
  elseif c == "$" then
    local _, digits_end = find(sql, "^%$%d+", pos)
    if digits_end then
      return "param", digits_end + 1
    end
    local _, tag_end = find(sql, "^%$[%a_\128-\255]?[%w_\128-\255]*%$", pos)
    if tag_end then
      local _, close = find(sql, sub(sql, pos, tag_end), tag_end + 1, true)
      return "string", (close or #sql) + 1
    end
  elseif find(c, "%d") or find(sql, "^%.%d", pos) then
    local _, number_end = find(sql, "^%d*%.?%d*", pos)
    local _, exponent_end = find(sql, "^[eE][+-]?%d+", number_end + 1)
    return "number", (exponent_end or number_end) + 1
  end
  return "symbol", pos + 1
end

--- The next word or character.
-- @string sql
-- @int pos
-- @treturn[1] string a word in upper case, one character, or `?` for a literal or quoted name
-- @treturn[1] int the position after it
-- @treturn[1] int its first position
-- @treturn[2] nil at the end
-- @treturn[2] int
function scan.next(sql, pos)
  pos = skip_blank(sql, pos)
  if not pos then
    return nil, #sql + 1
  end
  local kind, after = token_at(sql, pos)
  if kind == "string" or kind == "name" then
    return "?", after, pos
  end
  local text = sub(sql, pos, after - 1)
  return kind == "word" and upper(text) or text, after, pos
end

-- What a quoted name says, as far as no escape of U&"..." is in it.
local function unquoted(sql, first, last)
  return (sub(sql, first + 1, last - 1):gsub('""', '"'))
end

--- All of a text.
-- @string sql
-- @treturn {table,...} tokens `{ kind =, text =, first =, last = }`; `kind` is `word` (text in upper case, `name`
--   as PostgreSQL folds it), `name` (a quoted one, what it says in `name`), `string`, `number`, `param` (with
--   `number`), or `symbol` (one character)
-- @treturn {table,...} comments `{ text =, first =, last = }`, with their marks
function scan.tokens(sql)
  local tokens, comments, pos = {}, {}, 1
  local function note(first, last)
    comments[#comments + 1] = { text = sub(sql, first, last), first = first, last = last }
  end
  while true do
    pos = skip_blank(sql, pos, note)
    if not pos then
      return tokens, comments
    end
    local kind, after = token_at(sql, pos)
    local token = { kind = kind, text = sub(sql, pos, after - 1), first = pos, last = after - 1 }
    if kind == "word" then
      token.name = token.text:gsub("%u", string.lower)
      token.text = upper(token.text)
    elseif kind == "name" then
      token.name = unquoted(sql, pos, after - 1)
    elseif kind == "param" then
      token.number = tonumber(sub(sql, pos + 1, after - 1))
    end
    tokens[#tokens + 1] = token
    pos = after
  end
end

-- The position after the literal, quoted name or comment that begins at `pos`, and whether it is a comment; nil when none
-- does.
local function after_part(sql, pos)
  local c = sub(sql, pos, pos)
  local two = sub(sql, pos, pos + 1)
  if two == "--" then
    return find(sql, "[\r\n]", pos) or #sql + 1, true
  elseif two == "/*" then
    return after_comment(sql, pos), true
  elseif c == "'" then
    local escapes = find(sql, "^[eE]", pos - 1) and not find(sql, "^[%w_$\128-\255]", pos - 2)
    return scan.after_quoted(sql, pos + 1, c, escapes)
  elseif c == '"' then
    return scan.after_quoted(sql, pos + 1, c, false)
  elseif c == "$" and not find(sql, "^[%w_$\128-\255]", pos - 1) and not find(sql, "^%d", pos + 1) then
    local _, tag_end = find(sql, "^%$[%a_\128-\255]?[%w_\128-\255]*%$", pos)
    if tag_end then
      local _, close = find(sql, sub(sql, pos, tag_end), tag_end + 1, true)
      return (close or #sql) + 1
    end
  end
end

--- The comments of a text alone, for those who want nothing else of a long one.
-- @string sql one that PostgreSQL can read
-- @treturn {table,...} as @{tokens} gives them
function scan.comments(sql)
  local comments, pos = {}, find(sql, "['\"$/%-]")
  while pos do
    local after, is_comment = after_part(sql, pos)
    if is_comment then
      comments[#comments + 1] = { text = sub(sql, pos, after - 1), first = pos, last = after - 1 }
    end
    pos = find(sql, "['\"$/%-]", after or pos + 1)
  end
  return comments
end

--- The number of the token that begins at, or holds, a byte.
-- @tparam {table,...} tokens from @{tokens}
-- @int first from 1
-- @treturn ?int nil between tokens
function scan.at(tokens, first)
  local low, high = 1, #tokens
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local token = tokens[middle]
    if first < token.first then
      high = middle - 1
    elseif first > token.last then
      low = middle + 1
    else
      return middle
    end
  end
end

local CLOSING = { ["("] = ")", ["["] = "]" }

--- The number of the token that closes a bracket.
-- @tparam {table,...} tokens
-- @int i of a `(` or `[`
-- @treturn ?int nil when it is never closed
function scan.closing(tokens, i)
  local open, close, depth = tokens[i].text, CLOSING[tokens[i].text], 0
  for at = i, #tokens do
    local token = tokens[at]
    if token.kind == "symbol" then
      if token.text == open then
        depth = depth + 1
      elseif token.text == close then
        depth = depth - 1
        if depth == 0 then
          return at
        end
      end
    end
  end
end

return scan
