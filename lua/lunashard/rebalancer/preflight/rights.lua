--- Which rights the user of the cluster file lacks, as the statements that grant them.
-- Rights of tables are told to their owners alone, who may have given some of their own away: whoever is no owner cannot
-- set triggers, and needs nothing but that role. Who only plans has to read them, and no more.
-- @module lunashard.rebalancer.preflight.rights
-- @local

local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local parallel = require("lunashard.parallel")
local problems = require("lunashard.rebalancer.preflight.problems")

local rights = {}

-- $1 the tables, $2 the reference tables, $3: does the shard join, and get the rows of these? $4: does any? Tables are looked
-- up by hand, for to_regclass raises for a schema that may not be used, or looks past it.
local TABLES = [[
  WITH path AS (
    SELECT replace(btrim(s.name, ' "'), '$user', current_user) AS name, s.n
      FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY AS s(name, n)),
  named AS (
    SELECT t.sql, parse_ident(t.sql) AS parts, t.sql = ANY ($2::text[]) AS shared
      FROM unnest($1::text[] || $2::text[]) AS t(sql)),
  wanted AS (
    SELECT DISTINCT ON (w.sql) w.sql, w.shared, n.nspname AS schema, c.relname AS name, c.oid AS relation,
           pg_has_role(c.relowner, 'USAGE') AS owned, has_schema_privilege(n.oid, 'USAGE') AS seen
      FROM named w JOIN pg_catalog.pg_class c ON c.relname = w.parts[cardinality(w.parts)]
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN path p ON p.name = n.nspname
     WHERE CASE WHEN cardinality(w.parts) = 1 THEN p.n IS NOT NULL ELSE n.nspname = w.parts[1] END
     ORDER BY w.sql, seen DESC, p.n),
  kinds(kind, of_group, of_fresh) AS (VALUES ('SELECT', true, true), ('INSERT', true, true), ('UPDATE', true, false),
    ('DELETE', true, true), ('TRIGGER', true, false))
  SELECT DISTINCT 'hidden' AS kind, format('GRANT USAGE ON SCHEMA %I TO %I', w.schema, current_user) AS statement
    FROM wanted w WHERE NOT w.seen
  UNION ALL
  SELECT CASE WHEN bool_or(k.kind = 'SELECT') THEN 'reading' ELSE 'moving' END,
         format('GRANT %s ON %I.%I TO %I', string_agg(k.kind, ', '), w.schema, w.name, current_user)
    FROM wanted w JOIN kinds k ON CASE WHEN k.kind = 'SELECT' THEN NOT w.shared OR $4
           WHEN w.shared THEN $3 AND k.of_fresh ELSE w.owned AND k.of_group END
   WHERE w.seen AND NOT has_table_privilege(w.relation, k.kind) GROUP BY w.sql, w.schema, w.name
  UNION ALL
  SELECT DISTINCT 'moving', format('GRANT SELECT, UPDATE ON SEQUENCE %I.%I TO %I', n.nspname, q.relname, current_user)
    FROM wanted w JOIN pg_catalog.pg_depend d
      ON d.classid = 'pg_catalog.pg_class'::regclass AND d.refobjid = w.relation AND d.deptype IN ('a', 'i')
      OR d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.refobjid <> w.relation
     AND d.objid IN (SELECT v.oid FROM pg_catalog.pg_attrdef v WHERE v.adrelid = w.relation)
    JOIN pg_catalog.pg_class q ON q.relkind = 'S' AND q.oid = CASE d.refobjid WHEN w.relation THEN d.objid ELSE d.refobjid END
    JOIN pg_catalog.pg_namespace n ON n.oid = q.relnamespace
   WHERE w.owned AND w.seen AND (NOT w.shared OR $4)
     AND NOT (has_sequence_privilege(q.oid, 'SELECT') AND has_sequence_privilege(q.oid, 'UPDATE'))
  UNION ALL
  SELECT 'moving', format('GRANT CREATE ON DATABASE %I TO %I', current_database(), current_user)
   WHERE $3 AND NOT has_database_privilege(current_database(), 'CREATE') AND (SELECT count(*) FROM pg_catalog.pg_namespace
     WHERE nspname IN ('lunashard', 'lunashard_staging')) < 2
  ORDER BY statement]]

-- $1 our schemas, $2 what the things of a job are called, if of one.
local OURS = [[
  WITH ours AS (
    SELECT oid, nspname AS name, nspname = 'lunashard_staging' AS staging FROM pg_catalog.pg_namespace
     WHERE nspname = ANY ($1) AND pg_has_role(nspowner, 'USAGE')),
  missing(text) AS (
    SELECT format('USAGE%s ON SCHEMA %I', CASE WHEN o.staging THEN ', CREATE' END, o.name) FROM ours o
     WHERE NOT (has_schema_privilege(o.oid, 'USAGE') AND (NOT o.staging OR has_schema_privilege(o.oid, 'CREATE')))
    UNION SELECT 'SELECT, INSERT, UPDATE, DELETE ON ' || string_agg(DISTINCT format('%I.%I', o.name, c.relname), ', ')
      FROM ours o JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid AND c.relkind = 'r'
     CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) AS k(kind)
     WHERE NOT o.staging AND c.relname <> 'schema_step' AND NOT has_table_privilege(c.oid, k.kind)
    HAVING count(*) > 0
    UNION SELECT format('SELECT, UPDATE ON SEQUENCE %I.%I', o.name, c.relname)
      FROM ours o JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid AND c.relkind = 'S'
     CROSS JOIN unnest('{SELECT,UPDATE}'::text[]) AS k(kind)
     WHERE NOT o.staging AND NOT has_sequence_privilege(c.oid, k.kind)
    UNION SELECT 'EXECUTE ON FUNCTION ' || string_agg(f.oid::regprocedure::text, ', ' ORDER BY f.oid::regprocedure::text)
      FROM ours o JOIN pg_catalog.pg_proc f ON f.pronamespace = o.oid
     WHERE NOT o.staging AND NOT has_function_privilege(f.oid, 'EXECUTE')
    HAVING count(*) > 0
    UNION SELECT format('%I', pg_get_userbyid(c.relowner))
      FROM ours o JOIN pg_catalog.pg_class c ON c.relnamespace = o.oid AND c.relkind = 'r'
     WHERE o.staging AND c.relname ~ $2 AND NOT pg_has_role(c.relowner, 'USAGE'))
  SELECT format('GRANT %s TO %I', text, current_user) AS statement FROM missing ORDER BY 1]]

local SHARD, CATALOG = { "lunashard", "lunashard_staging" }, { "lunashard_catalog" }

--- The message of a right that is missing.
-- @string statement that grants it
-- @treturn string
function rights.message(statement)
  return "a right is missing: " .. statement
end

--- What is missing for tables. Yields.
-- @tparam Pool pool
-- @tparam {string,...} list quoted names of the tables whose rows move
-- @tparam {string,...} references those of the reference tables
-- @tparam table opts `fresh`: does the shard join, and get the rows of these? `any_fresh`: does any? `deadline`
-- @treturn[1] {table,...} `kind` (`hidden`: the tables of a schema cannot be looked at at all, `reading`, `moving`), `statement`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function rights.of_tables(pool, list, references, opts)
  local found, err = pool:execute(TABLES, { list, references, opts.fresh or false, opts.any_fresh or false },
    { deadline = opts.deadline })
  return found and found.rows, err
end

--- What is missing for our own schemas, where their owner's role is the user's. Yields.
-- @tparam Pool pool
-- @tparam ?number job
-- @tparam ?number deadline
-- @treturn[1] {table,...} `statement`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function rights.of_ours(pool, job, deadline)
  local found, err = pool:execute(OURS, { SHARD, job and names.pattern(job) or "^$" }, { deadline = deadline })
  return found and found.rows, err
end

local OWNER = [[
  SELECT current_user AS user, pg_get_userbyid(n.nspowner) AS owner, pg_has_role(n.nspowner, 'USAGE') AS may
    FROM pg_catalog.pg_namespace n WHERE n.nspname = 'lunashard_catalog']]

--- May this user write jobs down? Yields.
-- @tparam table catalog
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `AUTH`
function rights.of_catalog(catalog, deadline)
  local found, err = catalog:execute(OWNER, nil, deadline)
  local row = found and found.rows[1]
  if row and not row.may then
    return nil, errors.new("AUTH", { message = ('the catalog belongs to %s, and jobs are written there: GRANT "%s" TO "%s"')
      :format(row.owner, row.owner, row.user) })
  end
  local missing = found
  if found then
    missing, err = catalog:execute(OURS, { CATALOG, "^$" }, deadline)
  end
  if not missing then
    return nil, err
  end
  local list = {}
  for i, one in ipairs(missing.rows) do
    list[i] = one.statement
  end
  return #list == 0 or nil, #list > 0 and errors.new("AUTH", { message = ("rights are missing in the catalog: %s"):format(
    table.concat(list, "; ")) }) or nil
end

--- May the rows of tables be read, on all shards? Yields.
-- @tparam {table,...} members of the manager
-- @tparam {table,...} list of tables, each with its `sql`
-- @tparam ?number deadline
-- @treturn[1] boolean true, also when a shard cannot be asked: what follows says why
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with `problems`, see `lunashard.rebalancer.preflight.check`
function rights.check_reading(members, list, deadline)
  local quoted, list_of = {}, {}
  for i, one in ipairs(list) do
    quoted[i] = one.sql
  end
  local done = parallel.each(members, function(member)
    return rights.of_tables(member.primary.pool, quoted, {}, { deadline = deadline })
  end)
  for i, member in ipairs(members) do
    for _, one in ipairs(done.results[i] or {}) do
      if one.kind ~= "moving" then
        list_of[#list_of + 1] = { shard_id = member.shard_id, message = rights.message(one.statement) }
      end
    end
  end
  return #list_of == 0 or nil, #list_of > 0 and problems.refusal(list_of) or nil
end

return rights
