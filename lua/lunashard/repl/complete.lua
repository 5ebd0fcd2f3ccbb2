--- What a line may go on with (TAB). Looks at what is in memory and waits for nothing.
-- @module lunashard.repl.complete

local commands = require("lunashard.repl.commands")
local names = require("lunashard.repl.names")
local sorted = require("lunashard.sorted")

local complete = {}

local SQL_FIRST = {}
local SQL_WORDS = {}

for word in ([[ABORT ALTER ANALYZE BEGIN CALL CHECKPOINT CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE DELETE DISCARD DO DROP END
  EXECUTE EXPLAIN GRANT INSERT LISTEN LOCK MERGE NOTIFY PREPARE REFRESH REINDEX RELEASE RESET REVOKE ROLLBACK SAVEPOINT
  SELECT SET SHOW START TABLE TRUNCATE UNLISTEN UPDATE VACUUM VALUES WITH]]):gmatch("%u+") do
  SQL_FIRST[word] = true
  SQL_WORDS[#SQL_WORDS + 1] = word
end

for word in ([[ADD ALL AND ANY AS ASC BETWEEN BIGINT BOOLEAN BY CASCADE CASE CAST CHECK COALESCE COLUMN CONCURRENTLY CONFLICT
  CONSTRAINT COUNT CROSS CURRENT_DATE CURRENT_TIMESTAMP DATABASE DEFAULT DESC DISTINCT ELSE EXCEPT EXISTS EXTENSION
  FALSE FETCH FILTER FIRST FOR FOREIGN FROM FULL FUNCTION GROUP HAVING ILIKE IN INDEX INNER INTERSECT INTERVAL INTO IS
  ISOLATION JOIN JSONB KEY LAST LATERAL LEFT LIKE LIMIT LOCKED MATERIALIZED NATURAL NOT NOTHING NOWAIT NULL NULLS OFFSET
  ON ONLY OR ORDER OUTER OVER PARTITION PRIMARY READ RECURSIVE REFERENCES RENAME RESTRICT RETURNING RIGHT ROLE ROW ROWS
  SCHEMA SEQUENCE SERIALIZABLE SIMILAR SKIP SMALLINT TEMPORARY TEXT THEN TIMESTAMPTZ TO TRANSACTION TRIGGER TRUE TYPE
  UNION UNIQUE USING UUID VIEW WHEN WHERE WINDOW WITHIN]]):gmatch("[%u_]+") do
  SQL_WORDS[#SQL_WORDS + 1] = word
end

local LUA_WORDS = { "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local", "nil",
  "not", "or", "repeat", "return", "then", "true", "until", "while" }

local Completer = {}
Completer.__index = Completer

--- What completes the lines of a session.
-- @tparam Session session whose cluster and variables are looked at
-- @treturn Completer
function complete.new(session)
  return setmetatable({ session = session, environment = session.env }, Completer)
end

-- The names of the cluster that the session works with now.
local function known(self)
  local cluster = self.session.cluster
  if self.names and self.names.cluster ~= cluster then
    self.names:close()
    self.names = nil
  end
  self.names = self.names or cluster and names.new(cluster)
  return self.names and self.names:tables() or {}
end

local function add(found, word, prefix)
  if word:sub(1, #prefix) == prefix then
    found[word] = true
  end
end

local function add_shards(self, found, prefix)
  for _, shard in ipairs(self.session.manager and self.session.manager.shards or {}) do
    add(found, shard.shard_id, prefix)
  end
end

local function add_tables(self, found, prefix)
  for name in pairs(known(self)) do
    add(found, name, prefix)
  end
end

-- ---- SQL ------------------------------------------------------------------------------

-- Keywords in the letters that the word was begun with.
local function add_keywords(found, prefix)
  local upper = prefix:upper()
  local is_lower = prefix:find("%l") ~= nil
  for _, word in ipairs(SQL_WORDS) do
    if word:sub(1, #upper) == upper then
      found[is_lower and word:lower() or word] = true
    end
  end
end

-- The columns of the tables that the statement names; of all tables when it names none yet.
local function add_columns(self, found, text, prefix)
  local tables = known(self)
  local named = {}
  for word in text:gmatch("[%w_]+") do
    named[#named + 1] = tables[word] and word or nil
  end
  if #named == 0 then
    for name in pairs(tables) do
      named[#named + 1] = name
    end
  end
  for _, name in ipairs(named) do
    for _, column in ipairs(tables[name]) do
      add(found, column, prefix)
    end
  end
end

local TABLE_AFTER = { FROM = true, JOIN = true, INTO = true, UPDATE = true, TABLE = true, ONLY = true, TRUNCATE = true }

-- "u" in `FROM users u` and `users` are the table users.
local function table_of(self, text, alias)
  local tables = known(self)
  if tables[alias] then
    return tables[alias]
  end
  local before, last
  for word in text:gmatch("[%w_]+") do
    local name = last and last:upper() == "AS" and before or last
    if word == alias and tables[name] then
      return tables[name]
    end
    before, last = last, word
  end
end

local function sql(self, text, before)
  local found = {}
  local alias, field = before:match("([%w_]+)%.([%w_]*)$")
  if alias then
    for _, column in ipairs(table_of(self, text, alias) or {}) do
      add(found, column, field)
    end
    return #before - #field + 1, sorted.keys(found)
  end
  local word = before:match("[%w_]*$")
  local previous = before:sub(1, #before - #word):match("([%a_]+)%s+$")
  if previous and TABLE_AFTER[previous:upper()] then
    add_tables(self, found, word)
  else
    add_columns(self, found, text, word)
    if word ~= "" then
      add_tables(self, found, word)
      add_keywords(found, word)
    end
  end
  return #before - #word + 1, sorted.keys(found)
end

-- ---- Lua ------------------------------------------------------------------------------

local function add_fields(found, value, prefix, methods_only)
  -- Through tables that stand in for missing fields; functions that do are not called.
  for _ = 1, 8 do
    if type(value) == "table" then
      for key, field in next, value do
        if type(key) == "string" and key:find("^[%a_][%w_]*$") and (not methods_only or type(field) == "function") then
          add(found, key, prefix)
        end
      end
    end
    local meta = debug.getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
    if type(value) ~= "table" then
      return
    end
  end
end

local function field_of(value, key)
  for _ = 1, 8 do
    local found = type(value) == "table" and rawget(value, key)
    if found ~= nil and found ~= false then
      return found
    end
    local meta = debug.getmetatable(value)
    value = type(meta) == "table" and rawget(meta, "__index") or nil
    if type(value) ~= "table" then
      return nil
    end
  end
end

local function lua(self, before)
  local found = {}
  local quoted = before:match("[\"']([%w_%-]*)$")
  if quoted then
    add_shards(self, found, quoted)
    add_tables(self, found, quoted)
    return #before - #quoted + 1, sorted.keys(found)
  end
  local path, separator, field = before:match("([%a_][%w_%.]*)([.:])([%w_]*)$")
  if path then
    local first, rest = path:match("^([%w_]+)(.*)$")
    local value = field_of(self.environment, first)
    for key in rest:gmatch("[%w_]+") do
      value = field_of(value, key)
    end
    if value ~= nil then
      add_fields(found, value, field, separator == ":")
    end
    return #before - #field + 1, sorted.keys(found)
  end
  local word = before:match("[%a_][%w_]*$") or ""
  add_fields(found, self.environment, word)
  for _, keyword in ipairs(LUA_WORDS) do
    add(found, keyword, word)
  end
  return #before - #word + 1, sorted.keys(found)
end

-- ---- commands ---------------------------------------------------------------------------

local function command(self, before)
  local found = {}
  local argument = before:match("%s(%S*)$")
  if argument then
    if before:find("^\\use%s") then
      add(found, "key", argument)
    end
    if not before:find("^\\[xq]%s") then
      add_shards(self, found, argument)
    end
    if before:find("^\\x%s") then
      for _, word in ipairs({ "auto", "off", "on" }) do
        add(found, word, argument)
      end
    elseif before:find("^\\timing%s") then
      add(found, "on", argument)
      add(found, "off", argument)
    end
    return #before - #argument + 1, sorted.keys(found)
  end
  for _, entry in ipairs(commands.list()) do
    add(found, "\\" .. entry[1], before)
  end
  return 1, sorted.keys(found)
end

--- Is it SQL, by its first word?
-- @string text
-- @treturn boolean
function complete.is_sql(text)
  local word = text:match("^[%s(]*(%a+)")
  return word ~= nil and SQL_FIRST[word:upper()] == true
end

--- What may stand at the cursor.
-- @string text
-- @number cursor bytes before it
-- @treturn number the byte where what the candidates replace begins
-- @treturn {string,...} sorted
function Completer:candidates(text, cursor)
  local before = text:sub(1, cursor)
  local start = before:match("^%s*()")
  if before:sub(start, start) == "\\" then
    local from, found = command(self, before:sub(start))
    return from + start - 1, found
  elseif complete.is_sql(before) and before:find("%a%s") then
    return sql(self, text, before)
  end
  local from, found = lua(self, before)
  -- The first word may become either.
  local word = before:match("^%s*(%a+)$")
  if word then
    local all = {}
    for _, candidate in ipairs(found) do
      all[candidate] = true
    end
    local is_lower = word:find("%l") ~= nil
    for first in pairs(SQL_FIRST) do
      if first:sub(1, #word) == word:upper() then
        all[is_lower and first:lower() or first] = true
      end
    end
    found = sorted.keys(all)
  end
  return from, found
end

--- A text was run: when it may have changed tables, their names are read anew, in the background.
-- @string text
function Completer:ran(text)
  local word = text:match("^%s*(%a+)")
  word = word and word:upper()
  if self.names and (word == "CREATE" or word == "ALTER" or word == "DROP") then
    self.names:refresh(true)
  end
end

--- Read nothing more.
function Completer:close()
  if self.names then
    self.names:close()
  end
end

return complete
