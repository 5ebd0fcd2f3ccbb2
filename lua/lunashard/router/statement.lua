--- What kind of statement a text holds, told by its words.
-- No parser: `lunashard.sql.scan` tells words from literals and comments. Functions with side effects called by
-- a SELECT are not seen.
-- @module lunashard.router.statement

local scan = require("lunashard.sql.scan")

local find, sub = string.find, string.sub
local next_token = scan.next

local statement = {}

local READS = { SELECT = true, VALUES = true, TABLE = true, SHOW = true, WITH = true }
local MODIFIES = { INSERT = true, UPDATE = true, DELETE = true, MERGE = true }
local CONTROLS = {
  BEGIN = true, START = true, COMMIT = true, END = true, ROLLBACK = true, ABORT = true,
  SAVEPOINT = true, RELEASE = true,
}
-- After one of these at the top level a LIMIT cannot simply be appended.
local TAIL_CLAUSES = { LIMIT = true, OFFSET = true, FETCH = true, FOR = true, INTO = true }

-- Does the text from `pos` on modify data: a data-modifying statement in or
-- after WITH, or SELECT ... INTO?
local function modifies(sql, pos)
  local depth, previous = 0, nil
  while true do
    local token
    token, pos = next_token(sql, pos)
    if token == nil then
      return false
    elseif token == "(" then
      depth = depth + 1
    elseif token == ")" then
      depth = depth - 1
    elseif (previous == "(" or previous == ")") and MODIFIES[token] then
      return true
    elseif token == "INTO" and depth <= 0 then
      return true
    end
    previous = token
  end
end

local function first_word(sql, pos)
  local token
  repeat
    token, pos = next_token(sql, pos)
  until token ~= ";" and token ~= "("
  return token, pos
end

local classify_at

local function classify_explain(sql, pos)
  local analyze = false
  local token, after = next_token(sql, pos)
  if token == "(" then
    repeat
      token, after = next_token(sql, after)
      analyze = analyze or token == "ANALYZE" or token == "ANALYSE"
    until token == ")" or token == nil
    pos = after
  else
    while token == "ANALYZE" or token == "ANALYSE" or token == "VERBOSE" do
      analyze = analyze or token ~= "VERBOSE"
      pos = after
      token, after = next_token(sql, pos)
    end
  end
  if analyze then
    return (classify_at(sql, pos))
  end
  return "read"
end

function classify_at(sql, start)
  local word, pos = first_word(sql, start)
  if word == nil then
    return "empty"
  elseif READS[word] then
    return modifies(sql, pos) and "write" or "read", word
  elseif CONTROLS[word] then
    -- COMMIT PREPARED and ROLLBACK PREPARED are statements of their own.
    local second = next_token(sql, pos)
    return second == "PREPARED" and "write" or "control", word
  elseif word == "EXPLAIN" then
    return classify_explain(sql, pos), word
  elseif word == "PREPARE" then
    return next_token(sql, pos) == "TRANSACTION" and "control" or "write", word
  elseif word == "COPY" then
    local token
    repeat
      token, pos = next_token(sql, pos)
    until token == nil or token == "STDIN" or token == "STDOUT"
    return token and "copy" or "write", word
  end
  return "write", word
end

-- Programs run the same texts again and again; long ones are not worth keeping.
local CACHE_ENTRIES, CACHE_TEXT = 2048, 8192
local known, cached = {}, 0 -- text -> { kind, word }

--- Classify a statement by its first words.
-- @string sql
-- @treturn string `read` (SELECT, VALUES, TABLE, SHOW, WITH without data-modifying
--   parts, EXPLAIN of these), `control` (BEGIN, COMMIT, ROLLBACK, SAVEPOINT, ...),
--   `copy` (COPY from or to the client), `empty`, `nul` (no SQL: it holds a NUL byte), or `write` (all else)
-- @treturn ?string the first word in upper case
function statement.classify(sql)
  local entry = known[sql]
  if entry then
    return entry.kind, entry.word
  end
  local kind, word
  if find(sql, "\0", 1, true) then
    kind = "nul"
  else
    kind, word = classify_at(sql, 1)
  end
  if #sql <= CACHE_TEXT then
    if cached >= CACHE_ENTRIES then
      known, cached = {}, 0
    end
    known[sql], cached = { kind = kind, word = word }, cached + 1
  end
  return kind, word
end

local CHANGES_NO_ROWS = {}
for _, word in ipairs({ "SELECT", "VALUES", "TABLE", "SHOW", "SET", "RESET", "CREATE", "ALTER", "DROP", "COMMENT", "GRANT",
  "REVOKE", "ANALYZE", "VACUUM", "REINDEX", "CLUSTER", "CHECKPOINT", "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT",
  "SAVEPOINT", "RELEASE", "LOCK", "NOTIFY", "SECURITY", "REASSIGN", "REFRESH", "DISCARD" }) do
  CHANGES_NO_ROWS[word] = true
end

--- May a script of several statements change rows of tables that are there? Told by their first words.
-- @string sql
-- @treturn boolean
function statement.may_modify(sql)
  local pos, first = 1, true
  while true do
    local token
    token, pos = next_token(sql, pos)
    if token == nil then
      return false
    elseif token == ";" then
      first = true
    elseif first and token ~= "(" then
      if not CHANGES_NO_ROWS[token] then
        return true
      end
      first = false
    end
  end
end

--- Append `LIMIT n` to a query where that keeps its meaning.
-- @string sql
-- @tparam number n
-- @treturn string the longer text, or `sql` itself when it already ends in LIMIT,
--   OFFSET, FETCH or a locking clause, or holds several statements
function statement.with_limit(sql, n)
  local kind, word = statement.classify(sql)
  if kind ~= "read" or word == "SHOW" or word == "EXPLAIN" then
    return sql
  end
  local depth, pos, last, ended = 0, 1, 0, false
  while true do
    local token, after = next_token(sql, pos)
    if token == nil then
      break
    elseif token == ";" then
      ended = true
    elseif ended then
      return sql
    else
      last = after - 1
      if token == "(" then
        depth = depth + 1
      elseif token == ")" then
        depth = depth - 1
      elseif depth == 0 and TAIL_CLAUSES[token] then
        return sql
      end
    end
    pos = after
  end
  return ("%s LIMIT %d"):format(sub(sql, 1, last), n)
end

--- Quote one identifier.
-- @string name
-- @treturn string
function statement.quote_ident(name)
  return '"' .. name:gsub('"', '""') .. '"'
end

--- Quote a table name, which may carry a schema: `app.users` is two identifiers.
-- A name with dots of its own is written with double quotes, as in SQL.
-- @string name
-- @treturn[1] string
-- @treturn[2] nil when the name is empty or its quotes do not match
function statement.quote_table(name)
  local parts, pos = {}, 1
  while true do
    local part, after
    if sub(name, pos, pos) == '"' then
      after = scan.after_quoted(name, pos + 1, '"')
      if sub(name, after - 1, after - 1) ~= '"' or after - pos < 3 then
        return nil
      end
      part = sub(name, pos, after - 1)
    else
      local _, last = find(name, '^[^."]+', pos)
      if not last then
        return nil
      end
      part, after = statement.quote_ident(sub(name, pos, last)), last + 1
    end
    parts[#parts + 1] = part
    if after > #name then
      return table.concat(parts, ".")
    elseif sub(name, after, after) ~= "." then
      return nil
    end
    pos = after + 1
  end
end

return statement
