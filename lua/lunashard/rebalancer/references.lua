--- Reference tables on a shard that joins: it gets the rows that all others have, before any bucket.
-- A write to them takes the locks of all shards that have them, and so is either done before the copy, which holds that of
-- one of these, or guarded after it: then this shard's version has advanced, and its router reads in the catalog that
-- the rows are on one more. The shard notes beside the rows that they are ours, so that those that a copier left
-- behind, who came no further, are copied anew.
-- @module lunashard.rebalancer.references

local errors = require("lunashard.errors")
local preflight = require("lunashard.rebalancer.preflight")
local record = require("lunashard.catalog.record")
local statement = require("lunashard.router.statement")

local references = {}

local BEGIN = "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock(lunashard.shard_lock_key());"

local COLUMNS = [[
  SELECT a.attname AS name, coalesce(pg_get_serial_sequence($1, a.attname),
      (SELECT min(q.oid::regclass::text) FROM pg_catalog.pg_attrdef v JOIN pg_catalog.pg_depend d ON d.objid = v.oid
         AND d.classid = 'pg_catalog.pg_attrdef'::regclass JOIN pg_catalog.pg_class q ON q.oid = d.refobjid AND q.relkind = 'S'
        WHERE v.adrelid = a.attrelid AND v.adnum = a.attnum)) AS sequence FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum]]

local SUM = [[
  SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text AS sum FROM %s t]]

local function compare(from, to, one, opts)
  local sums = {}
  for i, lease in ipairs({ from, to }) do
    local result, err = lease:execute(SUM:format(one.sql), nil, opts)
    if not result then
      return nil, err
    end
    sums[i] = result.rows[1]
  end
  return { same = sums[1].rows == sums[2].rows and sums[1].sum == sums[2].sum, from = sums[1].rows, to = sums[2].rows }
end

local function copy_rows(from, to, one, columns, opts)
  local names = {}
  for i, column in ipairs(columns) do
    names[i] = statement.quote_ident(column.name)
  end
  local list = table.concat(names, ", ")
  local out, err = from:copy_out(("COPY %s (%s) TO STDOUT"):format(one.sql, list), opts)
  local into
  if out then
    into, err = to:copy_in(("COPY %s (%s) FROM STDIN"):format(one.sql, list), opts)
  end
  if not into then
    return nil, err
  end
  local bytes
  bytes, err = out:read()
  while bytes and bytes ~= "" do
    local ok
    ok, err = into:write(bytes)
    if not ok then
      return nil, err
    end
    bytes, err = out:read()
  end
  if not bytes then
    into:abort()
    return nil, err
  end
  return into:finish()
end

local function copy_sequences(from, to, columns, opts)
  for _, column in ipairs(columns) do
    if column.sequence then
      local result, err = from:execute(("SELECT last_value, is_called FROM %s"):format(column.sequence), nil, opts)
      if result then
        result, err = to:execute("SELECT setval($1::regclass, $2, $3)",
          { column.sequence, result.rows[1].last_value, result.rows[1].is_called }, opts)
      end
      if not result then
        return nil, err
      end
    end
  end
  return true
end

local function copy_table(from, to, one, is_ours, opts)
  local found, err = compare(from, to, one, opts)
  if found and not found.same and found.to > 0 and is_ours then
    found, err = to:execute("DELETE FROM " .. one.sql, nil, opts)
    found = found and { same = false, from = 0, to = 0 }
  end
  if not found then
    return nil, err
  elseif found.same then
    return true
  elseif found.to > 0 then
    return nil, errors.new("INVALID", {
      shard_id = to.shard_id,
      message = ("the reference table %s has %d rows on %s, and %d on %s, which are not the same: empty it on %s, and it will be "
        .. "copied"):format(one.name, found.to, to.shard_id, found.from, from.shard_id, to.shard_id),
    })
  end
  local columns
  columns, err = from:execute(COLUMNS, { one.sql }, opts)
  local ok
  if columns then
    ok, err = copy_rows(from, to, one, columns.rows, opts)
  end
  if ok then
    ok, err = copy_sequences(from, to, columns.rows, opts)
  end
  if ok then
    ok, err = compare(from, to, one, opts)
  end
  if ok and not ok.same then
    return nil, errors.new("INVALID", {
      shard_id = to.shard_id,
      message = ("the reference table %s differs on %s after it was copied: a trigger has altered its rows"):format(one.name,
        to.shard_id),
    })
  end
  return ok and true or nil, err
end

local OURS = "SELECT joined FROM lunashard.identity"
local NOTE = "UPDATE lunashard.identity SET joined = true"

local function copy_all(from, to, list, opts)
  local simple = { deadline = opts.deadline, simple = true }
  for _, lease in ipairs({ from, to }) do
    local ok, err = lease:execute(BEGIN, nil, simple)
    if not ok then
      return nil, err
    end
  end
  local ours, err = to:execute(OURS, nil, opts)
  if not ours then
    return nil, err
  end
  for _, one in ipairs(list) do
    local ok
    ok, err = copy_table(from, to, one, ours.rows[1] and ours.rows[1].joined, opts)
    if not ok then
      return nil, err
    end
  end
  local ok
  ok, err = to:execute(NOTE, nil, opts)
  if ok then
    ok, err = to:execute("COMMIT", nil, opts)
  end
  return ok, err
end

-- Still under the source's lock: whoever waits for it must find in the catalog what was done.
local function publish(manager, from, destination, opts)
  local ok, err = record.has_references(manager, destination, opts.deadline)
  if ok then
    ok, err = from:execute("SELECT lunashard.advance()", nil, opts)
  end
  if ok then
    ok, err = from:execute("COMMIT", nil, opts)
  end
  return ok, err
end

--- Give a shard the rows of all reference tables, and have them written there from then on. Tables that have them already
-- are left alone. Guards must be on. Yields.
-- @tparam Manager manager
-- @tparam string source a shard that has them
-- @tparam string destination
-- @tparam ?number deadline
-- @treturn[1] number of tables
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it has other rows
function references.copy(manager, source, destination, deadline)
  local list = preflight.references(manager)
  local opts = { deadline = deadline }
  local from, err = manager.by_id[source].primary.pool:acquire(deadline)
  if not from then
    return nil, err
  end
  local to
  to, err = manager.by_id[destination].primary.pool:acquire(deadline)
  if not to then
    from:release()
    return nil, err
  end
  local raised, ok
  raised, ok, err = pcall(function()
    local done, problem = copy_all(from, to, list, opts)
    if done then
      done, problem = publish(manager, from, destination, opts)
    end
    return done, problem
  end)
  from:release()
  to:release()
  if not raised then
    error(ok, 0)
  end
  return ok and #list or nil, err
end

return references
