--- Taking buckets away from the source, and giving them back when a move is given up.
-- Exclusive advisory locks wait for every transaction that has a guard for one of the buckets, or for the whole shard; from
-- the commit on nobody may use them, on any shard, until the destination owns them. There is little time for what
-- follows: a lock that is not to be had within moments is tried for again later.
-- @module lunashard.rebalancer.fence
-- @local

local capture = require("lunashard.rebalancer.capture")
local errors = require("lunashard.errors")
local session = require("lunashard.rebalancer.session")
local shape = require("lunashard.rebalancer.shape")

local fence = {}

local LOCK_TIMEOUT = 100 -- ms, for one lock
local ALL_LOCKS = 500 -- ms, for all of them

local BUCKET_LOCKS = [[
  SELECT count(pg_advisory_xact_lock(lunashard.lock_key($1, b))) FROM (SELECT b FROM unnest($2::text[]) AS u(b) ORDER BY b) AS o]]
local SHARD_LOCK = "SELECT pg_advisory_xact_lock(lunashard.shard_lock_key())"

local GIVE_UP = [[
  WITH gone AS (
    DELETE FROM lunashard.bucket b USING unnest($2::text[], $3::bigint[]) AS w(bucket, version)
     WHERE b.grp = $1 AND b.bucket = w.bucket AND b.version = w.version RETURNING 1)
  SELECT count(*) AS n FROM gone]]
local FENCED = [[
  UPDATE lunashard.move SET step = 'fenced', fenced_at = clock_timestamp()
   WHERE job = $1 AND seq = $2 AND role = 'source']]
local TRANSITION = "UPDATE lunashard.state SET in_transition = in_transition + $1"
local ADVANCE = "SELECT lunashard.advance()"

local function run(lease, sql, params)
  return lease:execute(sql, params, { deadline = session.soon() })
end

local function run_all(lease, list)
  local result, err
  for _, one in ipairs(list) do
    result, err = run(lease, one[1], one[2])
    if not result then
      return nil, err
    end
  end
  return result
end

--- Nobody but the holder of this transaction may look at the shard as a whole, to its end. Yields.
-- @tparam Lease lease
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.lock_shard(lease)
  return run(lease, SHARD_LOCK)
end

--- Is everything as it was when the move began? Yields.
-- @tparam Lease lease
-- @tparam {table,...} tables
-- @string before the fingerprint of then
-- @string shard_id
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when the definition of a table has changed
function fence.check_shape(lease, tables, before, shard_id)
  local now, err = shape.fingerprint(lease, tables, session.soon())
  if not now then
    return nil, err
  elseif now ~= before then
    return nil, errors.new("INVALID", { shard_id = shard_id, gives_up = true,
      message = "the definition of a table was changed while its rows moved" })
  end
  return true
end

local function check_capture(lease, row, tables, shard_id)
  local whole, err = capture.is_whole(lease, row, tables)
  if whole == nil then
    return nil, err
  elseif not whole then
    return nil, errors.new("INVALID", { shard_id = shard_id, gives_up = true,
      message = "a trigger that notes writes was dropped or disabled while rows moved" })
  end
  return true
end

--- Take the buckets from the source. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam table known `versions` (of each bucket), `source_fingerprint`
-- @tparam func locked called when the locks are asked for: from here on somebody may wait
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error with SQLSTATE 55P03 when the locks were not to be had; `gives_up` when waiting is no use
function fence.close(context, source, row, tables, known, locked)
  local closed, problem = source:transaction("fencing", function(lease)
    local ok, err = fence.check_shape(lease, tables, known.source_fingerprint, row.source)
    if ok then
      ok, err = check_capture(lease, row, tables, row.source)
    end
    if not ok then
      return nil, err
    end
    locked()
    ok, err = run(lease, ("SET LOCAL statement_timeout = %d"):format(ALL_LOCKS))
    if ok then
      ok, err = run(lease, BUCKET_LOCKS, { context.group, row.buckets })
    end
    if ok then
      ok, err = fence.lock_shard(lease)
    end
    if not ok then
      return nil, err
    end
    local gone
    gone, err = run(lease, GIVE_UP, { context.group, row.buckets, known.versions })
    if not gone then
      return nil, err
    elseif gone.rows[1].n ~= #row.buckets then
      return nil, errors.new("STALE_MAP", { shard_id = row.source, gives_up = true, message =
        ("%s owns %d of the move's %d buckets at the versions of the catalog"):format(row.source, gone.rows[1].n,
        #row.buckets) })
    end
    return run_all(lease, { { FENCED, { row.job, row.seq } }, { TRANSITION, { 1 } }, { ADVANCE } })
  end, { lock_timeout = LOCK_TIMEOUT })
  if not closed and problem.sqlstate == "57014" then -- as a whole it took too long, and is to be tried again
    problem = errors.wrap(problem)
    problem.sqlstate, problem.retryable = "55P03", true
  end
  return closed, problem
end

local RETURN = [[
  INSERT INTO lunashard.bucket (grp, bucket, version)
    SELECT $1, w.bucket, w.version + 1 FROM unnest($2::text[], $3::bigint[]) AS w(bucket, version)]]
local ABORTED = [[
  UPDATE lunashard.move SET step = 'aborted' WHERE job = $1 AND seq = $2 AND role = 'source']]

--- Give the buckets back to the source, at the version after the one that it had. Yields.
-- Only when the destination does not own them and cannot come to own them any more.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam table known
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.open(context, source, row, known)
  return source:transaction("aborting", function(lease)
    return run_all(lease, { { SHARD_LOCK }, { RETURN, { context.group, row.buckets, known.versions } },
      { ABORTED, { row.job, row.seq } }, { TRANSITION, { -1 } }, { ADVANCE } })
  end, { lock_timeout = 2000 })
end

local MEND = [[
  SELECT lunashard.advance() WHERE (SELECT version FROM lunashard.state) <> (SELECT last_value FROM lunashard.epoch)]]

--- After a change of ownership that was rolled back the epoch stands ahead of it, and snapshots that last are refused
-- until it is caught up with. Yields.
-- @tparam Session one side
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.mend(one)
  return one:transaction("mending", function(lease)
    return run_all(lease, { { "SELECT FROM lunashard.state FOR UPDATE" }, { MEND } })
  end)
end

--- End the source's share in a transition. For the transaction that removes the rows. Yields.
-- @tparam Lease lease
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.end_transition(lease)
  return run_all(lease, { { TRANSITION, { -1 } }, { ADVANCE } })
end

--- Own the buckets, at the version after the former owner's. For the transaction that merges the rows. Yields.
-- @tparam table context
-- @tparam Lease lease
-- @tparam table row
-- @tparam table known
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.own(context, lease, row, known)
  return run_all(lease, { { RETURN, { context.group, row.buckets, known.versions } }, { ADVANCE } })
end

return fence
