--- What one database holds, as the server itself writes it: the definitions that `lunashard.schema.diff` compares.
-- All of it in one snapshot, with the same search path everywhere, so that equal things are equal texts. Left out are the
-- server's own schemas, `lunashard` (each shard's own), what belongs to extensions, owners and comments.
-- @module lunashard.schema.inventory

local inventory = {}

local OURS = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'lunashard', 'lunashard_catalog',"
  .. " 'lunashard_staging') "
  .. "AND ($1::text[] IS NULL OR n.nspname = ANY ($1))"

-- Not made by an extension.
local function free(class, oid)
  return ("NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = '%s'::regclass AND d.objid = %s AND d.deptype = 'e')"):format(
    class, oid)
end

local TABLE = "format('%I.%I', n.nspname, c.relname)"

-- Each gives `name` and `def`; what belongs to a table also `parent`, and what a mend needs more.
local QUERIES = {
  { "schema", "SELECT quote_ident(n.nspname) AS name, '' AS def FROM pg_namespace n WHERE " .. OURS .. " AND "
    .. free("pg_namespace", "n.oid") },
  { "extension", [[SELECT quote_ident(extname) AS name, extversion AS def FROM pg_extension
      WHERE $1::text[] IS NULL]] },
  { "type", [[SELECT t.oid::regtype::text AS name, 'ENUM (' || string_agg(quote_literal(e.enumlabel), ', '
        ORDER BY e.enumsortorder) || ')' AS def, array_agg(e.enumlabel::text ORDER BY e.enumsortorder) AS labels
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_enum e ON e.enumtypid = t.oid
     WHERE ]] .. OURS .. " AND " .. free("pg_type", "t.oid") .. " GROUP BY t.oid" },
  { "domain", [[SELECT t.oid::regtype::text AS name, format_type(t.typbasetype, t.typtypmod)
        || CASE WHEN t.typdefault IS NOT NULL THEN ' DEFAULT ' || t.typdefault ELSE '' END
        || CASE WHEN t.typnotnull THEN ' NOT NULL' ELSE '' END
        || coalesce((SELECT string_agg(format(' CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), '' ORDER BY k.conname)
             FROM pg_constraint k WHERE k.contypid = t.oid), '') AS def
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
     WHERE t.typtype = 'd' AND ]] .. OURS .. " AND " .. free("pg_type", "t.oid") },
  { "sequence", "SELECT " .. TABLE .. [[ AS name, format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s%s',
        format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart, s.seqcache,
        CASE WHEN s.seqcycle THEN ' CYCLE' ELSE ' NO CYCLE' END) AS def
      FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM pg_depend i WHERE i.classid = 'pg_class'::regclass
             AND i.objid = c.oid AND i.deptype = 'i')
       AND ]] .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "table", "SELECT " .. TABLE .. [[ AS name, concat(
        CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, 'TABLE',
        CASE WHEN c.relispartition THEN format(' PARTITION OF %s %s', (SELECT inhparent::regclass FROM pg_inherits
             WHERE inhrelid = c.oid), pg_get_expr(c.relpartbound, c.oid)) END,
        CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_get_partkeydef(c.oid) END,
        CASE WHEN NOT c.relispartition THEN (SELECT ' INHERITS (' || string_agg(inhparent::regclass::text, ', ' ORDER BY inhseqno)
             || ')' FROM pg_inherits WHERE inhrelid = c.oid) END,
        CASE WHEN c.relrowsecurity THEN ', ROW LEVEL SECURITY' END,
        CASE WHEN c.relforcerowsecurity THEN ', FORCE ROW LEVEL SECURITY' END,
        CASE WHEN c.relreplident <> 'd' THEN ', REPLICA IDENTITY ' || c.relreplident::text END,
        CASE WHEN c.reloptions IS NOT NULL THEN ' WITH (' || array_to_string(c.reloptions, ', ') || ')' END) AS def,
        c.relispartition AS partition, c.relkind = 'p' AS partitioned
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ]] .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "column", "SELECT " .. TABLE .. [[ AS parent, quote_ident(a.attname) AS name, a.attnum AS number,
        format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS not_null,
        (SELECT format('%I.%I', cn.nspname, co.collname) FROM pg_collation co JOIN pg_namespace cn ON cn.oid = co.collnamespace
          WHERE co.oid = a.attcollation AND a.attcollation <> t.typcollation) AS collation,
        pg_get_expr(d.adbin, d.adrelid) AS expression, a.attgenerated <> '' AS generated,
        CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END AS identity
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attislocal AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND ]]
    .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "constraint", "SELECT " .. TABLE .. [[ AS parent, quote_ident(k.conname) AS name, pg_get_constraintdef(k.oid) AS def,
        k.contype::text AS type
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conislocal AND k.conparentid = 0 AND ]] .. OURS .. " AND "
    .. free("pg_class", "c.oid") },
  { "index", "SELECT " .. TABLE .. [[ AS parent, format('%I.%I', n.nspname, x.relname) AS name,
        pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' (not valid)' END AS def,
        i.indisvalid AS valid, c.relkind = 'p' AS partitioned
      FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND NOT x.relispartition
       AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')) AND ]]
    .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "function", [[SELECT p.oid::regprocedure::text AS name, pg_get_functiondef(p.oid) AS def, p.prokind::text AS type
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE p.prokind IN ('f', 'p', 'w') AND ]] .. OURS .. " AND " .. free("pg_proc", "p.oid") },
  { "view", "SELECT " .. TABLE .. [[ AS name, pg_get_viewdef(c.oid) AS def, c.relkind = 'm' AS materialized
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND ]] .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "trigger", "SELECT " .. TABLE .. [[ AS parent, quote_ident(t.tgname) AS name, pg_get_triggerdef(t.oid)
        || CASE t.tgenabled WHEN 'O' THEN '' ELSE ' (enabled: ' || t.tgenabled::text || ')' END AS def, t.tgenabled = 'O' AS plain
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND ]] .. OURS .. " AND " .. free("pg_class", "c.oid") },
  { "policy", "SELECT " .. TABLE .. [[ AS parent, quote_ident(p.polname) AS name, concat(
        CASE WHEN p.polpermissive THEN 'AS PERMISSIVE' ELSE 'AS RESTRICTIVE' END, ' FOR ', CASE p.polcmd WHEN 'r' THEN 'SELECT'
          WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, ' TO ',
        (SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ' ORDER BY r)
           FROM unnest(p.polroles) r),
        ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid)
        || ')') AS def
      FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE ]] .. OURS },
  { "privilege", "SELECT " .. TABLE .. [[ AS parent, g.privilege_type || ' to '
        || CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS name,
        CASE WHEN g.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END AS def,
        g.privilege_type AS type, c.relkind = 'S' AS sequence,
        CASE WHEN g.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(g.grantee)) END AS grantee
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) g
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND c.relpersistence <> 't' AND g.grantee <> c.relowner AND ]] .. OURS
    .. " AND " .. free("pg_class", "c.oid") },
}

local function column_def(row)
  local parts = { row.type }
  parts[#parts + 1] = row.collation and "COLLATE " .. row.collation or nil
  if row.identity then
    parts[#parts + 1] = ("GENERATED %s AS IDENTITY"):format(row.identity)
  elseif row.generated then
    parts[#parts + 1] = ("GENERATED ALWAYS AS (%s) STORED"):format(row.expression)
  elseif row.expression then
    parts[#parts + 1] = "DEFAULT " .. row.expression
  end
  parts[#parts + 1] = row.not_null and "NOT NULL" or nil
  return table.concat(parts, " ")
end

local function add_row(found, kind, row)
  row.kind = kind
  if kind == "column" then
    row.def = column_def(row)
  end
  local id = kind .. "\0" .. (row.parent or "") .. "\0" .. row.name
  found.by_id[id] = row
  found.list[#found.list + 1] = row
  row.id = id
end

local function read_all(lease, schemas, how)
  local ok, err = lease:execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", nil, how)
  if ok then
    ok, err = lease:execute("SET LOCAL search_path = pg_catalog", nil, how)
  end
  if not ok then
    return nil, err
  end
  local found = { by_id = {}, list = {} }
  for _, query in ipairs(QUERIES) do
    local result
    result, err = lease:execute(query[2], { schemas or require("lunashard.values").null }, how)
    if not result then
      return nil, err
    end
    for _, row in ipairs(result.rows) do
      add_row(found, query[1], row)
    end
  end
  return found
end

--- Read what a database holds. Yields.
-- @tparam Lease lease not in a transaction; it is left in one, which ends when it is released
-- @tparam[opt] table opts `schemas`: names of the schemas to look at [all]; `deadline`
-- @treturn[1] table `list` of objects, and the same `by_id`; each has `id`, `kind`, `name`, `def`, and `parent`, the table
--   that it is part of
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function inventory.read(lease, opts)
  return read_all(lease, opts.schemas, { deadline = opts.deadline })
end

return inventory
