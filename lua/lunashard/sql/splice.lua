--- Parts of a statement's text: the same statement with some items of a list, or some rows of VALUES, left out.
-- Where they stand is read from tokens. Parameters that are no longer named would have no type, so the others are
-- counted anew.
-- @module lunashard.sql.splice

local scan = require("lunashard.sql.scan")

local splice = {}

-- What stands between the brackets of token `open`, at commas: ranges of tokens; nil when something is empty.
local function items(tokens, open, close)
  local list, first, depth = {}, open + 1, 0
  for i = open + 1, close do
    local text = tokens[i].kind == "symbol" and tokens[i].text
    if i == close or text == "," and depth == 0 then
      if first > i - 1 then
        return nil
      end
      list[#list + 1] = { first, i - 1 }
      first = i + 1
    elseif text == "(" or text == "[" then
      depth = depth + 1
    elseif text == ")" or text == "]" then
      depth = depth - 1
    end
  end
  return list
end

-- Tokens first to last with the blanks between, as texts and parameter numbers in turn.
local function segment(sql, tokens, first, last, from, to)
  local parts, pos = {}, from
  for i = first, last do
    local token = tokens[i]
    if token.kind == "param" then
      parts[#parts + 1] = sql:sub(pos, token.first - 1)
      parts[#parts + 1] = token.number
      pos = token.last + 1
    end
  end
  parts[#parts + 1] = sql:sub(pos, to)
  return parts
end

local function pieces(sql, tokens, ranges)
  local made = { items = {}, has_params = false }
  for _, token in ipairs(tokens) do
    made.has_params = made.has_params or token.kind == "param"
  end
  local first, last = ranges[1][1], ranges[#ranges][2]
  made.before = segment(sql, tokens, 1, first - 1, 1, tokens[first].first - 1)
  made.after = segment(sql, tokens, last + 1, #tokens, tokens[last].last + 1, #sql)
  for i, range in ipairs(ranges) do
    made.items[i] = segment(sql, tokens, range[1], range[2], tokens[range[1]].first, tokens[range[2]].last)
  end
  return made
end

local function append(out, state, parts)
  for _, part in ipairs(parts) do
    if type(part) == "number" then
      if not state.number[part] then
        state.n = state.n + 1
        state.number[part] = state.n
        state.params[state.n] = state.given and state.given[part]
      end
      part = "$" .. state.number[part]
    end
    out[#out + 1] = part
  end
end

-- The text with these items alone, and its parameters.
local function assemble(made, indexes, params)
  local out, state = {}, { number = {}, n = 0, params = {}, given = params }
  append(out, state, made.before)
  for i, index in ipairs(indexes) do
    if i > 1 then
      out[#out + 1] = ", "
    end
    append(out, state, made.items[index])
  end
  append(out, state, made.after)
  state.params.n = state.n
  return table.concat(out), made.has_params and state.params or params
end

local function cutter(sql, tokens, ranges)
  local made = pieces(sql, tokens, ranges) -- the tokens take far more than these
  return function(indexes, params)
    return assemble(made, indexes, params)
  end
end

--- A list such as `IN (1, 2)` or `ARRAY[1, 2]`.
-- @string sql
-- @tparam table at `location` (of IN or ARRAY, in bytes from 0), `open` (its bracket), `n` (how many items)
-- @treturn ?function `cut(indexes, params)` gives sql and params; nil when the text is not as expected
function splice.list(sql, at)
  local tokens = scan.tokens(sql)
  local open = (scan.at(tokens, at.location + 1) or #tokens) + 1
  if not tokens[open] or tokens[open].text ~= at.open then
    return nil
  end
  local close = scan.closing(tokens, open)
  local ranges = close and items(tokens, open, close)
  if ranges and #ranges == at.n then
    return cutter(sql, tokens, ranges)
  end
end

-- The number of the outermost VALUES from a token on.
local function find_values(tokens, from)
  local depth = 0
  for i = from, #tokens do
    local token = tokens[i]
    if token.kind == "symbol" and (token.text == "(" or token.text == ")") then
      depth = depth + (token.text == "(" and 1 or -1)
    elseif token.kind == "word" and token.text == "VALUES" and depth == 0 then
      return i
    end
  end
end

--- The rows of an INSERT.
-- @string sql
-- @int location of the table's name, in bytes from 0
-- @int n how many rows there are
-- @treturn ?function as of `list`
function splice.rows(sql, location, n)
  local tokens = scan.tokens(sql)
  local from = scan.at(tokens, location + 1)
  local at = from and find_values(tokens, from)
  local ranges = {}
  while at and tokens[at + 1] and tokens[at + 1].text == "(" do
    local close = scan.closing(tokens, at + 1)
    if not close then
      return nil
    end
    ranges[#ranges + 1] = { at + 1, close }
    at = tokens[close + 1] and tokens[close + 1].text == "," and close + 1 or nil
  end
  if #ranges == n then
    return cutter(sql, tokens, ranges)
  end
end

return splice
