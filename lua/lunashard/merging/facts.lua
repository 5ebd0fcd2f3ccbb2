--- What only the catalog knows: which functions aggregate, what a view is, which columns a table has.
-- @module lunashard.merging.facts

local sorted = require("lunashard.sorted")

local facts = {}

local KEPT = 60 -- seconds

-- Unqualified names are those that the search path finds.
local QUESTION = [[
SELECT 'function' AS kind, NULL::text AS schema, f.proname::text AS name, bool_or(f.prokind = 'a') AS is_aggregate,
  NULL::text AS definition, NULL::text[] AS columns
FROM pg_catalog.pg_proc f WHERE f.proname = ANY ($1::text[]::name[]) GROUP BY f.proname
UNION ALL
SELECT 'relation', w.schema, w.name, NULL,
  CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) END,
  ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND NOT a.attisdropped)
FROM unnest($2::text[], $3::text[]) AS w (schema, name)
  JOIN pg_catalog.pg_class c ON c.relname = w.name::name AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE CASE WHEN w.schema IS NULL THEN pg_catalog.pg_table_is_visible(c.oid) ELSE n.nspname = w.schema::name END]]

local known = setmetatable({}, { __mode = "k" }) -- manager -> facts

--- What is known by now.
-- @tparam Manager manager
-- @number now
-- @treturn table `functions`: name -> `{ is_aggregate = }`; `relations`: name as it is written -> `{ columns =,
--   definition = }`; `plans`, for the plans that were made by these
function facts.of(manager, now)
  local kept = known[manager]
  if not kept or kept.tables ~= manager.tables or kept.strategies ~= manager.strategies or now > kept.until_time then
    kept = {
      functions = {}, relations = {}, plans = {}, n_plans = 0, tables = manager.tables,
      strategies = manager.strategies, until_time = now + KEPT,
    }
    known[manager] = kept
  end
  return kept
end

local function display(row)
  return row.schema and row.schema .. "." .. row.name or row.name
end

--- Learn what is missing. Yields.
-- @tparam table kept from @{of}
-- @tparam table missing `functions`: name -> true; `relations`: name as it is written -> `{ schema =, name = }`
-- @tparam func ask `ask(sql, params)` gives a list of rows, or nil and an error
-- @tparam table null what stands for NULL in a list
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function facts.learn(kept, missing, ask, null)
  local schemas, names = {}, {}
  for i, written in ipairs(sorted.keys(missing.relations)) do
    local relation = missing.relations[written]
    schemas[i], names[i] = relation.schema or null, relation.name
  end
  local functions = sorted.keys(missing.functions)
  local rows, err = ask(QUESTION, { functions, schemas, names })
  if not rows then
    return nil, err
  end
  for _, name in ipairs(functions) do
    kept.functions[name] = {}
  end
  for written in pairs(missing.relations) do
    kept.relations[written] = {}
  end
  for _, row in ipairs(rows) do
    if row.kind == "function" then
      kept.functions[row.name].is_aggregate = row.is_aggregate
    else
      local fact = kept.relations[display(row)]
      fact.definition, fact.columns = row.definition, {}
      for _, column in ipairs(row.columns) do
        fact.columns[column] = true
      end
    end
  end
  return true
end

return facts
