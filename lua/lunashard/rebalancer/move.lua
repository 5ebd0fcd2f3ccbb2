--- Moving a set of buckets from one shard to another while both are in use.
-- A move goes through these states, which the catalog keeps; the shards note what was done there in the same
-- transaction, so that whatever ends a mover, another one goes on from where it stood.
--
--     planned    staging tables on the destination, holding tables on the source
--     capturing  triggers that note what is written, and the list of the keys that move
--     copying    rows go into the staging tables, in chunks
--     catchup    rows that were written meanwhile are read again, until few are left
--     fencing    the source gives the buckets up: from here on statements for them wait
--     fenced     the last rows; count and checksum of both sides
--     verified   the destination takes the rows into its tables and owns the buckets
--     merged     the map says so: statements go on
--     flipped    the rows leave the source; everything that was made for the move is removed
--     done, or aborted
--
-- At any time at most one shard owns a bucket; the map changes after the destination owns it, and rows leave the source
-- after the map has changed. Up to `verified` a move can be given up, from `merged` on it can only be finished.
-- @module lunashard.rebalancer.move
-- @local

local errors = require("lunashard.errors")
local fence = require("lunashard.rebalancer.fence")
local leaving = require("lunashard.rebalancer.leaving")
local mover = require("lunashard.rebalancer.mover")
local session = require("lunashard.rebalancer.session")
local steps = require("lunashard.rebalancer.steps")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")

local move = {}

--- The states in their order.
move.STATES = { "planned", "capturing", "copying", "catchup", "fencing", "fenced", "verified", "merged", "flipped", "done",
  "aborted" }

local TRIES = 6
local FIRST_PAUSE = 0.05 -- seconds, doubled with each try

local PASSING = { SHARD_DOWN = true, UNKNOWN_OUTCOME = true, TIMEOUT = true, POOL_EXHAUSTED = true, READ_ONLY = true }

local function is_passing(err)
  return PASSING[err.code] or err.retryable and err.code ~= "LOCK_HELD" and err.code ~= "STALE_MAP"
end

local function is_over(row)
  return row.state == "done" or row.state == "aborted"
end

-- A change of ownership that was rolled back is to be made up for.
local function mend(one)
  local ok, err = fence.mend(one.context, one.source)
  if ok and one.at_destination.step ~= "unknown" then
    ok, err = fence.mend(one.context, one.destination)
  end
  return ok, err
end

-- Read everything anew after a failure, several times if need be.
local function refresh(one)
  local pause, ok, err = FIRST_PAUSE, nil, nil
  for _ = 1, TRIES do
    one.source:discard("what the server has done is to be read anew")
    one.destination:discard("what the server has done is to be read anew")
    ok, err = one:refresh()
    if ok then
      ok, err = mend(one)
    end
    if ok or not is_passing(err) or one.fenced_at and task.now() > one:cutover_deadline() then
      break
    end
    task.sleep(pause)
    pause = pause * 2
  end
  return ok, err
end

-- The destination is out of reach, and cannot have come to own the buckets yet: the source opens them again.
local function give_back(one, err)
  if one.fenced_at and one:refresh(true) and one.at_source.step == "fenced" and one.row.state ~= "verified" then
    leaving.give_up(one, err)
  end
end

-- What becomes of a move whose step has failed: true to try again.
local function after_failure(one, err, tries)
  if errors.is(err, "SQL") and err.sqlstate == "LS005" then
    return nil, session.taken_over(one.row)
  elseif err.code == "LOCK_HELD" then
    return nil, err
  elseif err.code == "CANCELED" then
    if one.at_source.step == "fenced" then -- offline: who stops while buckets are closed gives them back
      local opened, problem = leaving.give_up(one, err)
      err.cause = err.cause or not opened and problem or nil
    end
    return nil, err
  end
  local ok, problem = refresh(one)
  if not ok and problem.code == "LOCK_HELD" then
    return nil, problem
  elseif not ok then
    give_back(one, err)
    return nil, err
  end
  local is_fenced = one.at_source.step == "fenced"
  local can_go_back = one.at_destination.step ~= "merged" and one.row.state ~= "merged" and one.row.state ~= "flipped"
  if is_passing(err) and tries < TRIES and not (is_fenced and can_go_back and task.now() > one:cutover_deadline()) then
    task.sleep(FIRST_PAUSE * 2 ^ tries)
    return true
  elseif can_go_back and (is_fenced or err.gives_up) then
    ok, problem = leaving.give_up(one, err)
    if not ok then
      err.cause = err.cause or problem
    end
  end
  return nil, err
end

local function run_steps(one)
  local tries, state = 0, one.row.state
  while not is_over(one.row) do
    local ok, err
    if leaving.has_begun(one) then
      return leaving.give_up(one)
    end
    if one.at_source.step ~= "fenced" or one.row.state == "flipped" then -- nobody waits for this move
      turn.give_way(one.context)
    end
    ok, err = steps[one.row.state](one)
    if not ok then
      tries = state == one.row.state and tries + 1 or 1
      state = one.row.state
      ok, err = after_failure(one, err, tries)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

-- Opens the move, mends what its last mover may have left, and closes it however it ends.
local function with_mover(context, row, lenient, fn)
  local one, err = mover.open(context, row, lenient)
  if not one then
    return nil, err
  elseif one.is_finished then
    return true
  end
  local ok, value
  ok, value, err = pcall(function()
    local mended, problem = mend(one)
    if not mended then
      return nil, problem
    end
    return fn(one)
  end)
  if not ok then
    one.source:discard("the mover was interrupted")
    one.destination:discard("the mover was interrupted")
  end
  one:close()
  if not ok then
    error(value, 0)
  end
  return value, err
end

--- Go on with a move from wherever it stands, to its end. Yields.
-- A step that fails is tried again when what failed may pass; one that fails for good before the destination owns the
-- buckets gives the move up (`row.state` is `aborted` then, `row.error_message` says why), as does one that takes longer
-- than `max_cutover` between fence and merge.
-- @tparam table context `manager`, `catalog`, `token` (the job's, see `lunashard.rebalancer.lock`); `options`: `batch_size`
--   [5000 rows], `throttle_ms` [0] between chunks, `enable_validation` [true], `max_cutover` [2 s], `purge_delay` [0 s];
--   `progress(row)` is called when the row has changed (`rows_copied`, `bytes`, `backlog`, `state`, `pause_seconds`);
--   `stopping()` gives a reason to stop, heeded up to the fence; `at(point)` is called around every commit, for specs
-- @tparam table row the move's row in the catalog, at least `job` and `seq`; it is kept up to date
-- @treturn[1] boolean true, the move is done
-- @treturn[2] nil
-- @treturn[2] lunashard.error `CANCELED` (with the reason to stop), `LOCK_HELD` (another mover has taken over), or why it failed
function move.run(context, row)
  return with_mover(context, row, false, run_steps)
end

--- Give a move up and remove all that it made. Yields.
-- @tparam table context as for `run`
-- @tparam table row
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with `committed`: the destination owns the buckets, `run` must finish the move
function move.abort(context, row)
  return with_mover(context, row, true, function(one)
    return leaving.give_up(one)
  end)
end

return move
