--- The nearest name for one in a statement that the server does not know.
-- @module lunashard.cli.suggest

local errors = require("lunashard.errors")

local suggest = {}

local RELATIONS = "SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
  .. "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' "
  .. "AND n.nspname NOT IN ('information_schema', 'lunashard') LIMIT 10000"
local COLUMNS = "SELECT DISTINCT a.attname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
  .. "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relname = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped "
  .. "AND n.nspname NOT IN ('pg_catalog', 'information_schema') LIMIT 10000"

local TIMEOUT = 2

local function names_on(router, shard_id, sql, params)
  local result = router:execute(sql, params, { shard_id = shard_id, read_only = true, timeout = TIMEOUT, retries = 0 })
  local names = {}
  for i, row in ipairs(result and result.rows or {}) do
    names[i] = row.name
  end
  return names
end

local function tables_in(sql)
  local parsed = require("lunashard.sql.statement").parse(sql)
  local names = {}
  for i, one in ipairs(parsed and parsed.tables or {}) do
    names[i] = one.name
  end
  return names
end

-- The error itself, or the first of the shards'.
local function server_error(err)
  local failure = type(err.failed) == "table" and err.failed[1]
  local found = failure and errors.is(failure.error) and failure.error or err
  return found, failure and failure.shard_id or err.shard_id
end

--- Give an error of an unknown table or column the hint which was probably meant. Yields.
-- @tparam Router router
-- @tparam lunashard.error err
-- @string sql
-- @treturn lunashard.error the same
function suggest.complete(router, err, sql)
  local found, shard_id = server_error(err)
  if found.hint or not shard_id or found.sqlstate ~= "42P01" and found.sqlstate ~= "42703" then
    return err
  end
  local wanted = found.message:match('"([^"]+)" does not exist') or found.message:match("column ([%w_.]+) does not exist")
  if not wanted then
    return err
  end
  wanted = wanted:match("[^.]+$")
  local candidates = found.sqlstate == "42P01" and names_on(router, shard_id, RELATIONS)
    or names_on(router, shard_id, COLUMNS, { tables_in(sql) })
  local near = errors.nearest(wanted, candidates)
  if near then
    found.hint = ("did you mean %q?"):format(near)
    err.hint = err.hint or found.hint
  end
  return err
end

return suggest
