--- Where the clauses of a statement stand in its text.
-- The parse tree says where things begin, not where they end: that is read from the words between.
-- @module lunashard.merging.clauses

local scan = require("lunashard.sql.scan")

local clauses = {}

local BEGIN = {
  SELECT = true, FROM = true, WHERE = true, GROUP = true, HAVING = true, WINDOW = true, ORDER = true, LIMIT = true,
  OFFSET = true, FETCH = true, FOR = true, UNION = true, INTERSECT = true, EXCEPT = true, INTO = true, VALUES = true,
}

-- Words that begin no clause behind certain others: IS DISTINCT FROM, WITHIN GROUP.
local NOT_AFTER = { FROM = "DISTINCT", GROUP = "WITHIN" }

local function is_symbol(token, text)
  return token ~= nil and token.kind == "symbol" and token.text == text
end

local function is_word(token, text)
  return token ~= nil and token.kind == "word" and token.text == text
end

local function begins_clause(tokens, i)
  local token, before = tokens[i], tokens[i - 1]
  if token.kind ~= "word" or not BEGIN[token.text] or is_symbol(before, ".") or is_word(before, "AS") then
    return false
  end
  return not (NOT_AFTER[token.text] and is_word(before, NOT_AFTER[token.text]))
end

-- Ranges of tokens between the commas of the outermost level.
local function split(tokens, first, last)
  local parts, start, i = {}, first, first
  while i <= last do
    local token = tokens[i]
    if is_symbol(token, "(") or is_symbol(token, "[") then
      i = scan.closing(tokens, i) or last
    elseif is_symbol(token, ",") then
      parts[#parts + 1] = { first = start, last = i - 1 }
      start = i + 1
    end
    i = i + 1
  end
  if start <= last then
    parts[#parts + 1] = { first = start, last = last }
  end
  return parts
end

-- Without the words at its end, each one of a list of choices.
local function drop_tail(tokens, part, ...)
  local words = { ... }
  local first = part.last - #words + 1
  if first <= part.first or is_symbol(tokens[first - 1], ".") then
    return
  end
  for k, choices in ipairs(words) do
    local token = tokens[first - 1 + k]
    if token.kind ~= "word" or not choices[token.text] then
      return
    end
  end
  part.last = first - 1
end

local NULLS, FIRST_LAST, DIRECTION = { NULLS = true }, { FIRST = true, LAST = true }, { ASC = true, DESC = true }

-- The range of SELECT's list, behind ALL or DISTINCT.
local function read_targets(found, tokens, clause)
  local first = clause.first + 1
  if is_word(tokens[first], "ALL") then
    first = first + 1
  elseif is_word(tokens[first], "DISTINCT") then
    found.distinct = { first = first, last = first }
    first = first + 1
    if is_word(tokens[first], "ON") and is_symbol(tokens[first + 1], "(") then
      local close = scan.closing(tokens, first + 1)
      found.distinct.on = split(tokens, first + 2, close - 1)
      found.distinct.last = close
      first = close + 1
    end
  end
  return first <= clause.last and split(tokens, first, clause.last) or {}
end

local function read_order(tokens, clause)
  local parts = split(tokens, clause.first + 2, clause.last)
  for _, part in ipairs(parts) do
    drop_tail(tokens, part, NULLS, FIRST_LAST)
    drop_tail(tokens, part, DIRECTION)
  end
  return parts
end

local function read_group(found, tokens, clause)
  local first = clause.first + 2
  if is_word(tokens[first], "ALL") or is_word(tokens[first], "DISTINCT") then
    found.group_quantifier = true
    first = first + 1
  end
  return split(tokens, first, clause.last)
end

-- The tokens of the statement, without semicolons around it.
local function bounds(tokens)
  local first, last = 1, #tokens
  while is_symbol(tokens[first], ";") do
    first = first + 1
  end
  while last >= first and is_symbol(tokens[last], ";") do
    last = last - 1
  end
  return first, last
end

--- Find the clauses of a text that holds one SELECT, with WITH in front or not, or a UNION of several.
-- All ranges are numbers of tokens, `{ first =, last = }`.
-- @string sql
-- @tparam {table,...} tokens
-- @treturn table `first`, `last`; `with` (a range), `by_name`: the first clause of each name, after the last UNION;
--   `targets`, `group`, `order`: lists of ranges, those of targets with their aliases, those of order without ASC and
--   the like; `distinct` with `on`; `set_operation`, `enclosed` (it begins with a parenthesis)
function clauses.find(sql, tokens)
  local first, last = bounds(tokens)
  local found = { sql = sql, tokens = tokens, first = first, last = last, by_name = {}, list = {} }
  local i, clause = first, nil
  found.enclosed = is_symbol(tokens[first], "(")
  while i <= last do
    local token = tokens[i]
    if is_symbol(token, "(") or is_symbol(token, "[") then
      i = scan.closing(tokens, i) or last
    elseif begins_clause(tokens, i)
      and (clause ~= nil or found.enclosed or token.text == "SELECT" or token.text == "VALUES") then
      if clause == nil and i > first then
        found.with = { first = first, last = i - 1 }
      end
      clause = { name = token.text, first = i, last = last }
      if found.list[1] then
        found.list[#found.list].last = i - 1
      end
      found.list[#found.list + 1] = clause
    end
    i = i + 1
  end
  for _, one in ipairs(found.list) do
    if one.name == "UNION" or one.name == "INTERSECT" or one.name == "EXCEPT" then
      found.by_name, found.set_operation = {}, true
    end
    found.by_name[one.name] = found.by_name[one.name] or one
  end
  local by_name = found.by_name
  found.targets = by_name.SELECT and not found.set_operation and read_targets(found, tokens, by_name.SELECT) or {}
  found.order = by_name.ORDER and read_order(tokens, by_name.ORDER) or {}
  found.group = by_name.GROUP and read_group(found, tokens, by_name.GROUP) or {}
  return found
end

--- The text of a range, some parts of it replaced. It ends with a token, never in a comment.
-- @tparam table found from @{find}
-- @tparam table range
-- @tparam[opt] {table,...} edits `{ first =, last =, text = }` in bytes; those outside of the range are left out,
--   those that begin with the same byte must be the same
-- @treturn string
function clauses.text(found, range, edits)
  local first, last = found.tokens[range.first].first, found.tokens[range.last].last
  local inside = {}
  for _, edit in ipairs(edits or {}) do
    if edit.first >= first and edit.last <= last then
      inside[#inside + 1] = edit
    end
  end
  table.sort(inside, function(a, b)
    return a.first < b.first
  end)
  local parts, at = {}, first
  for _, edit in ipairs(inside) do
    if edit.first >= at then
      parts[#parts + 1] = found.sql:sub(at, edit.first - 1)
      parts[#parts + 1] = edit.text
      at = edit.last + 1
    end
  end
  parts[#parts + 1] = found.sql:sub(at, last)
  return table.concat(parts)
end

--- The range of a target without its alias.
-- @tparam table found
-- @tparam table range
-- @tparam table target its `ResTarget`
-- @treturn table
function clauses.without_alias(found, range, target)
  if target.name == nil then
    return range
  end
  local last = range.last - 1
  if is_word(found.tokens[last], "AS") then
    last = last - 1
  end
  return { first = range.first, last = last }
end

--- The range of a name such as `a.b.c`.
-- @tparam table found
-- @int location of the tree
-- @int n_parts
-- @treturn ?table
function clauses.name(found, location, n_parts)
  local first = scan.at(found.tokens, location + 1)
  return first and { first = first, last = first + 2 * (n_parts - 1) }
end

--- The parts of a function call.
-- @tparam table found
-- @tparam table call a `FuncCall`
-- @treturn[1] table range of the whole with FILTER and OVER; `argument`: what is in its parentheses, without DISTINCT
--   and ORDER BY, nil when nothing is; `filter`: from FILTER to its parenthesis
-- @treturn[2] nil when it is written in another way
function clauses.call(found, call)
  local tokens = found.tokens
  local name = clauses.name(found, call.location, #call.funcname)
  local open = name and name.last + 1
  if not open or not is_symbol(tokens[open], "(") then
    return nil
  end
  local close = scan.closing(tokens, open)
  local range = { first = name.first, last = close }
  local first, last = open + 1, close - 1
  if is_word(tokens[first], "DISTINCT") or is_word(tokens[first], "ALL") then
    first = first + 1
  end
  local i = first
  while i <= last do
    if is_symbol(tokens[i], "(") or is_symbol(tokens[i], "[") then
      i = scan.closing(tokens, i)
    elseif is_word(tokens[i], "ORDER") and is_word(tokens[i + 1], "BY") then
      last = i - 1
    end
    i = i + 1
  end
  range.argument = first <= last and { first = first, last = last } or nil
  while is_word(tokens[range.last + 1], "WITHIN") do
    range.last = scan.closing(tokens, range.last + 3)
  end
  if is_word(tokens[range.last + 1], "FILTER") and is_symbol(tokens[range.last + 2], "(") then
    local filter_end = scan.closing(tokens, range.last + 2)
    range.filter = { first = range.last + 1, last = filter_end }
    range.last = filter_end
  end
  if is_word(tokens[range.last + 1], "OVER") then
    local after = range.last + 2
    range.last = is_symbol(tokens[after], "(") and scan.closing(tokens, after) or after
  end
  return range
end

--- An edit of a whole range.
-- @tparam table found
-- @tparam table range
-- @string text
-- @treturn table
function clauses.edit(found, range, text)
  return { first = found.tokens[range.first].first, last = found.tokens[range.last].last, text = text }
end

return clauses
