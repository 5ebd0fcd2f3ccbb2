--- What a shard says of itself and of the tables that are to move, for the pre-flight checks.
-- @module lunashard.rebalancer.preflight.facts

local rights = require("lunashard.rebalancer.preflight.rights")
local values = require("lunashard.values")

local facts = {}

local DATABASE = [[
  SELECT current_user AS user, current_database() AS database, d.encoding = 6 AS utf8,
         pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collation,
         pg_catalog.pg_is_in_recovery() AS standby, current_setting('server_version_num')::int / 10000 AS version,
         EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = 'lunashard' AND c.relname = 'move') AS installed, -- `schema apply` may have made the schema
         (SELECT pg_get_userbyid(n.nspowner) FROM pg_catalog.pg_namespace n WHERE n.nspname = 'lunashard'
             AND NOT pg_has_role(n.nspowner, 'USAGE')) AS belongs_to,
         (SELECT count(*)::int FROM pg_catalog.pg_prepared_xacts WHERE database = current_database()) AS prepared,
         (SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)::float8 FROM pg_catalog.pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
             AND (backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)) AS oldest_transaction
    FROM pg_catalog.pg_database d WHERE d.datname = current_database()]]

local LEFT = [[
  SELECT DISTINCT job FROM lunashard.move WHERE step NOT IN ('done', 'aborted') AND job IS DISTINCT FROM $1::bigint
   ORDER BY job]]

-- $1 the table, $2 the tables of its group, $3 the reference tables: names quoted as SQL has them.
local TABLE = [[
  SELECT c.relkind AS kind, c.relpersistence AS persistence, c.relispartition AS is_partition,
         pg_has_role(c.relowner, 'USAGE') AS owned, pg_get_userbyid(c.relowner) AS owner,
         c.relrowsecurity AND c.relforcerowsecurity AS row_security,
    (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
              CASE WHEN a.attcollation NOT IN (0, 100) THEN 'COLLATE ' || a.attcollation::regcollation END,
              CASE WHEN a.attnotnull THEN 'NOT NULL' END, CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'IDENTITY' END,
              CASE WHEN a.attgenerated <> '' THEN 'GENERATED ' || pg_get_expr(g.adbin, g.adrelid) END), ', ' ORDER BY a.attnum)
       FROM pg_attribute a LEFT JOIN pg_attrdef g ON g.adrelid = a.attrelid AND g.adnum = a.attnum
      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') AS primary_key,
    (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY pg_get_constraintdef(k.oid)) FROM pg_constraint k
      WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'c', 'x', 'f')) AS constraints,
    ARRAY(SELECT t.tgname::text FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgparentid = 0
            AND left(t.tgname, 9) <> 'lunashard' ORDER BY 1) AS triggers,
    ARRAY(SELECT r.rulename::text FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.rulename <> '_RETURN' ORDER BY 1) AS rules,
    ARRAY(SELECT i.inhparent::regclass::text FROM pg_inherits i WHERE i.inhrelid = c.oid AND NOT c.relispartition
          UNION SELECT i.inhrelid::regclass::text FROM pg_inherits i WHERE i.inhparent = c.oid AND c.relkind <> 'p') AS inherits,
    ARRAY(SELECT k.conname || ' to ' || k.confrelid::regclass FROM pg_constraint k
           WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS
             (SELECT FROM unnest($2::text[] || $3::text[]) AS u(name) WHERE to_regclass(u.name) = k.confrelid)
           ORDER BY 1) AS leaving,
    ARRAY(SELECT k.conname || ' of ' || k.conrelid::regclass FROM pg_constraint k
           WHERE k.confrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 AND NOT EXISTS
             (SELECT FROM unnest($2::text[]) AS u(name) WHERE to_regclass(u.name) = k.conrelid) ORDER BY 1) AS entering,
    ARRAY(SELECT format('%s %s', u.n, k.conname) FROM pg_constraint k
            JOIN unnest($2::text[]) WITH ORDINALITY AS u(name, n) ON to_regclass(u.name) = k.confrelid
           WHERE k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0 AND k.confrelid <> c.oid
             AND NOT (k.condeferrable AND k.confdeltype = 'a') ORDER BY 1) AS refers,
    ARRAY(SELECT t.relid::regclass::text FROM pg_partition_tree(c.oid) t JOIN pg_class p ON p.oid = t.relid
           WHERE p.relpersistence = 'u' ORDER BY 1) AS unlogged
    FROM pg_class c WHERE c.oid = to_regclass($1)]]

local REFERENCE = "SELECT to_regclass($1) IS NOT NULL AS found"

-- Keys that refer to a table of the group come as its number and the key's name.
local function adopt(row, tables)
  for i, text in ipairs(row.refers) do
    local number, name = text:match("^(%d+) (.*)$")
    row.refers[i] = { name = name, to = tables[tonumber(number)].name }
  end
  return row
end

-- Does one of them hide what would be asked next?
local function add_missing(told, list)
  local is_hidden = false
  for _, one in ipairs(list) do
    table.insert(told.missing, one.statement)
    is_hidden = is_hidden or one.kind == "hidden"
  end
  return is_hidden
end

--- Ask a shard. Yields.
-- @tparam Pool pool
-- @tparam {table,...} tables of the group, each with `name` and `sql`
-- @tparam {table,...} references the same of the reference tables
-- @tparam[opt] table opts `job`, whose own traces do not count; `fresh`, `any_fresh`, `deadline`: see `rights.of_tables`
-- @treturn[1] table `database`, `left` (ids of jobs with moves half-way), `tables` (name -> facts, false when it is not there),
--   `references` (name -> is it there), `missing` (rights, as the statements that grant them); where a schema may
--   not be used, nothing is told of tables
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function facts.read(pool, tables, references, opts)
  opts = opts or {}
  local with = { deadline = opts.deadline }
  local found, err = pool:execute(DATABASE, nil, with)
  if not found then
    return nil, err
  end
  local told = { database = found.rows[1], left = {}, tables = {}, references = {}, missing = {} }
  if told.database.installed and not told.database.belongs_to then
    found, err = rights.of_ours(pool, opts.job, opts.deadline)
    if not found then
      return nil, err
    end
    add_missing(told, found)
  end
  if told.database.installed and not told.database.belongs_to and #told.missing == 0 then
    found, err = pool:execute(LEFT, { opts.job or values.null }, with)
    if not found then
      return nil, err
    end
    for i, row in ipairs(found.rows) do
      told.left[i] = row.job
    end
  end
  local names, reference_names = {}, {}
  for i, one in ipairs(tables) do
    names[i] = one.sql
  end
  for i, one in ipairs(references) do
    reference_names[i] = one.sql
  end
  found, err = rights.of_tables(pool, names, reference_names, opts)
  if not found then
    return nil, err
  elseif add_missing(told, found) then
    return told
  end
  for _, one in ipairs(references) do
    found, err = pool:execute(REFERENCE, { one.sql }, with)
    if not found then
      return nil, err
    end
    told.references[one.name] = found.rows[1].found
  end
  for _, one in ipairs(tables) do
    found, err = pool:execute(TABLE, { one.sql, names, reference_names }, with)
    if not found then
      return nil, err
    end
    told.tables[one.name] = found.rows[1] and adopt(found.rows[1], tables) or false
  end
  return told
end

return facts
