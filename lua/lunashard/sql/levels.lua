--- What a statement says of shard keys: for each of its tables the keys of the rows that matter to it, and whether
-- rows of different keys ever meet. By PostgreSQL's own parse tree; no server is asked.
--
-- The claim behind every domain: the statement does the same when of this table only the rows are there whose key is in
-- it. So a conclusion may always be left out, and never be a guess.
-- @module lunashard.sql.levels

local build = require("lunashard.sql.levels.build")
local errors = require("lunashard.errors")
local locality = require("lunashard.sql.levels.locality")
local solve = require("lunashard.sql.levels.solve")
require("lunashard.sql.levels.from")
require("lunashard.sql.levels.writes")

local levels = {}

local function instance(item)
  local domains = {}
  for i, term in ipairs(item.keys) do
    domains[i] = term.domains
  end
  return {
    table = item.key.table or item.relname, name = item.relname, alias = item.alias or item.relname, key = item.key,
    domains = domains, rows = item.rows, written = item.written or false, item = item,
  }
end

-- SET of the shard key to a constant is nothing, when it is the one that the row has.
local function check_sets(built)
  for _, set in ipairs(built.sets) do
    local same = false
    for _, domain in ipairs(set.term.domains) do
      same = same or domain.kind == "eq" and domain.id == set.read.id
    end
    if not same then
      return {
        code = "INVALID",
        reason = ("%s of %s is the shard key: it may not be changed"):format(set.term.name, set.item.relname),
        hint = "a row cannot move between shards by UPDATE: INSERT it with the new key and DELETE the old one",
      }
    end
  end
end

local function tuples_of(built)
  local list = {}
  for _, level in ipairs(built.levels) do
    for _, filter in ipairs(level.filters) do
      for _, tuple in ipairs(filter.tuples) do
        list[#list + 1] = { tuple = tuple, targets = filter.targets }
      end
    end
  end
  return list
end

--- Analyse a statement: SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE.
-- @string sql the text
-- @tparam table stmt its parse tree: `ast[1].stmt` of what `lunashard.sql.statement.parse` gives
-- @tparam Tables tables see `lunashard.sql.tables`
-- @treturn[1] table
--
--   - `instances`: for each time that a table with a shard key is in it: `table` (its declared name), `name`, `alias`,
--     `key` (its entry in `tables`), `written`, `domains` (for each column of the key a list, each of which holds for
--     itself: see `lunashard.sql.levels.conditions.say`; empty: all keys), `rows` (of an INSERT of several rows: for
--     each a list of sources, one for each column of the key);
--   - `is_local`: run on each shard for itself it does what it would do on all rows together, as far as the
--     outermost SELECT's aggregates, ORDER BY, LIMIT and DISTINCT do not matter; else `why_not` says why in words;
--   - `references`, `unknown`, `system`: lists of `{ schema =, name =, table = }` of reference tables, of those that
--     nothing is known of, and of the server's own;
--   - `writes`: `{ item =, kind = }` of the tables that are written;
--   - `refusal`: `code`, `reason`, `hint`, when no key could make it right;
--   - `calls`: the function calls; `tuples`, of `(a, b) IN (...)`.
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it is nested too deeply
function levels.analyse(sql, stmt, tables)
  local ok, built = pcall(build.run, sql, stmt, tables)
  if not ok and errors.is(built) then
    return nil, built
  elseif not ok then
    error(built, 0)
  end
  solve.run(built)
  local is_local, why_not = locality.of(built)
  local instances = {}
  for i, item in ipairs(built.instances) do
    instances[i] = instance(item)
  end
  return {
    instances = instances, is_local = is_local, why_not = why_not, references = built.references,
    unknown = built.unknown, system = built.system, writes = built.writes,
    refusal = built.refusal or check_sets(built), calls = built.calls, tuples = tuples_of(built),
  }
end

return levels
