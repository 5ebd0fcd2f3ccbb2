--- What a move writes into the catalog.
-- Every write goes with a look at the job's token: a mover that was taken over from writes nothing.
-- @module lunashard.rebalancer.flip
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local session = require("lunashard.rebalancer.session")

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

-- Buckets of open groups have no line before they move for the first time.
local OWNER = [[
  WITH changed AS (
    INSERT INTO lunashard_catalog.bucket AS b (grp, bucket, shard_id, version, changed)
      SELECT $1, w.bucket, $4, w.version + 1, $6 FROM unnest($2::text[], $3::bigint[]) AS w(bucket, version)
    ON CONFLICT (grp, bucket) DO UPDATE SET shard_id = excluded.shard_id, version = excluded.version,
        changed = excluded.changed
      WHERE b.shard_id = $5 AND b.version = excluded.version - 1
    RETURNING 1)
  SELECT count(*) AS n FROM changed]]

--- Write down the owner of a move's buckets, at the next version, and where the move stands then: one transaction.
-- Yields.
-- @tparam table context
-- @tparam table row
-- @string owner
-- @string state
-- @tparam {number,...} versions before
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `STALE_MAP` when the catalog has other owners or versions than the move knows
function flip.run(context, row, owner, state, versions)
  local deadline = session.soon()
  local lease, err = context.catalog:lease(deadline)
  if not lease then
    return nil, err
  end
  local failure -- what else is raised goes through
  local function fail(problem)
    failure = problem
    error(problem, 0)
  end
  local function run(sql, params)
    local result, problem = lease:execute(sql, params, { deadline = deadline })
    return result or fail(problem)
  end
  local from = row.state
  local ok, raised = pcall(function()
    run("BEGIN")
    local token = run("SELECT token FROM lunashard_catalog.job WHERE id = $1 FOR SHARE", { row.job }).rows[1]
    if not token or token.token ~= context.token then
      fail(session.taken_over(row))
    end
    local version = run("SELECT lunashard_catalog.next_version() AS v").rows[1].v
    local n = run(OWNER, { context.group, row.buckets, versions, owner, row.source, version }).rows[1].n
    if n ~= #row.buckets then
      fail(errors.new("STALE_MAP", { message = ("the catalog has another owner or version for %d of the move's %d buckets"):
        format(#row.buckets - n, #row.buckets) }))
    end
    run(SAVE, parameters(context, row, state))
    context.at(from .. ":before-commit")
    run("COMMIT")
  end)
  lease:release()
  if not ok then
    if failure then
      return nil, failure
    end
    error(raised, 0)
  end
  row.state = state
  context.at(from .. ":after-commit")
  context.progress(row)
  return true
end

return flip
