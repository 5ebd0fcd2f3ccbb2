--- Taking buckets away from the source, and giving them back when a move is given up.
-- Exclusive advisory locks wait for every transaction that has a guard for one of the buckets, or for the whole shard; from
-- the commit on nobody may use them, on any shard, until the destination owns them. There is little time for what
-- follows: a lock that is not to be had within moments is tried for again later.
-- @module lunashard.rebalancer.fence
-- @local

local capture = require("lunashard.rebalancer.capture")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local shape = require("lunashard.rebalancer.shape")

local fence = {}

local LOCK_TIMEOUT = 100 -- ms, for one lock
local ALL_LOCKS = 500 -- ms, for all of them

-- A trigger runs for no rows too, and from then on its function is compiled in this session.
local REHEARSE_GIVING = "DELETE FROM lunashard.bucket WHERE false"

--- The statement after which a session knows how to own buckets.
-- @table REHEARSE_OWNING
fence.REHEARSE_OWNING = "INSERT INTO lunashard.bucket SELECT b.* FROM lunashard.bucket b WHERE false"

-- In one message: from the first line on somebody may wait.
local CLOSE = [[
  SET LOCAL statement_timeout = %d;
  SELECT count(pg_advisory_xact_lock(lunashard.lock_key(%s, b))) FROM (SELECT b FROM unnest(%s::text[]) AS u(b) ORDER BY b) AS o;
  SELECT pg_advisory_xact_lock(lunashard.shard_lock_key());
  SET LOCAL statement_timeout = 0;
  WITH gone AS (
    DELETE FROM lunashard.bucket b USING unnest(%s::text[], %s::bigint[]) AS w(bucket, version)
     WHERE b.grp = %s AND b.bucket = w.bucket AND b.version = w.version RETURNING 1)
  SELECT set_config('lunashard.given_up', count(*)::text, true) FROM gone;
  UPDATE lunashard.move SET step = 'fenced', fenced_at = clock_timestamp() WHERE job = %d AND seq = %d AND role = 'source';
  UPDATE lunashard.state SET in_transition = in_transition + 1;
  SELECT lunashard.advance()]]
local GIVEN_UP = "SELECT 0 AS i, ARRAY[current_setting('lunashard.given_up', true)] AS key, NULL::text AS line, NULL::bigint AS h"

--- The statement after which nobody but the holder of this transaction may look at the shard as a whole, to its end.
-- @table SHARD_LOCK
fence.SHARD_LOCK = "SELECT pg_advisory_xact_lock(lunashard.shard_lock_key())"

--- The last statement of whoever changes what a shard owns.
-- @table ADVANCE
fence.ADVANCE = "SELECT lunashard.advance()"

--- The statement with which the source's share in a transition ends.
-- @table END_TRANSITION
fence.END_TRANSITION = "UPDATE lunashard.state SET in_transition = in_transition - 1"

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

--- Is everything on the source as it was when the move began, what notes writes too? Yields.
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam {table,...} tables
-- @string before the fingerprint of then
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function fence.check_source(lease, row, tables, before)
  local ok, err = fence.check_shape(lease, tables, before, row.source)
  if ok then
    ok, err = check_capture(lease, row, tables, row.source)
  end
  return ok, err
end

local function close_text(context, row, versions)
  local group, buckets = names.literal(context.group), names.array(row.buckets)
  return CLOSE:format(ALL_LOCKS, group, buckets, buckets, names.numbers(versions), group, row.job, row.seq)
end

-- How many buckets were given up, and what else is to be known then, as one query.
local function question_of(known)
  local texts = { GIVEN_UP }
  for _, query in ipairs(known.questions or {}) do
    texts[#texts + 1] = query
  end
  return table.concat(texts, " UNION ALL ")
end

-- What takes a session milliseconds when it is done for the first time is done before anybody waits for it: the question's
-- plan is kept from the second time on.
local function rehearse(lease, question)
  local ok, err = true, nil
  for _, text in ipairs({ question, question, REHEARSE_GIVING }) do
    if ok then
      ok, err = lease:execute(text, nil, { deadline = session.soon() })
    end
  end
  return ok, err
end

local function close(lease, context, row, known, question)
  local found, err = lease:execute(close_text(context, row, known.versions), nil, { simple = true, deadline = session.soon() })
  if found then
    found, err = lease:execute(question, nil, { deadline = session.soon() })
  end
  if not found then
    return nil, err
  end
  local given_up, rows = nil, {}
  for _, one in ipairs(found.rows) do
    if one.i == 0 then
      given_up = tonumber(one.key[1])
    else
      rows[#rows + 1] = one
    end
  end
  return given_up, rows
end

--- Take the buckets from the source. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam table known `versions` (of each bucket), `source_fingerprint`; `locked`: called when the locks are asked for, from
--   here on somebody may wait; `questions`: queries of the columns `i` (not 0), `key` (texts), `line` (a text) and `h`,
--   without parameters, that are asked in the end, and `closed`: called with their rows before the transaction commits
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error with SQLSTATE 55P03 when the locks were not to be had; `gives_up` when waiting is no use
function fence.close(context, source, row, tables, known)
  local closed, problem = source:transaction("fencing", function(lease)
    local question = question_of(known)
    local ok, err = fence.check_source(lease, row, tables, known.source_fingerprint)
    if ok then
      ok, err = rehearse(lease, question)
    end
    if not ok then
      return nil, err
    end
    known.locked()
    local given_up, rows = close(lease, context, row, known, question)
    if not given_up then
      return nil, rows
    elseif given_up ~= #row.buckets then
      return nil, errors.new("STALE_MAP", { shard_id = row.source, gives_up = true, message =
        ("%s owns %d of the move's %d buckets at the versions of the catalog"):format(row.source, given_up, #row.buckets) })
    end
    if known.closed then
      known.closed(rows)
    end
    return true
  end, { lock_timeout = LOCK_TIMEOUT, brief = context })
  if not closed and problem.sqlstate == "57014" then -- as a whole it took too long, and is to be tried again
    problem = errors.wrap(problem)
    problem.sqlstate, problem.retryable = "55P03", true
  end
  return closed, problem
end

--- The statement that owns the buckets, at the version after the former owner's. For a transaction that has the lock of the
-- shard.
-- @tparam table context
-- @tparam table row
-- @tparam {number,...} versions
-- @treturn string
function fence.owning(context, row, versions)
  return ([[
    INSERT INTO lunashard.bucket (grp, bucket, version)
      SELECT %s, w.bucket, w.version + 1 FROM unnest(%s::text[], %s::bigint[]) AS w(bucket, version)]]):format(
    names.literal(context.group), names.array(row.buckets), names.numbers(versions))
end

local ABORTED = "UPDATE lunashard.move SET step = 'aborted' WHERE job = %d AND seq = %d AND role = 'source'"

--- Give the buckets back to the source, at the version after the one that it had. Yields.
-- Only when the destination does not own them and cannot come to own them any more.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {number,...} versions
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.open(context, source, row, versions)
  return source:transaction("aborting", function(lease)
    return session.run(lease, { fence.SHARD_LOCK, fence.owning(context, row, versions), ABORTED:format(row.job, row.seq),
      fence.END_TRANSITION, fence.ADVANCE })
  end, { lock_timeout = 2000, brief = context })
end

local MEND = [[
  SELECT lunashard.advance() WHERE (SELECT version FROM lunashard.state) <> (SELECT last_value FROM lunashard.epoch)]]

--- After a change of ownership that was rolled back the epoch stands ahead of it, and snapshots that last are refused
-- until it is caught up with. Yields.
-- @tparam table context
-- @tparam Session one side
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function fence.mend(context, one)
  return one:transaction("mending", function(lease)
    return session.run(lease, { "SELECT FROM lunashard.state FOR UPDATE", MEND })
  end, { brief = context })
end

--- Is the epoch ahead? So it is for moments whenever ownership changes.
-- @table AHEAD
fence.AHEAD = "(SELECT s.version <> e.last_value FROM lunashard.state s, lunashard.epoch e)"

--- The same as `mend` in one statement, for whoever is no mover: where one is at work nothing is done.
-- @table CATCH_UP
fence.CATCH_UP = [[
  WITH own AS MATERIALIZED (SELECT version FROM lunashard.state FOR UPDATE SKIP LOCKED)
  SELECT lunashard.advance() FROM own WHERE own.version <> (SELECT last_value FROM lunashard.epoch)]]

return fence
