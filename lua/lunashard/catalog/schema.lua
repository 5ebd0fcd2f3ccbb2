--- Our schemas in the databases: which version is there, and how it becomes the present one.
-- @module lunashard.catalog.schema
-- @local

local errors = require("lunashard.errors")

local schema = {}

--- What lies on every shard, and what in the catalog.
-- @table sides
schema.sides = {
  shard = require("lunashard.catalog.shard_schema"),
  catalog = require("lunashard.catalog.catalog_schema"),
}

-- `schema apply` keeps its record in the same schema, with or without a catalog. By pg_class, for to_regclass fails for
-- users who may not use the schema.
local PRESENT = [[
  SELECT coalesce(bool_or(relname = 'migration'), false) AS ours, coalesce(bool_or(relname <> 'schema_step'), false) AS others
    FROM pg_class WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
     AND relkind IN ('r', 'p', 'v', 'm', 'f')]]
local VERSION = [[SELECT coalesce(max(version), 0) AS version FROM %s.migration]]
local LOCK = [[SELECT pg_advisory_xact_lock(hashtextextended('lunashard migration ' || $1, 0))]]

--- The error of a statement of ours, with what to grant where a right is missing.
-- @tparam lunashard.error err
-- @string what was to be done, such as "installing the schema lunashard"
-- @string database
-- @treturn lunashard.error
function schema.explain(err, what, database)
  if err.sqlstate ~= "42501" then
    return err
  end
  return errors.wrap(err, {
    code = "AUTH",
    message = ("%s: %s"):format(what, err.message),
    hint = ('GRANT CREATE ON DATABASE "%s" TO the user of the cluster file, or run it as the owner of our schemas'):format(
      database),
  })
end

--- The version of a side's schema in a database. Yields.
-- @tparam table connection a pool or a lease
-- @string side `shard` or `catalog`
-- @tparam ?number deadline
-- @treturn[1] number 0 when it is not there
-- @treturn[2] nil
-- @treturn[2] lunashard.error also `INVALID`: a schema of that name which is not ours, or one of a later release
function schema.version(connection, side, deadline)
  local opts, own = { deadline = deadline }, schema.sides[side]
  local found, err = connection:execute(PRESENT, { own.name }, opts)
  if not found then
    return nil, err
  end
  local row = found.rows[1]
  if not row.ours and row.others then
    return nil, errors.new("INVALID", {
      shard_id = connection.shard_id,
      message = ("the database has a schema %s that is not ours; rename it"):format(own.name),
    })
  elseif not row.ours then
    return 0
  end
  found, err = connection:execute(VERSION:format(own.name), nil, opts)
  if not found then
    return nil, err
  end
  local version = found.rows[1].version
  if version > #own.migrations then
    return nil, errors.new("INVALID", {
      shard_id = connection.shard_id,
      message = ("the schema %s is of version %d, but this program knows %d: it is of an older release"):format(own.name,
        version, #own.migrations),
    })
  end
  return version
end

--- Is a schema that is there the one that this program reads?
-- @int version from @{version}, not 0
-- @string side `shard` or `catalog`
-- @tparam ?string shard_id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function schema.check_present(version, side, shard_id)
  local own = schema.sides[side]
  if version >= #own.migrations then
    return true
  end
  return nil, errors.new("INVALID", {
    shard_id = shard_id,
    message = ("the schema %s%s is of version %d, and this program needs %d: run `lunashard cluster upgrade`"):format(own.name,
      shard_id and " on " .. shard_id or "", version, #own.migrations),
  })
end

--- Bring a side's schema to the present version, in the transaction that is open on a lease. Yields.
-- @tparam Lease lease with a transaction
-- @string side
-- @tparam ?number deadline
-- @treturn[1] number the version that was there before
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function schema.upgrade(lease, side, deadline)
  local opts, own = { deadline = deadline }, schema.sides[side]
  local ok, err = lease:execute(LOCK, { own.name }, opts)
  if not ok then
    return nil, err
  end
  local before
  before, err = schema.version(lease, side, deadline)
  if not before then
    return nil, err
  end
  for version = before + 1, #own.migrations do
    ok, err = lease:execute(own.migrations[version], nil, { deadline = deadline, simple = true })
    if ok then
      ok, err = lease:execute(("INSERT INTO %s.migration (version) VALUES ($1)"):format(own.name), { version }, opts)
    end
    if not ok then
      return nil, err
    end
  end
  return before
end

-- All of a schema but the record of `schema apply`, and the schema itself when that is not there.
local DROP = [[
DO $$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT format('DROP %%s IF EXISTS %%s CASCADE', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
      oid::regclass) AS command
      FROM pg_class WHERE relnamespace = to_regnamespace('%s') AND relkind IN ('r', 'p', 'S') AND relname <> 'schema_step'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_class.oid AND d.deptype IN ('a', 'i')
         AND d.classid = 'pg_class'::regclass)
  LOOP
    EXECUTE one.command;
  END LOOP;
  FOR one IN SELECT format('DROP FUNCTION IF EXISTS %%s CASCADE', oid::regprocedure) AS command
      FROM pg_proc WHERE pronamespace = to_regnamespace('%s')
  LOOP
    EXECUTE one.command;
  END LOOP;
  IF to_regclass('%s.schema_step') IS NULL THEN
    DROP SCHEMA IF EXISTS %s;
  END IF;
END $$]]

--- Remove a side's schemas, in the transaction that is open on a lease. Yields.
-- @tparam Lease lease
-- @string side
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function schema.drop(lease, side, deadline)
  for _, name in ipairs(schema.sides[side].schemas) do
    local ok, err = lease:execute(DROP:format(name, name, name, name), nil, { deadline = deadline, simple = true })
    if not ok then
      return nil, err
    end
  end
  return true
end

--- Run a function in a transaction of its own on a connection of a pool. Yields.
-- @tparam Pool pool
-- @tparam ?number deadline
-- @tparam func fn `fn(lease)` -> value | nil, err; a failure rolls back
-- @string[opt] mode such as `READ ONLY`; part of BEGIN, so that no statement can come before it
-- @return[1] its value
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function schema.transaction(pool, deadline, fn, mode)
  local lease, err = pool:acquire(deadline)
  if not lease then
    return nil, err
  end
  local ok, value
  ok, value, err = pcall(function()
    local begun, problem = lease:execute(mode and "BEGIN " .. mode or "BEGIN", nil, { deadline = deadline })
    if not begun then
      return nil, problem
    end
    local result
    result, problem = fn(lease)
    if result == nil then
      return nil, problem
    end
    begun, problem = lease:execute("COMMIT", nil, { deadline = deadline })
    if not begun then
      return nil, problem
    end
    return result
  end)
  lease:release() -- rolls back what is open
  if not ok then
    error(value, 0)
  end
  return value, err
end

return schema
