--- The query by which a catalog asks a database for names: one for any mix of kinds.
-- @module lunashard.sql.question

local question = {}

-- What hints at a change of session state in the source of a function: set_config, SET in its forms that are not
-- UPDATE's, RESET, advisory locks, temporary tables, LISTEN, and SQL that is put together at run time.
local SUSPECT = [[$re$set_config|setseed|advisory|dblink|\mpg_temp]]
  .. [[|\m(temp|temporary|listen|unlisten|discard|execute)\M|\mset\s+(local|session)\M|\mset\s+[\w.]+\s+to\M]]
  .. [[|(;|\mbegin|\mthen|\melse|\mloop)\s*(re)?set\s$re$]]

-- Parts by kind. Each takes one list of names, and gives `kind schema name detail volatile takes_row texts`.
-- Names match in every schema: which one a search path would find is not known here.
local PARTS = {}

-- Detail: the extension that has it. One whose source hints at session state is not believed to be what it is declared
-- as. An aggregate is never declared volatile, the functions that it is made of may be.
-- Defaults of arguments are evaluated by the statement that calls.
PARTS.functions = [[
SELECT DISTINCT 'functions' AS kind, n.nspname::text AS schema, p.proname::text AS name, e.extname::text AS detail,
  p.provolatile = 'v' OR l.lanname NOT IN ('internal', 'c') AND p.prosrc ~* ]] .. SUSPECT .. [[ OR p.prokind = 'a' AND EXISTS (
    SELECT FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc s ON s.oid IN (a.aggtransfn, a.aggfinalfn,
      a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
    WHERE a.aggfnoid = p.oid AND s.provolatile = 'v') AS volatile,
  p.pronargs > 0 AND (
    SELECT t.typtype IN ('c', 'd', 'p') FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0]) AS takes_row,
  CASE WHEN p.proargdefaults IS NOT NULL THEN
    ARRAY[coalesce('SELECT ' || pg_catalog.pg_get_expr(p.proargdefaults, 0), '')]
  END AS texts
FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE p.proname = ANY ($names::name[])]]

PARTS.operators = [[
SELECT DISTINCT 'operators' AS kind, n.nspname::text AS schema, o.oprname::text AS name, NULL::text AS detail,
  p.provolatile = 'v' AS volatile, false AS takes_row, NULL::text[] AS texts
FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprname = ANY ($names::name[])]]

local WANTED = [[
WITH RECURSIVE wanted AS MATERIALIZED (
  SELECT c.oid, c.relname::text AS name, n.nspname::text AS schema, c.relkind, c.relrowsecurity
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relname = ANY ($names::name[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
),]]

-- What a read gets to. Detail: what it is, partitions and inheriting tables included.
PARTS.relations = WANTED .. [[
kin (root, member) AS (
  SELECT oid, oid FROM wanted
  UNION
  SELECT k.root, i.inhrelid FROM kin k JOIN pg_catalog.pg_inherits i ON i.inhparent = k.member
), traits AS (
  SELECT k.root, bool_or(c.relpersistence = 't') AS is_temporary, bool_or(c.relkind = 'f') AS is_foreign
  FROM kin k JOIN pg_catalog.pg_class c ON c.oid = k.member GROUP BY k.root
)
SELECT 'relations' AS kind, w.schema, w.name,
  CASE
    WHEN t.is_temporary THEN 'temporary table'
    WHEN t.is_foreign THEN 'foreign table'
    WHEN w.relkind = 'v' THEN 'view'
    ELSE 'table'
  END AS detail,
  false AS volatile, false AS takes_row,
  CASE
    WHEN w.relkind = 'v' THEN ARRAY[coalesce(pg_catalog.pg_get_viewdef(w.oid), '')]
    WHEN w.relrowsecurity THEN ARRAY(
      SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid), '')
      FROM pg_catalog.pg_policy p WHERE p.polrelid = w.oid AND p.polqual IS NOT NULL)
  END AS texts
FROM wanted w LEFT JOIN traits t ON t.root = w.oid]]

-- What a write sets off: in partitions, inheriting tables, and those that foreign keys change along. Detail: why it
-- must run alone: a rule, a trigger, or that it is no table. Partitions take their defaults from above, and what they
-- only inherit is seen there.
PARTS.targets = WANTED .. [[
edges AS MATERIALIZED (
  SELECT inhparent AS parent, inhrelid AS child FROM pg_catalog.pg_inherits
  UNION ALL
  SELECT confrelid, conrelid FROM pg_catalog.pg_constraint
  WHERE contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
), reach (root, member) AS (
  SELECT oid, oid FROM wanted
  UNION
  SELECT r.root, e.child FROM reach r JOIN edges e ON e.parent = r.member
), uppermost AS (
  SELECT root, member FROM reach r
  WHERE member = root OR NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhrelid = r.member)
), triggers AS (
  SELECT r.root, t.oid, t.tgname, t.tgqual, t.tgfoid
  FROM reach r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.member
  WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
), obstacles AS (
  SELECT o.root, min(o.name) AS name
  FROM (
    SELECT r.root, 'rule ' || rw.rulename AS name
    FROM reach r JOIN pg_catalog.pg_rewrite rw ON rw.ev_class = r.member
    WHERE rw.ev_type <> '1'
    UNION ALL
    SELECT t.root, 'trigger ' || t.tgname
    FROM triggers t
      JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
      JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE l.lanname NOT IN ('internal', 'plpgsql') OR p.prosrc ~* ]] .. SUSPECT .. [[
  ) o GROUP BY o.root
), expressions AS (
  SELECT x.root, array_agg(DISTINCT coalesce('SELECT ' || x.text, '')) AS texts
  FROM (
    SELECT w.oid AS root, pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) AS text
    FROM wanted w JOIN pg_catalog.pg_policy p ON p.polrelid = w.oid
    WHERE w.relrowsecurity AND p.polwithcheck IS NOT NULL
    UNION ALL
    SELECT u.root, pg_catalog.pg_get_expr(a.adbin, a.adrelid)
    FROM uppermost u JOIN pg_catalog.pg_attrdef a ON a.adrelid = u.member
    UNION ALL
    SELECT u.root, pg_catalog.pg_get_expr(t.typdefaultbin, 0)
    FROM uppermost u JOIN pg_catalog.pg_attribute a ON a.attrelid = u.member
      JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE t.typdefaultbin IS NOT NULL
    UNION ALL
    SELECT t.root, substring(pg_catalog.pg_get_triggerdef(t.oid) FROM 'WHEN (\(.*\)) EXECUTE FUNCTION')
    FROM triggers t WHERE t.tgqual IS NOT NULL
    UNION ALL
    SELECT r.root, pg_catalog.pg_get_expr(c.conbin, c.conrelid)
    FROM reach r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.member
    WHERE c.contype = 'c' AND (c.conislocal OR r.member = r.root)
  ) x GROUP BY x.root
)
SELECT 'targets' AS kind, w.schema, w.name,
  CASE WHEN w.relkind NOT IN ('r', 'p') THEN 'is not a table' ELSE 'has ' || o.name END AS detail,
  false AS volatile, false AS takes_row, x.texts
FROM wanted w LEFT JOIN obstacles o ON o.root = w.oid LEFT JOIN expressions x ON x.root = w.oid]]

-- What runs without being named: casts, input and output of types, support of indexes (detail: a volatile function
-- among them), and checks of domains. Its only name is the empty one.
PARTS.implicit = [[
SELECT 'implicit' AS kind, NULL::text AS schema, asked.name, (
    SELECT min(p.proname::text) FROM pg_catalog.pg_proc p
    WHERE p.provolatile = 'v' AND p.oid IN (
      SELECT castfunc FROM pg_catalog.pg_cast
      UNION ALL
      SELECT unnest(ARRAY[typinput::oid, typoutput, typreceive, typsend, typmodin, typmodout]) FROM pg_catalog.pg_type
      UNION ALL
      SELECT amproc FROM pg_catalog.pg_amproc
      UNION ALL
      SELECT o.oprcode FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr)) AS detail,
  false AS volatile, false AS takes_row, ARRAY(
    SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(c.conbin, 0), '')
    FROM pg_catalog.pg_constraint c WHERE c.contypid <> 0 AND c.contype = 'c') AS texts
FROM unnest($names::text[]) AS asked (name)]]

--- All kinds of names.
question.kinds = { "functions", "operators", "relations", "targets", "implicit" }

--- A query for names.
-- @tparam table wanted kind -> set of names, kinds without names among them
-- @treturn string its text, the same for the same kinds
-- @treturn table its parameters
function question.compose(wanted)
  local parts, params = {}, {}
  for _, kind in ipairs(question.kinds) do
    if wanted[kind] and next(wanted[kind]) ~= nil then
      local names = {}
      for name in pairs(wanted[kind]) do
        names[#names + 1] = name
      end
      params[#params + 1] = names
      parts[#parts + 1] = "(" .. PARTS[kind]:gsub("%$names", "$" .. #params) .. ")"
    end
  end
  return table.concat(parts, "\nUNION ALL\n"), params
end

return question
