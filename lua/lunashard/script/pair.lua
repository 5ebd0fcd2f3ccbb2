--- A table in one database and the same one on the shards: what its columns and keys are, and its rows by ranges of the
-- primary key. For migrations from one database; `lunashard.script.compare` says whether both sides are the same.
-- Values travel as the texts that the servers write, so that none is changed on the way.
-- @module lunashard.script.pair

local cluster_file = require("lunashard.cluster")
local distribution = require("lunashard.distribution")
local errors = require("lunashard.errors")
local server = require("lunashard.script.server")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")
local values = require("lunashard.values")

local pair = {}

local Pair = {}
Pair.__index = Pair

local TIMEOUT = 300 -- seconds that one statement may take

-- Generated columns are the server's own affair.
local COLUMNS = [[
  SELECT a.attname AS name, t.typname AS type_name, t.typtype AS kind, format_type(a.atttypid, NULL) AS type,
         a.attidentity = 'a' AS identity
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum]]

local PRIMARY_KEY = [[
  SELECT a.attname AS name FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey::int[]) WITH ORDINALITY AS k(attnum, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
   WHERE i.indrelid = to_regclass($1) AND i.indisprimary ORDER BY k.place]]

local FACTS = [[
  SELECT greatest(reltuples, 0)::int8 AS rows,
         (SELECT datcollate FROM pg_database WHERE datname = current_database()) AS collation
    FROM pg_class WHERE oid = to_regclass($1)]]

local function invalid(format, ...)
  return errors.new("INVALID", { message = format:format(...) })
end

local function ask(where, sql, params)
  local result, err = where:execute(sql, params, { deadline = task.now() + TIMEOUT, pipeline = false })
  return result and result.rows or error(err, 0)
end

-- The one shard of a cluster file is the database that the rows come from.
local function open_source(path)
  local given = assert(cluster_file.load(path))
  if type(given.shards) ~= "table" or #given.shards ~= 1 then
    error(invalid("%s: expected a cluster file with one shard, the database that the rows are in", path), 0)
  end
  return assert(server.connect(path, given.shards[1].shard_id))
end

-- The first shard that answers stands for all.
local function ask_any_shard(self, sql, params)
  local result, err
  for _, shard in ipairs(self.job.shards) do
    result, err = self.job.plain:execute(sql, params, { shard_id = shard.shard_id })
    if result then
      return result.rows
    end
  end
  error(err, 0)
end

local function find_columns(self, wanted)
  local there, by_name, known = ask_any_shard(self, COLUMNS, { self.quoted }), {}, {}
  for _, column in ipairs(ask(self.source, COLUMNS, { self.quoted_source })) do
    known[column.name] = true
  end
  if next(known) == nil then
    error(invalid("there is no table %s in the database of --from", self.source_table), 0)
  end
  for _, column in ipairs(there) do
    by_name[column.name] = column
  end
  local list = {}
  for _, name in ipairs(wanted or {}) do
    list[#list + 1] = by_name[name] or error(invalid("--columns: %s has no column %s%s", self.table, name,
      errors.nearest(name, by_name) and "; did you mean " .. errors.nearest(name, by_name) .. "?" or ""), 0)
  end
  list = wanted and list or there
  for i, column in ipairs(list) do
    if not known[column.name] then
      error(invalid("%s has no column %s in the database of --from: name those to take with --columns", self.source_table,
        column.name), 0)
    end
    column.quoted, column.place = statement.quote_ident(column.name), i
    self.by_name[column.name], self.has_identity = column, self.has_identity or column.identity
  end
  self.columns = list
end

local function columns_named(self, names, what)
  local list = {}
  for i, name in ipairs(names) do
    list[i] = self.by_name[name] or error(invalid("%s: the column %s of %s is not among the columns", self.table, name, what), 0)
  end
  return list
end

local function find_keys(self)
  local names = {}
  for i, row in ipairs(ask_any_shard(self, PRIMARY_KEY, { self.quoted })) do
    names[i] = row.name
  end
  if #names == 0 then
    error(invalid("%s has no primary key on the shards, by which its rows could be told apart", self.table), 0)
  end
  self.key = columns_named(self, names, "its primary key")
  local declared = self.job.manager.tables[self.table]
  local shard_key = declared and declared.shard_key or self.job.manager.strategy.shard_key
  if declared and declared.reference or shard_key == nil then
    error(invalid("%s: %s", self.table, declared and declared.reference and "is a reference table; every shard has all of it"
      or "neither the cluster file's tables nor its strategy say which column is the shard key"), 0)
  end
  self.shard_key = columns_named(self, type(shard_key) == "table" and shard_key or { shard_key }, "its shard key")
  self.strategy = assert(self.job.manager:strategy_for(declared and self.table or nil))
  self.declared = declared and self.table or nil
end

local TEXTS = { text = true, varchar = true, bpchar = true }

-- Ranges of a key of text mean the same on both sides only when both sort alike.
local function settle_collation(self)
  local ours = ask(self.source, FACTS, { self.quoted_source })[1]
  local theirs = ask_any_shard(self, FACTS, { self.quoted })[1]
  self.estimate = tonumber(ours.rows)
  for _, column in ipairs(self.key) do
    column.ordered = "t." .. column.quoted
      .. (TEXTS[column.type_name] and ours.collation ~= theirs.collation and ' COLLATE "C"' or "")
  end
end

-- As the shards would write it: the other side may have another type, and sessions other time zones.
local function comparable(column)
  local name = "t." .. column.quoted
  if column.type_name == "timestamptz" then
    return ("(%s::timestamptz AT TIME ZONE 'UTC')"):format(name)
  elseif column.kind ~= "b" or column.type_name == "bpchar" then
    return name .. "::text"
  end
  return ("%s::%s"):format(name, column.type)
end

local function prepare_texts(self)
  local texts, compared, ordered, keys = {}, {}, {}, {}
  for i, column in ipairs(self.columns) do
    texts[i] = ("t.%s::text AS %s"):format(column.quoted, column.quoted)
    compared[i] = comparable(column)
  end
  for i, column in ipairs(self.key) do
    ordered[i] = column.ordered
    keys[i] = ("t.%s::text AS k%d"):format(column.quoted, i)
  end
  self.texts, self.ordered, self.keys = table.concat(texts, ", "), table.concat(ordered, ", "), table.concat(keys, ", ")
  self.hash = ('hashtextextended(ROW(%s)::text COLLATE "C", 0)'):format(table.concat(compared, ", "))
end

--- Look at a table on both sides. Yields. Raises what is wrong.
-- @tparam Job job
-- @tparam table given `from`: a cluster file with one shard; `table`, and `source_table` there [the same]; `columns`: a list
--   of names [all that the shards have]
-- @treturn Pair with `columns`, `key`, `shard_key` (lists, each with `name`), `estimate` (of the source's rows); to be closed
function pair.open(job, given)
  local self = setmetatable({ job = job, table = given.table, source_table = given.source_table or given.table, by_name = {} },
    Pair)
  self.quoted, self.quoted_source = job:quoted_table(self.table), job:quoted_table(self.source_table)
  assert(job:check_table(self.table))
  self.source = open_source(given.from)
  local ok, err = pcall(function()
    find_columns(self, given.columns)
    find_keys(self)
    settle_collation(self)
    prepare_texts(self)
  end)
  if not ok then
    self:close()
    error(err, 0)
  end
  return self
end

--- Close the connection to the source.
function Pair:close()
  self.source:close()
end

--- Ask the source. Yields. Raises what goes wrong.
-- @string sql
-- @tparam[opt] table params
-- @treturn {table,...} rows
function Pair:ask_source(sql, params)
  return ask(self.source, sql, params)
end

--- Ask a shard. Yields. Raises what goes wrong.
-- @string shard_id
-- @string sql
-- @tparam[opt] table params
-- @treturn {table,...} rows
function Pair:ask_shard(shard_id, sql, params)
  local result, err = self.job.plain:execute(sql, params, { shard_id = shard_id, timeout = TIMEOUT, pipeline = false })
  return result and result.rows or error(err, 0)
end

--- The condition for a range of keys: ` WHERE (key) > ($1) AND (key) <= ($2)`, with the columns of a table called t.
-- @tparam ?{string,...} after nil from the first one on
-- @tparam ?{string,...} upto nil to the last one
-- @treturn string
-- @treturn {string,...} parameters
function Pair:range(after, upto)
  local parts, params = {}, {}
  local function add(bound, operator)
    local places = {}
    for i, column in ipairs(self.key) do
      params[#params + 1] = bound[i]
      places[i] = ("$%d::%s"):format(#params, column.kind == "b" and column.type_name ~= "bpchar" and column.type or "text")
    end
    parts[#parts + 1] = ("(%s) %s (%s)"):format(self.ordered, operator, table.concat(places, ", "))
  end
  if after then
    add(after, ">")
  end
  if upto then
    add(upto, "<=")
  end
  return #parts > 0 and " WHERE " .. table.concat(parts, " AND ") or "", params
end

--- The next rows of the source, in the order of the key. Yields.
-- @tparam ?{string,...} after the key of the last one before them
-- @int limit
-- @treturn {table,...} by column name, as texts
function Pair:read(after, limit)
  local where, params = self:range(after)
  return ask(self.source, ("SELECT %s FROM %s AS t%s ORDER BY %s LIMIT %d"):format(self.texts, self.quoted_source, where,
    self.ordered, limit), params)
end

--- The row of a key in the source, or on a shard. Yields.
-- @tparam {string,...} key
-- @string[opt] shard_id
-- @treturn ?table by column name, as texts
function Pair:row_of(key, shard_id)
  local parts = {}
  for i, column in ipairs(self.key) do
    parts[i] = ("t.%s = $%d::%s"):format(column.quoted, i, column.type)
  end
  local text = ("SELECT %s FROM %%s AS t WHERE %s"):format(self.texts, table.concat(parts, " AND "))
  if shard_id then
    return self:ask_shard(shard_id, text:format(self.quoted), key)[1]
  end
  return ask(self.source, text:format(self.quoted_source), key)[1]
end

--- The primary key of a row.
-- @tparam table row
-- @treturn {string,...}
function Pair:key_of(row)
  local key = {}
  for i, column in ipairs(self.key) do
    key[i] = row[column.name]
  end
  return key
end

local WAYS = {
  skip = function()
    return "DO NOTHING"
  end,
  update = function(self)
    local sets, is_key = {}, {}
    for _, column in ipairs(self.key) do
      is_key[column.name] = true
    end
    for _, column in ipairs(self.columns) do
      sets[#sets + 1] = not is_key[column.name] and ("%s = excluded.%s"):format(column.quoted, column.quoted) or nil
    end
    return #sets > 0 and "DO UPDATE SET " .. table.concat(sets, ", ") or "DO NOTHING"
  end,
}

local function insert_of(self, on_conflict)
  local names, places, key = {}, {}, {}
  for i, column in ipairs(self.columns) do
    names[i], places[i] = column.quoted, "$" .. i
  end
  for i, column in ipairs(self.key) do
    key[i] = column.quoted
  end
  return ("INSERT INTO %s (%s)%s VALUES (%s)%s"):format(self.quoted, table.concat(names, ", "),
    self.has_identity and " OVERRIDING SYSTEM VALUE" or "", table.concat(places, ", "),
    on_conflict ~= "fail" and (" ON CONFLICT (%s) %s"):format(table.concat(key, ", "), WAYS[on_conflict](self)) or "")
end

--- Write rows of the source to the shards that own them, each shard's in one transaction. Yields.
-- @tparam {table,...} rows from @{Pair:read}
-- @string on_conflict `skip`, `update` or `fail`: what becomes of a row that is there already
-- @treturn number how many were written
function Pair:write(rows, on_conflict)
  if #rows == 0 then
    return 0
  end
  local sets, keys = {}, {}
  for i, row in ipairs(rows) do
    local set = {}
    for place, column in ipairs(self.columns) do
      local value = row[column.name]
      set[place] = value == nil and values.null or value
    end
    local key = {}
    for place, column in ipairs(self.shard_key) do
      key[place] = row[column.name]
    end
    sets[i], keys[i] = set, distribution.key_of(self.strategy, #self.shard_key == 1 and key[1] or key)
    if #self.shard_key == 1 and keys[i] == nil then
      error(errors.new("NULL_KEY", { message = ("%s: the row %s has no value in %s, the shard key"):format(self.source_table,
        table.concat(self:key_of(row), ", "), self.shard_key[1].name) }), 0)
    end
  end
  local done, err = self.job.plain:execute_many(insert_of(self, on_conflict), sets,
    { routing_keys = keys, table = self.declared, timeout = TIMEOUT })
  return done and done.row_count or error(err, 0)
end

return pair
