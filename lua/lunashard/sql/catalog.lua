--- What one database says about the functions, operators and relations that statements name.
-- Facts are learned when they are first asked for, all unknown names in one query, and asked for anew, again in one
-- query, when they are old. One query runs at a time.
-- @module lunashard.sql.catalog

local errors = require("lunashard.errors")
local task = require("lunashard.task")

local catalog = {}

local TTL = 60
local MAX_NAMES = 20000
local MAX_REFUSALS = 3

-- What hints at a change of session state in the source of a trigger: set_config, SET in its forms that are not
-- UPDATE's, advisory locks, temporary tables, LISTEN, cursors that stay, and SQL put together at run time.
local SUSPECT = [[set_config|advisory|\mtemp(orary)?\M|\mpg_temp|\m(un)?listen\M|\mdiscard\M|\mexecute\M|setseed|dblink]]
  .. [[|\mset\s+(local|session)\M|\mset\s+[\w.]+\s+to\M|(;|\mbegin|\mthen|\melse|\mloop)\s*(re)?set\s]]

-- Names match in every schema: which one a search path would find is not known here. `reach` is what a write can get
-- to without naming it: partitions, inheriting tables, and those that foreign keys change along.
local QUERY = [[
WITH RECURSIVE wanted AS (
  SELECT c.oid, c.relname, n.nspname, c.relkind, c.relrowsecurity
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relname = ANY ($3::name[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
), kin (root, member) AS (
  SELECT oid, oid FROM wanted
  UNION
  SELECT k.root, i.inhrelid FROM kin k JOIN pg_catalog.pg_inherits i ON i.inhparent = k.member
), reach (root, member) AS (
  SELECT oid, oid FROM wanted
  UNION
  SELECT r.root, x.oid
  FROM reach r CROSS JOIN LATERAL (
    SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = r.member
    UNION ALL
    SELECT conrelid FROM pg_catalog.pg_constraint
    WHERE contype = 'f' AND confrelid = r.member AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))
  ) x (oid)
)
SELECT DISTINCT 'functions' AS kind, n.nspname::text AS schema, p.proname::text AS name, e.extname::text AS detail,
  p.provolatile = 'v' OR EXISTS (
    SELECT FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc s ON s.oid IN (a.aggtransfn, a.aggfinalfn,
      a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
    WHERE a.aggfnoid = p.oid AND s.provolatile = 'v') AS volatile,
  p.pronargs > 0 AND (
    SELECT t.typtype IN ('c', 'd', 'p') FROM pg_catalog.pg_type t WHERE t.oid = p.proargtypes[0]) AS takes_row,
  NULL::text AS obstacle, NULL::text[] AS reads, NULL::text[] AS writes
FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid
WHERE p.proname = ANY ($1::name[])
UNION ALL
SELECT DISTINCT 'operators', n.nspname::text, o.oprname::text, NULL, p.provolatile = 'v', false, NULL,
  NULL::text[], NULL::text[]
FROM pg_catalog.pg_operator o
  JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
  JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode
WHERE o.oprname = ANY ($2::name[])
UNION ALL
SELECT 'relations', w.nspname::text, w.relname::text,
  CASE
    WHEN EXISTS (SELECT FROM kin k JOIN pg_catalog.pg_class c ON c.oid = k.member
                 WHERE k.root = w.oid AND c.relpersistence = 't') THEN 'temporary table'
    WHEN EXISTS (SELECT FROM kin k JOIN pg_catalog.pg_class c ON c.oid = k.member
                 WHERE k.root = w.oid AND c.relkind = 'f') THEN 'foreign table'
    WHEN w.relkind = 'v' THEN 'view'
    ELSE 'table'
  END,
  false, false,
  coalesce(
    (SELECT pg_catalog.format('rule %s', rw.rulename)
     FROM reach r JOIN pg_catalog.pg_rewrite rw ON rw.ev_class = r.member
     WHERE r.root = w.oid AND rw.ev_type <> '1' LIMIT 1),
    (SELECT pg_catalog.format('trigger %s', t.tgname)
     FROM reach r JOIN pg_catalog.pg_trigger t ON t.tgrelid = r.member AND NOT t.tgisinternal AND t.tgenabled <> 'D'
       JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_language l ON l.oid = p.prolang
     WHERE r.root = w.oid AND (l.lanname NOT IN ('internal', 'plpgsql') OR p.prosrc ~* $5) LIMIT 1)),
  CASE
    WHEN w.relkind = 'v' THEN ARRAY[coalesce(pg_catalog.pg_get_viewdef(w.oid), '')]
    WHEN w.relrowsecurity THEN ARRAY(
      SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(p.polqual, p.polrelid), '')
      FROM pg_catalog.pg_policy p WHERE p.polrelid = w.oid AND p.polqual IS NOT NULL)
  END,
  ARRAY(
    SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
    FROM pg_catalog.pg_policy p WHERE p.polrelid = w.oid AND p.polwithcheck IS NOT NULL
    UNION
    SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(a.adbin, a.adrelid), '')
    FROM reach r JOIN pg_catalog.pg_attrdef a ON a.adrelid = r.member WHERE r.root = w.oid
    UNION
    SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(c.conbin, c.conrelid), '')
    FROM reach r JOIN pg_catalog.pg_constraint c ON c.conrelid = r.member AND c.contype = 'c' WHERE r.root = w.oid)
FROM wanted w
UNION ALL
SELECT 'implicit', NULL, '', (
    SELECT min(p.proname::text) FROM pg_catalog.pg_proc p
    WHERE p.provolatile = 'v' AND p.oid IN (
      SELECT castfunc FROM pg_catalog.pg_cast
      UNION ALL
      SELECT unnest(ARRAY[typinput::oid, typoutput, typreceive, typsend, typmodin, typmodout]) FROM pg_catalog.pg_type
      UNION ALL
      SELECT amproc FROM pg_catalog.pg_amproc
      UNION ALL
      SELECT o.oprcode FROM pg_catalog.pg_amop a JOIN pg_catalog.pg_operator o ON o.oid = a.amopopr)),
  false, false, NULL, ARRAY(
    SELECT coalesce('SELECT ' || pg_catalog.pg_get_expr(c.conbin, 0), '')
    FROM pg_catalog.pg_constraint c WHERE c.contypid <> 0 AND c.contype = 'c'),
  NULL
WHERE $4]]

local Catalog = {}
Catalog.__index = Catalog

local function no_facts()
  return { functions = {}, operators = {}, relations = {}, implicit = {} }
end

local function drop(self)
  self.generation = self.generation + 1
  self.facts = no_facts()
  self.n_names = 0
  self.refusals = 0
  self.expires = math.huge
end

--- What is known of one database: nothing yet.
-- Its field `expires` is the time, on its clock, from which on a `refresh` is due.
-- @tparam function run `run(sql, params)` runs a read on that database, and gives its rows or `nil, err`
-- @tparam[opt] table options `clock` [`lunashard.now`], a function; `ttl` [60], seconds that a fact is believed;
--   `changed`, called when what was concluded from facts may be wrong from now on
-- @treturn Catalog
function catalog.new(run, options)
  options = options or {}
  local self = setmetatable({
    run = run,
    clock = options.clock or task.now,
    ttl = options.ttl or TTL,
    changed = options.changed or function() end,
    busy = false,
    generation = 0,
  }, Catalog)
  drop(self)
  return self
end

--- Forget everything, what is being asked right now included: for after a change of the schema.
function Catalog:forget()
  drop(self)
  self.changed()
end

local function keys(names)
  local list = {}
  for name in pairs(names or {}) do
    list[#list + 1] = name
  end
  return list
end

-- Ask for names: kind -> set of names. Yields. Gives facts: for each name a list, perhaps an empty one.
local function ask(self, wanted)
  local generation = self.generation
  self.busy = true
  local ok, rows, err = pcall(self.run, QUERY, {
    keys(wanted.functions), keys(wanted.operators), keys(wanted.relations),
    next(wanted.implicit or {}) ~= nil, SUSPECT,
  })
  self.busy = false
  if not ok then
    error(rows, 0)
  elseif not rows then
    return nil, err
  elseif generation ~= self.generation then
    return nil, errors.new("CANCELED", { message = "what was asked has been forgotten meanwhile" })
  end
  local facts = no_facts()
  for kind, names in pairs(wanted) do
    for name in pairs(names) do
      facts[kind][name] = {}
    end
  end
  for _, row in ipairs(rows) do
    local list = facts[row.kind][row.name]
    list[#list + 1] = row
  end
  return facts
end

local function as_text(fact)
  return table.concat({
    fact.schema or "", fact.detail or "", tostring(fact.volatile), tostring(fact.takes_row), fact.obstacle or "",
    table.concat(fact.reads or {}, "\1"), table.concat(fact.writes or {}, "\1"),
  }, "\0")
end

local function same_list(one, other)
  if #one ~= #other then
    return false
  end
  local texts = {}
  for _, fact in ipairs(one) do
    texts[as_text(fact)] = true
  end
  for _, fact in ipairs(other) do
    if not texts[as_text(fact)] then
      return false
    end
  end
  return true
end

local function same_facts(old, new)
  for kind, names in pairs(old) do
    for name, list in pairs(names) do
      if not same_list(list, new[kind][name]) then
        return false
      end
    end
  end
  return true
end

--- Ask anew for all that is known, when `expires` has come. Yields. The old facts serve until the new ones are
-- there; when these cannot be had several times in a row, everything is forgotten.
function Catalog:refresh()
  if self.busy or self.clock() < self.expires then
    return
  elseif self.n_names > MAX_NAMES then
    self:forget()
    return
  end
  local ok, facts = pcall(ask, self, self.facts)
  if ok and facts then
    local same = same_facts(self.facts, facts)
    self.facts, self.refusals, self.expires = facts, 0, self.clock() + self.ttl
    if not same then
      self.changed()
    end
    return
  end
  self.refusals = self.refusals + 1
  if self.refusals == MAX_REFUSALS then
    self:forget()
  else
    self.expires = self.clock() + self.ttl / 10
  end
  if not ok then
    error(facts, 0)
  end
end

--- Learn names. Yields.
-- @tparam table wanted sets of names: `functions operators relations implicit`; the only name of `implicit` is ""
-- @treturn[1] boolean true: each name now has its list of facts, perhaps an empty one
-- @treturn[2] nil
-- @treturn[2] lunashard.error nothing was learned
function Catalog:learn(wanted)
  local facts, err = ask(self, wanted)
  if not facts then
    return nil, err
  end
  for kind, names in pairs(facts) do
    for name, list in pairs(names) do
      self.facts[kind][name] = list
      self.n_names = self.n_names + 1
    end
  end
  self.expires = math.min(self.expires, self.clock() + self.ttl)
  return true
end

return catalog
