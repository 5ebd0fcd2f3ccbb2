--- CREATE INDEX CONCURRENTLY: what a failed or killed build leaves behind.
-- That is an index that costs every write and serves no read. It is removed before the next try and after a failure, never
-- while somebody is building it.
-- @module lunashard.schema.indexes

local errors = require("lunashard.errors")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")

local indexes = {}

local LOOK_EVERY = 0.2

-- The index lies in its table's schema, whatever that is by the search path.
local FIND = [[
  SELECT n.nspname AS schema, i.indisvalid AS valid,
         EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = c.oid) AS building
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_index i ON i.indexrelid = c.oid
    JOIN pg_class t ON t.oid = i.indrelid
   WHERE c.relname = $1 AND t.oid = to_regclass($2)]]

--- Look for an index. Yields.
-- @tparam Lease lease
-- @tparam table index `schema`, `table`, `name`
-- @tparam ?number deadline
-- @treturn[1] table `schema`, `valid`, `building`; or false: there is none
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function indexes.find(lease, index, deadline)
  local name = statement.quote_ident(index.table)
  if index.schema then
    name = statement.quote_ident(index.schema) .. "." .. name
  end
  local result, err = lease:execute(FIND, { index.name, name }, { deadline = deadline })
  if not result then
    return nil, err
  end
  return result.rows[1] or false
end

-- A run that was killed leaves a server that may still build: it is waited for.
local function settled(lease, index, deadline)
  local found, err = indexes.find(lease, index, deadline)
  while found and found.building and not found.valid do
    if deadline and task.now() >= deadline then
      return nil, errors.new("TIMEOUT", { message = ("timed out while another session builds the index %s"):format(index.name) })
    end
    task.sleep(LOOK_EVERY)
    found, err = indexes.find(lease, index, deadline)
  end
  return found, err
end

--- Remove an index that is not valid. Yields.
-- @tparam Lease lease not in a transaction
-- @tparam table index
-- @tparam ?number deadline
-- @treturn[1] string `none`: there is no such index; `valid`; `removed`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function indexes.clean(lease, index, deadline)
  local found, err = settled(lease, index, deadline)
  if found == nil then
    return nil, err
  elseif not found or found.valid then
    return found and "valid" or "none"
  end
  local result
  result, err = lease:execute(("DROP INDEX CONCURRENTLY IF EXISTS %s.%s"):format(statement.quote_ident(found.schema),
    statement.quote_ident(index.name)), nil, { deadline = deadline, simple = true })
  return result and "removed", err
end

return indexes
