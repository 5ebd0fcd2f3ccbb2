--- What a move writes into the catalog.
-- Every write goes with a look at the job's token: a mover that was taken over from writes nothing.
-- @module lunashard.rebalancer.flip
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local task = require("lunashard.task")

local flip = {}

local SAVE = [[
  WITH held AS (SELECT id FROM lunashard_catalog.job WHERE id = $1 AND token = $3 FOR SHARE)
  UPDATE lunashard_catalog.move m SET state = $4, cursor = $5::jsonb, rows_copied = $6, bytes = $7, pause_seconds = $8,
      error_message = $9, started_at = coalesce(m.started_at, clock_timestamp()),
      finished_at = CASE WHEN $4 IN ('done', 'aborted') THEN clock_timestamp() END
    FROM held WHERE m.job = held.id AND m.seq = $2 RETURNING m.seq]]

local function parameters(context, row, state)
  return { row.job, row.seq, context.token, state, cjson.encode(row.cursor), row.rows_copied, row.bytes,
    row.pause_seconds, row.error_message, n = 9 }
end

local function check(row, saved, err)
  if not saved then
    return nil, err
  elseif not saved.rows[1] then
    return nil, session.taken_over(row)
  end
  return true
end

--- Write down where a move stands. Yields.
-- @tparam table context
-- @tparam table row the move; its `state` is the new one afterwards
-- @string state
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when another mover has taken over
function flip.save(context, row, state)
  context.at(row.state .. ":before-saved")
  local ok, err = check(row, context.catalog:execute(SAVE, parameters(context, row, state), session.soon()))
  if not ok then
    return nil, err
  end
  local from = row.state
  row.state = state
  context.at(from .. ":after-saved")
  context.progress(row)
  return true
end

local VERSIONS = [[
  SELECT w.bucket, coalesce(b.version, 1) AS version, b.shard_id AS owner
    FROM unnest($2::text[]) WITH ORDINALITY AS w(bucket, n)
    LEFT JOIN lunashard_catalog.bucket b ON b.grp = $1 AND b.bucket = w.bucket ORDER BY w.n]]

--- The versions of a move's buckets, in their order. Yields.
-- @tparam table context
-- @tparam table row
-- @treturn[1] {number,...}
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function flip.versions(context, row)
  local found, err = context.catalog:execute(VERSIONS, { context.group, row.buckets }, session.soon())
  if not found then
    return nil, err
  end
  local list = {}
  for i, one in ipairs(found.rows) do
    list[i] = one.version
  end
  return list
end

-- Buckets of open groups have no line before they move for the first time. All in one message, and one statement: nothing of
-- it is done by a mover whose token is not the present one.
local OWNER = [[
  BEGIN; %s;
  WITH held AS (SELECT id FROM lunashard_catalog.job WHERE id = %d AND token = %.0f FOR SHARE),
  map AS MATERIALIZED (SELECT lunashard_catalog.next_version() AS version FROM held),
  changed AS (
    INSERT INTO lunashard_catalog.bucket AS b (grp, bucket, shard_id, version, changed)
      SELECT %s, w.bucket, %s, w.version + 1, map.version FROM map, unnest(%s::text[], %s::bigint[]) AS w(bucket, version)
    ON CONFLICT (grp, bucket) DO UPDATE SET shard_id = excluded.shard_id, version = excluded.version,
        changed = excluded.changed
      WHERE b.shard_id = %s AND b.version = excluded.version - 1
    RETURNING 1),
  saved AS (
    UPDATE lunashard_catalog.move m SET state = %s, cursor = %s::jsonb, rows_copied = %.0f, bytes = %.0f,
        pause_seconds = %s, error_message = %s, started_at = coalesce(m.started_at, clock_timestamp())
      FROM held WHERE m.job = held.id AND m.seq = %d)
  SELECT (SELECT count(*) FROM held) AS held, (SELECT count(*) FROM changed) AS n]]

local function owner_text(context, row, owner, state, versions)
  local function text_or_null(value)
    return value and names.literal(tostring(value)) or "NULL"
  end
  return OWNER:format(session.brief(context), row.job, context.token, names.literal(context.group), names.literal(owner),
    names.array(row.buckets), names.numbers(versions), names.literal(row.source), names.literal(state),
    names.literal(cjson.encode(row.cursor)), row.rows_copied, row.bytes,
    row.pause_seconds and ("%.17g"):format(row.pause_seconds) or "NULL", text_or_null(row.error_message), row.seq)
end

local function yes()
  return true
end

local function change_owner(lease, row, text, deadline)
  local found, err = lease:execute(text, nil, { simple = true, deadline = deadline })
  if not found then
    return nil, err
  elseif found.rows[1].held ~= 1 then
    return nil, session.taken_over(row)
  elseif found.rows[1].n ~= #row.buckets then
    return nil, errors.new("STALE_MAP", { message = ("the catalog has another owner or version for %d of the move's %d buckets"):
      format(#row.buckets - found.rows[1].n, #row.buckets) })
  end
  return true
end

--- Write down the owner of a move's buckets, at the next version, and where the move stands then: one transaction.
-- Yields.
-- @tparam table context
-- @tparam table row
-- @string owner
-- @string state
-- @tparam {number,...} versions before
-- @tparam ?func look at something else meanwhile; nothing is written when it returns nil and an error
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `STALE_MAP` when the catalog has other owners or versions than the move knows
function flip.run(context, row, owner, state, versions, look)
  local deadline = session.soon()
  local lease, err = context.catalog:lease(deadline)
  if not lease then
    return nil, err
  end
  local from, text = row.state, owner_text(context, row, owner, state, versions)
  local ok, done, problem = pcall(function()
    local answers, raised = task.gather({
      function()
        return { (look or yes)() }
      end,
      function()
        return { change_owner(lease, row, text, deadline) }
      end,
    })
    for i = 1, 2 do
      if not answers or not answers[i][1] then
        return nil, raised or answers[i][2]
      end
    end
    context.at(from .. ":before-commit")
    return lease:execute("COMMIT", nil, { deadline = deadline })
  end)
  lease:release()
  if not ok then
    error(done, 0)
  elseif not done then
    return nil, problem
  end
  row.state = state
  context.at(from .. ":after-commit")
  context.progress(row)
  return true
end

--- A move has got on, which the shards' own notes say: the catalog learns of it with what is written next.
-- @tparam table context
-- @tparam table row
-- @string state
function flip.pass(context, row, state)
  local from = row.state
  context.at(from .. ":before-saved")
  row.state = state
  context.at(from .. ":after-saved")
  context.progress(row)
end

return flip
