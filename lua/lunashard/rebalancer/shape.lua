--- The tables of a group as a shard has them: columns, keys, who refers to whom.
-- @module lunashard.rebalancer.shape
-- @local

local errors = require("lunashard.errors")
local quote_ident = require("lunashard.strategy.placement").quote_ident
local statement = require("lunashard.router.statement")

local shape = {}

local TABLES = [[
  SELECT u.n, c.oid::bigint AS oid, c.relkind::text AS kind, s.nspname AS schema, c.relname AS relation,
    (SELECT json_agg(json_build_object('name', a.attname, 'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'generated', a.attgenerated <> '', 'fixed', a.attidentity = 'a') ORDER BY a.attnum)
       FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
    (SELECT json_agg(a.attname ORDER BY k.n)
       FROM pg_catalog.pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, n)
       JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      WHERE i.indrelid = c.oid AND i.indisprimary AND k.n <= i.indnkeyatts) AS key,
    (SELECT json_agg(json_build_object('name', quote_ident(n.nspname) || '.' || quote_ident(q.relname),
        'rises', e.seqincrement > 0) ORDER BY w.attnum, q.relname)
       FROM (SELECT d.objid AS sequence, d.refobjsubid AS attnum FROM pg_catalog.pg_depend d
              WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.deptype IN ('a', 'i')
             UNION SELECT d.refobjid, v.adnum FROM pg_catalog.pg_attrdef v JOIN pg_catalog.pg_depend d ON d.objid = v.oid
              WHERE d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
                AND v.adrelid = c.oid) AS w
       JOIN pg_catalog.pg_class q ON q.oid = w.sequence AND q.relkind = 'S'
       JOIN pg_catalog.pg_sequence e ON e.seqrelid = q.oid JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace) AS sequences
  FROM unnest($1::text[]) WITH ORDINALITY AS u(name, n)
  LEFT JOIN pg_catalog.pg_class c ON c.oid = to_regclass(u.name)
  LEFT JOIN pg_catalog.pg_namespace s ON s.oid = c.relnamespace
  ORDER BY u.n]]

-- Those that must be kept to at any moment: others wait for the end of a transaction.
local REFERENCES = [[
  SELECT DISTINCT f.conrelid::bigint AS child, f.confrelid::bigint AS parent FROM pg_catalog.pg_constraint f
   WHERE f.contype = 'f' AND f.conparentid = 0 AND f.conrelid <> f.confrelid
     AND NOT (f.condeferrable AND f.confdeltype = 'a')
     AND f.conrelid = ANY ($1::bigint[]::oid[]) AND f.confrelid = ANY ($1::bigint[]::oid[])]]

local function refuse(member, text, ...)
  return nil, errors.new("INVALID", { message = text:format(...), shard_id = member.shard_id })
end

-- Parents before children. Pre-flight refuses circles of references that cannot wait for the end of a transaction.
local function in_order(tables, references)
  local by_oid, ordered, state = {}, {}, {}
  for _, one in ipairs(tables) do
    by_oid[one.oid], one.parents = one, {}
  end
  for _, reference in ipairs(references) do
    table.insert(by_oid[reference.child].parents, by_oid[reference.parent])
  end
  local function visit(one)
    if not state[one] then
      state[one] = true
      for _, parent in ipairs(one.parents) do
        visit(parent)
      end
      ordered[#ordered + 1] = one
    end
  end
  for _, one in ipairs(tables) do
    visit(one)
  end
  return ordered
end

local function adopt(found, declared)
  local one = {
    n = found.n, name = declared.name, shard_key = declared.shard_key, oid = found.oid, kind = found.kind,
    qualified = quote_ident(found.schema) .. "." .. quote_ident(found.relation),
    columns = {}, types = {}, written = {}, changeable = {}, key = found.key, key_types = {},
    sequences = found.sequences or {},
  }
  local types, in_key = {}, {}
  for _, name in ipairs(one.key) do
    in_key[name] = true
  end
  for _, column in ipairs(found.columns) do
    types[column.name] = column.type
    one.types[#one.types + 1] = column.type .. (column.generated and " generated" or "")
    one.columns[#one.columns + 1] = column.name
    one.written[#one.written + 1] = not column.generated and column.name or nil
    one.changeable[#one.changeable + 1] = not (column.generated or column.fixed or in_key[column.name]) and column.name or nil
  end
  one.changeable[1] = one.changeable[1] or one.key[1] -- an update has to change something
  for i, name in ipairs(one.key) do
    one.key_types[i] = types[name]
  end
  return one
end

--- Read the tables of a group. Yields.
-- @tparam table member the shard
-- @tparam {table,...} declared each `name` and `shard_key`, a list of columns; ordered by name
-- @tparam ?number deadline
-- @tparam ?boolean lenient a table that is not there is told as `gone`
-- @treturn[1] {table,...} parents before children; each has its number `n` (by name), `qualified`, `columns` and
--   their `types`, `written` (those that are not generated), `changeable` (those of them that an UPDATE may set, but for the
--   key's), `key` and `key_types` (the primary key's), `shard_key`, `sequences`, `oid`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for a table that is not there or has no primary key
function shape.read(member, declared, deadline, lenient)
  local wanted = {}
  for i, one in ipairs(declared) do
    wanted[i] = statement.quote_table(one.name)
  end
  local opts = { deadline = deadline, decode_json = true, read_only = true }
  local found, err = member.primary.pool:execute(TABLES, { wanted }, opts)
  if not found then
    return nil, err
  end
  local tables, oids = {}, {}
  for i, row in ipairs(found.rows) do
    local is_usable = row.oid and row.key
    if not is_usable and lenient then
      tables[i] = { n = row.n, name = declared[i].name, gone = true, oid = 0, columns = {}, types = {}, key = {} }
    elseif not row.oid then
      return refuse(member, "table %s is not there", declared[i].name)
    elseif not row.key then
      return refuse(member, "table %s has no primary key: its rows cannot be told apart", declared[i].name)
    else
      tables[i] = adopt(row, declared[i])
      oids[#oids + 1] = row.oid
    end
  end
  local references
  references, err = member.primary.pool:execute(REFERENCES, { oids }, opts)
  if not references then
    return nil, err
  end
  return in_order(tables, references.rows)
end

local FINGERPRINT = [[
  SELECT md5(string_agg(f.text, E'\n' ORDER BY f.text)) AS fingerprint FROM (
    SELECT concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attgenerated,
        a.attidentity, a.attcollation)
      FROM pg_attribute a WHERE a.attrelid = ANY ($1::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL SELECT concat_ws(' ', c.conrelid, c.conname, pg_get_constraintdef(c.oid))
      FROM pg_constraint c WHERE c.conrelid = ANY ($1::bigint[]::oid[])
    UNION ALL SELECT concat_ws(' ', c.oid, c.relkind, c.relrowsecurity, c.relforcerowsecurity)
      FROM pg_class c WHERE c.oid = ANY ($1::bigint[]::oid[])
    UNION ALL SELECT concat_ws(' ', o.oid, p.relid::oid)
      FROM unnest($1::bigint[]::oid[]) AS o(oid) CROSS JOIN pg_partition_tree(o.oid) AS p) AS f(text)]]

--- What changes when the definition of one of the tables does. Yields.
-- @tparam Lease lease of a mover's session
-- @tparam {table,...} tables from @{read}
-- @tparam ?number deadline
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function shape.fingerprint(lease, tables, deadline)
  local oids = {}
  for i, one in ipairs(tables) do
    oids[i] = one.oid
  end
  table.sort(oids)
  local found, err = lease:execute(FINGERPRINT, { oids }, { deadline = deadline })
  if not found then
    return nil, err
  end
  return found.rows[1].fingerprint
end

return shape
