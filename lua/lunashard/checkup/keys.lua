--- A check-up's look at the declared tables and their shard keys: whether they are there, and the anti-patterns: keys that
-- may be NULL, have few values, are timestamps under a strategy that hashes, or change.
-- @module lunashard.checkup.keys

local parse = require("lunashard.sql.statement").parse
local sorted = require("lunashard.sorted")
local statement = require("lunashard.router.statement")

local keys = {}

local FEW = 100 -- distinct values; or so many for each shard
local FEW_PER_SHARD = 20
local ENOUGH_ROWS = 1000 -- to judge by

local TABLE = [[
  SELECT c.oid::bigint AS oid, c.reltuples::float8 AS rows,
         array_remove(ARRAY[CASE WHEN NOT has_table_privilege(c.oid, 'SELECT') THEN 'SELECT' END,
           CASE WHEN NOT has_table_privilege(c.oid, 'INSERT') THEN 'INSERT' END,
           CASE WHEN NOT has_table_privilege(c.oid, 'UPDATE') THEN 'UPDATE' END,
           CASE WHEN NOT has_table_privilege(c.oid, 'DELETE') THEN 'DELETE' END], NULL) AS lacking
    FROM pg_class c WHERE c.oid = to_regclass($1)]]

local COLUMN = [[
  SELECT format_type(a.atttypid, NULL) AS type, a.attnotnull AS not_null, s.n_distinct::float8 AS n_distinct,
         EXISTS (SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisvalid AND i.indkey[0] = a.attnum) AS indexed
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
   WHERE a.attrelid = $1 AND a.attname = $2 AND a.attnum > 0 AND NOT a.attisdropped]]

-- Columns that are unique on a shard and counted there.
local COUNTED = [[
  SELECT a.attname AS name FROM pg_index i
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
   WHERE i.indrelid = $1 AND i.indisunique AND i.indnatts = 1
     AND (a.attidentity <> '' OR pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%')]]

local STATEMENTS = "SELECT n.nspname AS schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
  .. "WHERE e.extname = 'pg_stat_statements'"

local FITS = {
  int8 = { smallint = true, integer = true, bigint = true },
  text = { text = true, ["character varying"] = true, character = true },
  uuid = { uuid = true },
  date = { date = true, ["timestamp without time zone"] = true, ["timestamp with time zone"] = true },
}
local TIMES = { date = true, ["timestamp without time zone"] = true, ["timestamp with time zone"] = true }
local HASHES = { hash = true, consistent_hash = true, rendezvous = true }
-- What people and programs change; the guide's examples.
local CHANGEABLE = { email = true, mail = true, phone = true, username = true, login = true, status = true, state = true }

local function one_row(router, shard_id, sql, params)
  local result = router:execute(sql, params, { shard_id = shard_id })
  return result and result.rows[1], result
end

local function check_type(declared, i, name, column, shard_id, found)
  local types = type(declared.type) == "table" and declared.type or { declared.type }
  local wanted = types[i]
  if wanted and FITS[wanted] and not FITS[wanted][column.type] then
    found:add("error", "keys", shard_id, ("%s is declared as %s and is %s on the server: keys would be looked for elsewhere")
      :format(name, wanted, column.type), ("declare its real type in tables, or ALTER TABLE ... TYPE %s before rows are there")
      :format(wanted == "int8" and "bigint" or wanted))
  end
end

local function check_column(self, table_name, declared, i, column_name, column, shard_id)
  local found, name = self.found, table_name .. "." .. column_name
  check_type(declared, i, name, column, shard_id, found)
  if not column.not_null then
    found:add("warning", "keys", shard_id, ("%s may be NULL, and rows without a key belong to no shard"):format(name),
      ("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL"):format(table_name, column_name))
  end
  if TIMES[column.type] and HASHES[self.strategy_name(table_name)] then
    found:add("warning", "keys", shard_id, ("%s is a time under the strategy %s: a period is spread over all shards, and asked "
      .. "of all"):format(name, self.strategy_name(table_name)),
      "shard by an identifier, such as user_id, or use the strategy range for times")
  end
  if not column.indexed then
    found:add("warning", "keys", shard_id, ("no index of %s begins with the shard key %s"):format(table_name, column_name),
      ("CREATE INDEX CONCURRENTLY ON %s (%s)"):format(table_name, column_name))
  end
end

-- The servers' estimates of all shards together: a share of the rows when it is negative.
local function add_distinct(self, table_name, column_name, n_distinct, rows)
  if not n_distinct then
    return
  end
  local sums = self.distinct
  local name = table_name .. "." .. column_name
  sums[name] = sums[name] or { values = 0, rows = 0 }
  rows = math.max(rows, 0) -- -1: never looked at
  sums[name].values = sums[name].values + (n_distinct < 0 and -n_distinct * rows or n_distinct)
  sums[name].rows = sums[name].rows + rows
end

local function check_distinct(self)
  local least = math.max(FEW, FEW_PER_SHARD * #self.router.manager.shards)
  for name, sum in pairs(self.distinct) do
    if sum.rows >= ENOUGH_ROWS and sum.values < least then
      self.found:add("warning", "keys", nil, ("%s has about %.0f distinct values in %.0f rows: they cannot be spread evenly over "
        .. "shards"):format(name, sum.values, sum.rows), "choose a key with many values, such as user_id or tenant_id")
    end
  end
end

-- Statements that set the key, by the parse trees of those that the server has counted.
local function check_updates(self, shard_id)
  local extension = one_row(self.router, shard_id, STATEMENTS)
  local result = extension and self.router:execute(("SELECT query, calls::float8 AS calls FROM %s.pg_stat_statements "
    .. "WHERE query ~* '^\\s*update\\s'"):format(statement.quote_ident(extension.schema)), nil, { shard_id = shard_id })
  for _, row in ipairs(result and result.rows or {}) do
    local parsed = parse(row.query)
    local update = parsed and parsed.ast[1] and parsed.ast[1].stmt.UpdateStmt
    for _, target in ipairs(update and update.targetList or {}) do
      local name = update.relation.relname .. "." .. (target.ResTarget.name or "")
      if self.columns[name] then
        self.updates[name] = (self.updates[name] or 0) + row.calls
      end
    end
  end
end

local function check_changes(self)
  for name in pairs(self.columns) do
    local calls = self.updates[name]
    if calls then
      self.found:add("warning", "keys", nil, ("%s was changed by UPDATE, %.0f times: such a row is on the wrong shard "
        .. "afterwards"):format(name, calls), "shard by what never changes, and look this up in a table of its own")
    elseif CHANGEABLE[name:match("[^.]+$"):lower()] then
      self.found:add("warning", "keys", nil, ("%s is likely to change, and a row cannot move by UPDATE"):format(name),
        "shard by an identifier that never changes, such as user_id")
    end
  end
end

local function check_counted(self, table_name, columns, oid, shard_id)
  local result = self.router:execute(COUNTED, { oid }, { shard_id = shard_id })
  for _, row in ipairs(result and result.rows or {}) do
    if row.name ~= columns[1] or #columns > 1 then
      self.found:add("warning", "keys", shard_id, ("%s.%s is counted on each shard for itself: the same values come on several")
        :format(table_name, row.name), "use lunashard.ids or uuid, or never look rows up by it without the shard key")
    end
  end
end

local function check_table(self, table_name, declared, shard_id)
  local found = self.found
  local quoted = statement.quote_table(table_name)
  local row, result = one_row(self.router, shard_id, TABLE, { quoted })
  if not row then
    if result then
      self.missing[table_name] = self.missing[table_name] or {}
      table.insert(self.missing[table_name], shard_id)
    end
    return
  end
  if #row.lacking > 0 then
    found:add("warning", "rights", shard_id, ("%s on %s is not granted"):format(table.concat(row.lacking, ", "), table_name),
      ("GRANT %s ON %s TO the user of the cluster file"):format(table.concat(row.lacking, ", "), table_name))
  end
  if declared.reference then
    return
  end
  local columns = type(declared.shard_key) == "table" and declared.shard_key or { declared.shard_key }
  for i, column_name in ipairs(columns) do
    local column, answer = one_row(self.router, shard_id, COLUMN, { row.oid, column_name })
    if column then
      self.columns[table_name:match("[^.]+$") .. "." .. column_name] = true
      column.indexed = column.indexed or i > 1
      check_column(self, table_name, declared, i, column_name, column, shard_id)
      add_distinct(self, table_name, column_name, column.n_distinct, row.rows)
    elseif answer then
      found:add("error", "keys", shard_id, ("%s has no column %s, its shard key"):format(table_name, column_name),
        "correct shard_key in tables, or add the column")
    end
  end
  check_counted(self, table_name, columns, row.oid, shard_id)
end

-- One that is nowhere is still to be made; one that is somewhere has keys that lead to nothing.
local function check_missing(self, n_shards)
  for name, shards in pairs(self.missing) do
    for _, shard_id in ipairs(#shards < n_shards and shards or {}) do
      self.found:add("error", "schema", shard_id, ("the table %s of the cluster file is not there, as it is on other shards")
        :format(name), "create it: `lunashard schema diff --sql` shows how")
    end
    if #shards == n_shards then
      self.found:add("warning", "schema", nil, ("the table %s of the cluster file is on no shard"):format(name),
        "create it with `lunashard schema apply`, or take it out of tables")
    end
  end
end

--- Look at the declared tables on the shards that answer. Yields.
-- @tparam Router router
-- @tparam {string,...} shard_ids
-- @tparam Findings found
function keys.check(router, shard_ids, found)
  local manager = router.manager
  local self = { router = router, found = found, distinct = {}, columns = {}, updates = {}, missing = {} }
  function self.strategy_name(table_name)
    local strategy = manager:strategy_for(table_name)
    return strategy and strategy.name
  end
  for _, shard_id in ipairs(shard_ids) do
    for _, name in ipairs(sorted.keys(manager.tables)) do
      check_table(self, name, manager.tables[name], shard_id)
    end
    check_updates(self, shard_id)
  end
  check_missing(self, #shard_ids)
  check_distinct(self)
  check_changes(self)
end

return keys
