--- What a line of input is: SQL, Lua or a command; and whether it is complete.
-- The first word decides, for many an SQL statement is valid Lua: `commit;`, `values (1), (2);`.
-- @module lunashard.repl.classify

local lua_source = require("lunashard.repl.lua_source")
local scan = require("lunashard.sql.scan")

local next_token = scan.next

local classify = {}

local function set(words)
  local list = {}
  for word in words:gmatch("%S+") do
    list[word] = true
  end
  return list
end

-- END is not among them: `end` belongs to Lua.
local SQL_WORDS = set([[
  SELECT INSERT UPDATE DELETE MERGE WITH VALUES TABLE BEGIN START COMMIT ROLLBACK ABORT SAVEPOINT RELEASE
  CREATE ALTER DROP TRUNCATE COMMENT GRANT REVOKE REASSIGN SECURITY IMPORT REFRESH REINDEX CLUSTER
  EXPLAIN ANALYZE ANALYSE VACUUM CHECKPOINT SHOW SET RESET DISCARD LOCK LISTEN NOTIFY UNLISTEN DO CALL
  COPY PREPARE EXECUTE DEALLOCATE DECLARE FETCH MOVE CLOSE]])

-- These alone are complete without a semicolon.
local CONTROLS = set("BEGIN COMMIT ROLLBACK ABORT")

-- After these a bracket may follow in SQL.
local BEFORE_BRACKET = set("SELECT VALUES WITH EXPLAIN ANALYZE ANALYSE VACUUM CLUSTER REINDEX COPY TABLE")

-- What follows a name in Lua, and never the first word of a statement; the second set may follow SELECT.
local AFTER_NAME = set(". : = [ , {")
local AFTER_VALUE = set("+ * / ^ % < > ~ #")

--- The words with which an SQL statement begins.
-- @table words
classify.words = SQL_WORDS

local function is_sql(text, env)
  if text:find("^%s*%-%-%[=*%[") then -- a long comment of Lua
    return false
  end
  local pos, token = 1
  repeat
    token, pos = next_token(text, pos)
  until token ~= "("
  if not token or not SQL_WORDS[token] then
    return false
  end
  local name = text:sub(pos - #token, pos - 1)
  local following, after = next_token(text, pos)
  if token == "DO" then
    return following == "?" or following == "LANGUAGE"
  elseif following == nil or following == ";" and next_token(text, after) == nil then
    -- Alone it may be the name of a variable: `cluster`, `table`.
    return CONTROLS[token] or token == "SELECT" or env[name] == nil or following == ";" and token ~= "TABLE"
  elseif following == "(" then
    return BEFORE_BRACKET[token] or false
  end
  return not AFTER_NAME[following] and (token == "SELECT" or not AFTER_VALUE[following])
end

--- A statement without its semicolon.
-- @string sql
-- @treturn string
function classify.without_semicolon(sql)
  local whole = sql:match("^.*%S") or ""
  return whole:sub(-1) == ";" and (whole:sub(1, -2):match("^.*%S") or "") or whole
end

--- The statements of a text, each to its semicolon.
-- @string text
-- @treturn {string,...} without those of comments alone
-- @treturn boolean is the last one complete?
function classify.split(text)
  local statements, first, pos = {}, 1, 1
  local has_word, in_body, depth = false, false, 0
  local previous
  while true do
    local token, after = next_token(text, pos)
    if not token then
      break
    elseif token == ";" and depth == 0 then
      if has_word then
        statements[#statements + 1] = text:sub(first, after - 1):match("^%s*(.*%S)")
      end
      first, has_word, in_body = after, false, false
    else
      has_word = true
      in_body = in_body or token == "ATOMIC" and previous == "BEGIN"
      if token == "ATOMIC" and previous == "BEGIN" or in_body and token == "CASE" then
        depth = depth + 1
      elseif in_body and token == "END" and depth > 0 then
        depth = depth - 1
      end
    end
    previous, pos = token, after
  end
  if has_word then
    statements[#statements + 1] = text:sub(first):match("^%s*(.*%S)")
  end
  return statements, not has_word
end

local function read_sql(text)
  local statements, is_complete = classify.split(text)
  if not is_complete and #statements == 1 then
    local word, pos = next_token(text, 1)
    is_complete = CONTROLS[word] ~= nil and next_token(text, pos) == nil
  end
  return { kind = "sql", statements = statements, more = not is_complete }
end

--- Look at what was typed so far.
-- @string text one line or several
-- @tparam table env the variables that there are
-- @string[opt] name of the Lua chunk
-- @treturn table `kind`: `empty`, `command`, `sql` or `lua`; `more`: it is not complete; of SQL `statements`; of Lua
--   `chunk` and `is_expression`, or `problem`
function classify.read(text, env, name)
  if not text:find("%S") then
    return { kind = "empty" }
  elseif text:find("^%s*\\") then
    return { kind = "command" }
  elseif is_sql(text, env) then
    return read_sql(text)
  elseif not next_token(text, 1) and not text:find("^%s*%-%-%[=*%[") then
    return { kind = "empty", more = text:find("^%s*/%*") ~= nil and not text:find("%*/%s*$") }
  end
  local chunk, detail = lua_source.compile(text, name or "=input", env)
  if chunk then
    return { kind = "lua", chunk = chunk, is_expression = detail }
  end
  return { kind = "lua", more = detail == nil, problem = detail }
end

return classify
