--- Reference tables on a shard that joins: it gets the rows that all others have, before any bucket.
-- While they are copied both shards' locks are held, so that no guarded write can reach one of them and not the other.
-- @module lunashard.rebalancer.references

local errors = require("lunashard.errors")
local preflight = require("lunashard.rebalancer.preflight")
local statement = require("lunashard.router.statement")

local references = {}

local BEGIN = "BEGIN; SET LOCAL lock_timeout = '10s'; SELECT pg_advisory_xact_lock(lunashard.shard_lock_key());"

local COLUMNS = [[
  SELECT a.attname AS name, pg_get_serial_sequence($1, a.attname) AS sequence FROM pg_catalog.pg_attribute a
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

local function copy_table(from, to, one, opts)
  local found, err = compare(from, to, one, opts)
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

local function copy_all(from, to, list, opts)
  local simple = { deadline = opts.deadline, simple = true }
  for _, lease in ipairs({ from, to }) do
    local ok, err = lease:execute(BEGIN, nil, simple)
    if not ok then
      return nil, err
    end
  end
  for _, one in ipairs(list) do
    local ok, err = copy_table(from, to, one, opts)
    if not ok then
      return nil, err
    end
  end
  return to:execute("COMMIT", nil, opts)
end

--- Give a shard the rows of all reference tables. Tables that have them already are left alone. Guards must be on. Yields.
-- @tparam Manager manager
-- @tparam string source a shard that has them
-- @tparam string destination
-- @tparam ?number deadline
-- @treturn[1] number of tables
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when it has other rows
function references.copy(manager, source, destination, deadline)
  local list = preflight.references(manager)
  if #list == 0 then
    return 0
  end
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
  local ok
  ok, err = copy_all(from, to, list, opts)
  from:release()
  to:release()
  return ok and #list or nil, err
end

return references
