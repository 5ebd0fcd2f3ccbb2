--- A job on one of its sources: what is made there once for all its moves, and when it goes.
-- That it was begun, and how far the lists of keys are, stands in the shard's notes under the number 0. The triggers go when
-- no transaction is left that began before the last row moved.
-- @module lunashard.rebalancer.source_job
-- @local

local capture = require("lunashard.rebalancer.capture")
local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local keys = require("lunashard.rebalancer.keys")
local labels = require("lunashard.rebalancer.labels")
local session = require("lunashard.rebalancer.session")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")

local source_job = {}

local LOCK_TIMEOUT = 200 -- ms; others wait behind us for as long
local PATIENCE = 60 -- seconds for transactions to end before triggers go
local BACK_OFF, MOST_BACK_OFF = 0.1, 3 -- seconds between attempts
local LOOK_AGAIN = 0.01 -- seconds

local function run(lease, sql, params, deadline)
  return lease:execute(sql, params, { deadline = deadline or session.soon() })
end

local ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('lunashard job ' || $1::bigint, 0))"
local STATE = "SELECT step, detail::text AS detail FROM lunashard.move WHERE job = $1 AND seq = 0 AND role = 'source'"
local BEGUN = [[
  INSERT INTO lunashard.move (job, seq, role, token, step, detail)
    VALUES ($1, 0, 'source', $2, 'capturing', jsonb_build_object('buckets', $3::text[]))]]
local PLACE = [[
  UPDATE lunashard.move SET detail = detail || jsonb_build_object('listing', $2::jsonb)
   WHERE job = $1 AND seq = 0 AND role = 'source']]
local LISTED = [[UPDATE lunashard.move SET step = 'listed' WHERE job = $1 AND seq = 0 AND role = 'source']]
local ALL_THERE = [[
  SELECT NOT EXISTS (SELECT unnest($2::text[]) EXCEPT SELECT jsonb_array_elements_text(m.detail->'buckets')) AS yes
  FROM lunashard.move m WHERE m.job = $1 AND m.seq = 0 AND m.role = 'source']]

-- Calls fn in a transaction that only one mover of the job is in, with the job's state on this source.
local function exclusively(source, row, point, fn, opts)
  return source:transaction(point, function(lease)
    local ok, err = run(lease, ONE_AT_A_TIME, { row.job }, opts.deadline)
    local state
    if ok then
      state, err = run(lease, STATE, { row.job })
    end
    if not state then
      return nil, err
    end
    return fn(lease, state.rows[1])
  end, opts)
end

local function is_lock_timeout(err)
  return errors.is(err, "SQL") and err.sqlstate == "55P03"
end

--- Give what was noted its bucket, where only Lua can tell it. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function source_job.name(context, source, row, tables)
  if context.in_sql then
    return true
  end
  return exclusively(source, row, "naming", function(lease)
    return labels.name(context, lease, row, tables)
  end, {})
end

--- Try again what could not have its locks in time. Yields.
-- @tparam table context
-- @tparam function fn
-- @return what fn returns
function source_job.patiently(context, fn)
  local pause = BACK_OFF
  while true do
    local value, err = fn()
    local reason = value == nil and is_lock_timeout(err) and context.stopping and context.stopping()
    if value ~= nil or not is_lock_timeout(err) then
      return value, err
    elseif reason then
      return nil, errors.new("CANCELED", { message = reason })
    end
    task.sleep(pause * (0.75 + math.random() / 2))
    pause = math.min(pause * 2, MOST_BACK_OFF)
  end
end

-- One page of one table, from where the last mover has come to; "listed" when there is no more of any. What is listed are the
-- buckets that the job began with here: it may have moves by now that it did not have then, or have given some up for a while.
local function list_some(context, lease, row, tables, state)
  local detail = cjson.decode(state.detail)
  local at = detail.listing or { done = 0 }
  local one = tables[at.done + 1]
  if not one then
    local sealed, err = keys.seal(lease, row, tables)
    if sealed then
      sealed, err = run(lease, LISTED, { row.job })
    end
    return sealed and "listed", err
  end
  local after, err = keys.list_page(context, lease, row, one, detail.buckets, at.after)
  if after == nil then
    return nil, err
  end
  local noted
  noted, err = run(lease, PLACE, { row.job, cjson.encode({ done = at.done + (after and 0 or 1), after = after or nil }) })
  return noted and "some", err
end

-- Several movers of a job may do so at the same time: the pages are shared.
local function list_all(context, source, row, tables)
  local reached, err
  repeat
    turn.give_way(context)
    reached, err = exclusively(source, row, "capturing.keys", function(lease, state)
      if state and state.step == "listed" then
        return "listed"
      end
      return list_some(context, lease, row, tables, state)
    end, { lock_timeout = 0 })
    local reason = reached == "some" and context.stopping()
    if reason then
      return nil, errors.new("CANCELED", { message = reason })
    end
  until reached ~= "some"
  return reached and true, err
end

--- From here on every write to the rows of a move is noted. Yields.
-- @tparam table context `bucket_of(table, alias)` -> SQL of a row's bucket, `group`, `stopping`
-- @tparam Session source
-- @tparam table row the move
-- @tparam {table,...} tables
-- @tparam {string,...} buckets of all moves of the job from this source
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function source_job.begin(context, source, row, tables, buckets)
  local ok, err = source_job.patiently(context, function()
    return exclusively(source, row, "capturing.triggers", function(lease, state)
      if state then
        return true
      end
      local made, problem = capture.make(context, lease, row, tables, buckets)
      if made then
        made, problem = run(lease, BEGUN, { row.job, context.token, buckets })
      end
      if made then
        made, problem = run(lease, "SELECT lunashard.enlist($1, $2)", { context.group, buckets })
      end
      return made, problem
    end, { lock_timeout = LOCK_TIMEOUT, brief = context })
  end)
  if ok then
    ok, err = list_all(context, source, row, tables)
  end
  if not ok then
    return nil, err
  end
  return source:transaction("capturing", function(lease)
    local all, problem = run(lease, ALL_THERE, { row.job, row.buckets })
    if not all then
      return nil, problem
    elseif not (all.rows[1] and all.rows[1].yes) then
      return nil, errors.new("INVALID", { message = ("move %d of job %d has buckets that were not planned when the job "
        .. "began on %s, or have left it since: cancel it, and make a job of its own for them"):format(row.seq, row.job,
        row.source) })
    end
    return context.in_sql and session.run(lease, keys.taking_over(row, tables)) or all
  end)
end

-- ---- the end ----------------------------------------------------------------------------

local RUNNING = [[
  SELECT l.virtualtransaction AS id FROM pg_locks l JOIN pg_stat_activity a USING (pid)
   WHERE l.locktype = 'virtualxid' AND l.granted AND a.datname = current_database() AND l.pid <> pg_backend_pid()
     AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))]]

-- Wait for the end of every transaction that runs now.
local function outlive(source)
  local waiting
  local deadline = task.now() + PATIENCE
  repeat
    local found, err = source:execute(RUNNING, { waiting, n = 1 })
    if not found then
      return nil, err
    end
    waiting = {}
    for i, one in ipairs(found.rows) do
      waiting[i] = one.id
    end
    if waiting[1] and task.now() > deadline then
      return nil, errors.new("TIMEOUT", { shard_id = source.member.shard_id, message = ("%d transactions that began before "
        .. "the last rows had moved still run: the triggers have to stay until they end"):format(#waiting) })
    elseif waiting[1] then
      task.sleep(LOOK_AGAIN)
    end
  until not waiting[1]
  return true
end

--- Drop what `begin` made, when no move of the job needs it any more. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row any move of the job from this source
-- @tparam {table,...} tables
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function source_job.finish(context, source, row, tables)
  local state, err = source:execute(STATE, { row.job })
  if not state then
    return nil, err
  elseif not state.rows[1] then
    return true
  end
  local ok
  ok, err = outlive(source)
  if not ok then
    return nil, err
  end
  for _, one in ipairs(tables) do
    ok, err = source_job.patiently(context, function()
      return exclusively(source, row, "done.triggers", function(lease)
        return capture.drop(lease, row, one)
      end, { lock_timeout = LOCK_TIMEOUT, brief = context })
    end)
    if not ok then
      return nil, err
    end
  end
  return exclusively(source, row, "done.capture", function(lease)
    return run(lease, "DELETE FROM lunashard.move WHERE job = $1 AND seq = 0 AND role = 'source'", { row.job })
  end, {})
end

return source_job
