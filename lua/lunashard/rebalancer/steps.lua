--- What a mover does in each state of a move. Every step may be done again from its beginning.
-- @module lunashard.rebalancer.steps
-- @local

local source_job = require("lunashard.rebalancer.source_job")
local catchup = require("lunashard.rebalancer.catchup")
local copy = require("lunashard.rebalancer.copy")
local cutover = require("lunashard.rebalancer.cutover")
local errors = require("lunashard.errors")
local fence = require("lunashard.rebalancer.fence")
local flip = require("lunashard.rebalancer.flip")
local leaving = require("lunashard.rebalancer.leaving")
local merge = require("lunashard.rebalancer.merge")
local purge = require("lunashard.rebalancer.purge")
local replicas = require("lunashard.rebalancer.replicas")
local sequences = require("lunashard.rebalancer.sequences")
local session = require("lunashard.rebalancer.session")
local staging = require("lunashard.rebalancer.staging")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")
local verify = require("lunashard.rebalancer.verify")

local steps = {}

local SHORT = 200 -- keys: a queue that is as short as this is drained under the fence
local SAVE_INTERVAL = 0.5 -- seconds between two notes of progress
local BACK_OFF, MOST_BACK_OFF = 0.15, 5 -- seconds between attempts to fence

function steps.planned(mover)
  local row = mover.row
  local ok, err = true, nil
  if mover.at_destination.step ~= "planned" then -- left when the move was given up while this side was out of reach
    ok, err = staging.drop_destination(mover.destination, row, mover.tables)
    if ok then
      ok, err = mover:refresh()
    end
  end
  if ok then
    ok, err = staging.compare(row, mover.tables, mover.others)
  end
  if ok and mover.at_destination.step == "planned" then
    ok, err = staging.prepare_destination(mover.destination, row, mover.others)
    mover.at_destination = ok or mover.at_destination
  end
  if ok and mover.at_source.step == "planned" then
    ok, err = staging.prepare_source(mover.source, row, mover.tables)
    mover.at_source = ok or mover.at_source
  end
  if not ok then
    return nil, err
  end
  return flip.save(mover.context, row, "capturing")
end

local ALL_BUCKETS = [[
  SELECT array_agg(DISTINCT b) AS buckets FROM lunashard_catalog.move m CROSS JOIN unnest(m.buckets) AS b
   WHERE m.job = $1 AND m.source = $2 AND m.state NOT IN ('done', 'aborted')]]

function steps.capturing(mover)
  local context, row = mover.context, mover.row
  local found, err = context.catalog:execute(ALL_BUCKETS, { row.job, row.source }, session.soon())
  local ok
  if found then
    ok, err = source_job.begin(context, mover.source, row, mover.tables, found.rows[1].buckets)
  end
  if not ok then
    return nil, err
  end
  return flip.save(context, row, mover:is_offline() and "fencing" or "copying")
end

local function bring_batch(mover, progress, deadline)
  return catchup.batch(mover.context, mover.sides, mover.row, mover.tables, progress, deadline)
end

local function note_progress(mover, progress)
  local row = mover.row
  row.rows_copied, row.bytes = progress.rows, progress.bytes
  if task.now() - (mover.saved_at or 0) >= SAVE_INTERVAL then
    mover.saved_at = task.now()
    return flip.save(mover.context, row, row.state)
  end
  mover.context.progress(row)
  return true
end

local function copy_all(mover)
  local may_stop = mover:is_offline() or mover.at_source.step ~= "fenced"
  local progress, err = copy.run(mover.context, mover.sides, mover.row, mover.tables, mover.at_destination.detail.progress,
    function(progress)
      mover.at_destination.detail.progress = progress
      local ok, problem = note_progress(mover, progress)
      if ok then
        ok, problem = bring_batch(mover, progress)
      end
      local stopped = may_stop and mover:stopped()
      return ok and not stopped and true or nil, problem or stopped
    end)
  if progress then -- there may have been nothing left to copy, and nobody who had noted how much there was
    mover.row.rows_copied, mover.row.bytes = progress.rows, progress.bytes
  end
  return progress and true, err
end

function steps.copying(mover)
  local ok, err = copy_all(mover)
  if not ok then
    return nil, err
  end
  return flip.save(mover.context, mover.row, "catchup")
end

-- Apply what has been written until little is left.
local function catch_up(mover, enough)
  local left, err
  repeat
    left, err = bring_batch(mover, mover.at_destination.detail.progress)
    mover.row.backlog = left or mover.row.backlog
    err = err or mover:stopped()
  until err or left <= enough
  return not err and true or nil, err
end

function steps.catchup(mover)
  local ok, err = catch_up(mover, SHORT)
  if not ok then
    return nil, err
  end
  return flip.save(mover.context, mover.row, "fencing")
end

-- One attempt of the plain way. The turn is kept from the fence on.
local function try_fence(mover)
  local context, row = mover.context, mover.row
  mover.release_turn = turn.take(context.manager, { row.source, row.destination })
  local ok, err = catch_up(mover, SHORT)
  local versions
  if ok then
    versions, err = flip.versions(context, row)
  end
  if versions then
    ok, err = fence.close(context, mover.source, row, mover.tables, {
      versions = versions, source_fingerprint = mover.at_source.detail.fingerprint,
      locked = function()
        mover.fenced_at = task.now()
      end,
    })
  end
  if not versions or not ok then
    mover:end_turn()
    return nil, err
  end
  mover.at_source.step = "fenced"
  return true
end

local function try_fast(mover)
  local ok, err = catch_up(mover, SHORT)
  if not ok then
    return nil, err
  end
  return cutover.run(mover)
end

function steps.fencing(mover)
  local context, row, pause = mover.context, mover.row, BACK_OFF
  while mover.at_source.step ~= "fenced" do
    local ok, err = (cutover.is_possible(mover) and try_fast or try_fence)(mover)
    if ok == nil and not (errors.is(err, "SQL") and err.sqlstate == "55P03") then
      return nil, err
    elseif ok == nil then
      mover.fenced_at = nil
      task.sleep(pause * (0.75 + math.random() / 2))
      pause = math.min(pause * 2, MOST_BACK_OFF)
      local stopped = mover:stopped()
      if stopped then
        return nil, stopped
      end
    end
  end
  if row.state ~= "fencing" then -- the fast way has come farther
    return true
  end
  local ok, err = replicas.wait(mover.source, mover:cutover_deadline())
  if not ok then
    return nil, err
  end
  return flip.save(context, row, "fenced")
end

-- A failover may have undone a step that the catalog knows as done.
local function expect(mover, side, wanted)
  local step = side == mover.source and mover.at_source.step or mover.at_destination.step
  if step == wanted then
    return true
  end
  return nil, errors.new("STALE_MAP", { shard_id = side.member.shard_id, message =
    ("move %d of job %d is %s in the catalog, but %s says %s: a failover has lost what was done there"):format(mover.row.seq,
    mover.row.job, mover.row.state, side.member.shard_id, step) })
end

-- Bring what is left to the staging tables, and compare them. Nobody writes any more.
local function bring_last(mover)
  local context, row, deadline = mover.context, mover.row, mover:cutover_deadline()
  local ok, err = expect(mover, mover.source, "fenced")
  if ok then -- there is something to copy when the buckets were closed before
    ok, err = copy_all(mover)
  end
  local left
  while ok and left ~= 0 do
    left, err = bring_batch(mover, mover.at_destination.detail.progress, deadline)
    ok = left
  end
  local checks
  if ok and context.options.enable_validation then
    checks, err = verify.run(context, mover.sides, row, mover.tables, deadline)
  end
  if not ok or err then
    return nil, err
  end
  row.cursor.checks, mover.is_brought = checks or {}, true
  return true
end

function steps.fenced(mover)
  local ok, err = bring_last(mover)
  if not ok then
    return nil, err
  end
  return flip.save(mover.context, mover.row, "verified")
end

local function merge_plainly(mover)
  local context, row = mover.context, mover.row
  local ok, err = true, nil
  if not mover.is_brought then -- the fast way leaves the staging tables as they are
    ok, err = bring_last(mover)
  end
  local versions
  if ok then
    versions, err = flip.versions(context, row)
  end
  if versions then
    ok, err = sequences.raise(mover.sides, mover.tables, mover.others)
  end
  if not versions or not ok then
    return nil, err
  end
  return merge.run(context, mover.destination, row, mover.others, { checks = row.cursor.checks, versions = versions,
    destination_fingerprint = mover.at_destination.detail.fingerprint }, mover:cutover_deadline())
end

function steps.verified(mover)
  if mover.at_destination.step ~= "merged" then
    local ok, err = merge_plainly(mover)
    if not ok then
      return nil, err
    end
    mover.at_destination.step = "merged"
  end
  local ok, err = replicas.wait(mover.destination, session.soon())
  if not ok then
    return nil, err
  end
  flip.pass(mover.context, mover.row, "merged")
  return true
end

-- (= ANY ($2) of a prepared statement compares each row with each element.)
local OWNED = [[
  SELECT (SELECT count(*) FROM lunashard.bucket b WHERE b.grp = $1 AND b.bucket IN (SELECT unnest($2::text[]))) AS n,
    (SELECT m.step FROM lunashard.move m WHERE m.job = $3 AND m.seq = $4 AND m.role = $5) AS step]]

-- Just before the map changes both sides are asked once more: there may be other servers behind their names now.
local function check_owner(mover, side, step, n)
  local row = mover.row
  local found, err = side:execute(OWNED, { mover.context.group, row.buckets, row.job, row.seq, side.role })
  if not found then
    return nil, err
  elseif found.rows[1].step ~= step or found.rows[1].n ~= n then
    return nil, errors.new("STALE_MAP", { shard_id = side.member.shard_id, message =
      ("%s should own %d of the move's %d buckets (%s), but owns %d (%s): a failover has lost what was done there"):format(
      side.member.shard_id, n, #row.buckets, step, found.rows[1].n, tostring(found.rows[1].step)) })
  end
  return true
end

-- Both are connected, so that they can be asked by tasks of their own.
local function check_owners(mover)
  local looks, err = task.gather({
    function()
      return { check_owner(mover, mover.source, "fenced", 0) }
    end,
    function()
      return { check_owner(mover, mover.destination, "merged", #mover.row.buckets) }
    end,
  })
  if not looks then
    return nil, err
  end
  return looks[1][1] and looks[2][1], looks[1][2] or looks[2][2]
end

function steps.merged(mover)
  local context, row, versions, ok, err = mover.context, mover.row, mover.versions, nil, nil
  if not versions then
    versions, err = flip.versions(context, row)
  end
  if versions then
    ok, err = mover:connect()
  end
  if not versions or not ok then
    return nil, err
  end
  row.pause_seconds = mover.fenced_at and task.now() - mover.fenced_at or row.pause_seconds
  ok, err = flip.run(context, row, row.destination, "flipped", versions, function()
    return check_owners(mover)
  end)
  if ok and mover.fenced_at then
    row.pause_seconds = task.now() - mover.fenced_at
  end
  if ok then
    mover:end_turn(row.destination)
  end
  return ok, err
end

function steps.flipped(mover)
  local context, row = mover.context, mover.row
  if not row.cursor.left then
    if mover.at_source.step ~= "purged" then
      local ok, err = expect(mover, mover.source, "fenced")
      if ok then -- a catalog that had forgotten would lead to where nothing is left
        ok, err = replicas.wait_for_catalog(context, session.soon())
      end
      if ok then
        ok, err = source_job.patiently(context, function()
          return purge.run(context, mover.source, row, mover.tables, row.cursor.checks)
        end)
      end
      if not ok then
        return nil, err
      end
      mover.at_source.step = "purged"
    end
    mover:end_turn()
    local ok, err = replicas.wait(mover.source, session.soon())
    if ok then
      row.cursor.left = true
      ok, err = flip.save(context, row, "flipped")
    end
    if not ok then
      return nil, err
    end
  end
  local ok, err = leaving.clean(mover, { keep_holding = context.options.purge_delay > 0 })
  if not ok then
    return nil, err
  end
  return flip.save(context, row, "done")
end

return steps
