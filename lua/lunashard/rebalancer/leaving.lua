--- The end of a move: giving it up, and removing what it made.
-- @module lunashard.rebalancer.leaving
-- @local

local source_job = require("lunashard.rebalancer.source_job")
local errors = require("lunashard.errors")
local fence = require("lunashard.rebalancer.fence")
local flip = require("lunashard.rebalancer.flip")
local replicas = require("lunashard.rebalancer.replicas")
local session = require("lunashard.rebalancer.session")
local staging = require("lunashard.rebalancer.staging")

local leaving = {}

local NEEDED = [[
  SELECT count(*) AS n FROM lunashard_catalog.move
   WHERE job = $1 AND source = $2 AND seq <> $3 AND state NOT IN ('done', 'aborted') AND NOT cursor ? 'left']]

--- Remove what a move made. When it was the last one of its job on the source, the triggers go, too. Yields.
-- @tparam Mover mover
-- @tparam table opts `keep_staging`, `keep_holding`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function leaving.clean(mover, opts)
  local context, row = mover.context, mover.row
  local ok, err = true, nil
  if mover.at_destination.step == "unknown" then
    context.catalog:note("leftover", ("staging tables of move %d are still on %s, which could not be reached"):format(row.seq,
      row.destination), row.job, row.seq)
  else
    ok, err = staging.drop_destination(mover.destination, row, mover.tables, opts.keep_staging)
  end
  local needed
  if ok then
    needed, err = context.catalog:execute(NEEDED, { row.job, row.source, row.seq }, session.soon())
  end
  if needed and needed.rows[1].n == 0 then
    ok, err = source_job.finish(context, mover.source, row, mover.tables)
  end
  if not needed or not ok then
    return nil, err
  end
  return staging.drop_source(mover.source, row, mover.tables, opts.keep_holding)
end

local MARK = [[
  UPDATE lunashard.move SET step = 'aborted' WHERE job = $1 AND seq = $2 AND role = 'destination' AND step <> 'merged'
    RETURNING step]]

-- After this the destination cannot come to own the buckets any more.
local function bar_destination(mover)
  local row = mover.row
  return mover.destination:transaction("aborting.destination", function(lease)
    local found, err = lease:execute(MARK, { row.job, row.seq }, { deadline = session.soon() })
    if not found then
      return nil, err
    elseif not found.rows[1] then
      return nil, leaving.too_late(row)
    end
    return true
  end)
end

--- The error of a move that can only go on.
-- @tparam table row
-- @treturn lunashard.error `INVALID` with `committed`
function leaving.too_late(row)
  return errors.new("INVALID", { committed = true, message = ("move %d of job %d cannot be given up any more: %s owns its "
    .. "buckets; let it finish, and move them back"):format(row.seq, row.job, row.destination) })
end

--- Has a move been given up, as far as the shards know?
-- @tparam Mover mover
-- @treturn boolean
function leaving.has_begun(mover)
  local cursor = mover.row.cursor
  return mover.at_source.step == "aborted" or mover.at_destination.step == "aborted" or cursor.reopened == true
    or cursor.left == true and mover.row.state ~= "flipped"
end

-- The source owns its buckets again, at a version that no router knows yet.
local function reopen(mover)
  local context, row = mover.context, mover.row
  local versions, err = flip.versions(context, row)
  if not versions then
    return nil, err
  end
  if mover.at_source.step == "fenced" then
    local ok
    ok, err = fence.open(context, mover.source, row, versions)
    if not ok then
      return nil, err
    end
    mover.at_source.step = "aborted"
  end
  local ok
  ok, err = replicas.wait(mover.source, session.soon())
  if not ok then
    return nil, err
  end
  row.cursor.reopened = true
  ok, err = flip.run(context, row, row.source, row.state, versions)
  if not ok then
    row.cursor.reopened = nil
  end
  return ok, err
end

--- Give a move up. Yields.
-- @tparam Mover mover
-- @tparam[opt] lunashard.error why
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `committed` when it is too late
function leaving.give_up(mover, why)
  local context, row = mover.context, mover.row
  if row.state == "merged" or row.state == "flipped" or mover.at_destination.step == "merged" then
    return nil, leaving.too_late(row)
  end
  row.error_message = why and tostring(why.message) or row.error_message
  local ok, err = true, nil
  -- Nobody merges before the catalog says `verified`: up to then the destination need not be there.
  if row.state == "verified" and mover.at_destination.step ~= "aborted" then
    ok, err = bar_destination(mover)
  end
  if ok and (mover.at_source.step == "fenced" or mover.at_source.step == "aborted") and not row.cursor.reopened then
    ok, err = reopen(mover)
  end
  mover:end_turn()
  if ok then
    row.cursor.left = true
    ok, err = flip.save(context, row, row.state)
  end
  if ok then
    ok, err = leaving.clean(mover, { keep_staging = why and why.keeps_evidence })
  end
  if not ok then
    return nil, err
  end
  return flip.save(context, row, "aborted")
end

return leaving
