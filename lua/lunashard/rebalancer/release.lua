--- What a job must not leave on shards while nobody runs it and guards are off: triggers would refuse every write then.
-- Moves that are under way keep theirs, and guards stay on for them; those that have not begun get theirs anew.
-- @module lunashard.rebalancer.release
-- @local

local errors = require("lunashard.errors")
local source_job = require("lunashard.rebalancer.source_job")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local shape = require("lunashard.rebalancer.shape")

local release = {}

local RESTING = { planned = true, done = true, aborted = true }

local TABLES = "SELECT name, shard_key FROM lunashard_catalog.grouped_table WHERE grp = $1 ORDER BY name COLLATE \"C\""
-- A mover that was believed dead, and stands still in a transaction, would be waited for.
local END_OTHERS = [[
  SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
   WHERE application_name LIKE $1 AND datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()]]
local NOTES = "SELECT seq, role FROM lunashard.move WHERE job = $1"
local ADOPT = [[
  UPDATE lunashard.move SET token = $4 WHERE job = $1 AND seq = $2 AND role = $3 AND token <= $4 RETURNING seq]]
local FORGET = "DELETE FROM lunashard.move WHERE job = $1 AND seq = $2 AND role = $3"

-- A session that may write, for one line of the shard's notes.
local function adopt(context, member, note, job)
  local one = session.new(member, { job = job.id, seq = note.seq }, note.role, context.token, context.at or function() end)
  local found, err = one:execute(ADOPT, { job.id, note.seq, note.role, context.token })
  if found and not found.rows[1] then
    err = session.taken_over(one.row)
  end
  if err then
    one:close()
    return nil, err
  end
  return one
end

local function drop_tables(one, tables)
  local name_of = one.role == "source" and names.holding or names.staging
  return one:transaction("released", function(lease)
    for _, of in ipairs(tables) do
      local ok, err = lease:execute("DROP TABLE IF EXISTS " .. name_of(one.row, of.n), nil, { deadline = session.soon() })
      if not ok then
        return nil, err
      end
    end
    return lease:execute(FORGET, { one.row.job, one.row.seq, one.role }, { deadline = session.soon() })
  end)
end

local function release_note(context, member, note, job, tables)
  local one, err = adopt(context, member, note, job)
  if not one then
    return nil, err
  end
  local ok, value
  ok, value, err = pcall(function()
    if note.seq == 0 then
      return source_job.finish(context, one, one.row, tables)
    end
    return drop_tables(one, tables)
  end)
  one:close()
  if not ok then
    error(value, 0)
  end
  return value, err
end

local function release_shard(context, member, job, states, tables)
  local pool = member.primary.pool
  local notes, err = pool:execute(END_OTHERS, { session.name({ job = job.id, seq = "%" }, "%") }, { deadline = session.soon() })
  if notes then
    notes, err = pool:execute(NOTES, { job.id }, { deadline = session.soon() })
  end
  if not notes then
    return nil, err
  end
  for _, note in ipairs(notes.rows) do
    if note.seq == 0 or RESTING[states[note.seq]] then
      local ok
      ok, err = release_note(context, member, note, job, tables)
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

--- Remove triggers and tables of a job none of whose moves is under way. Yields.
-- @tparam table context `manager`, `catalog`, `token`, `options`, `stopping`
-- @tparam table job `id`, `grp`, `moves`: a list, each with `seq`, `state`, `source`, `destination`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function release.run(context, job)
  local states, members, seen = {}, {}, {}
  for _, move in ipairs(job.moves) do
    states[move.seq] = move.state
    for _, id in ipairs({ move.source, move.destination }) do
      members[#members + 1] = not seen[id] and context.manager.by_id[id] or nil
      seen[id] = true
    end
  end
  local declared, err = context.catalog:execute(TABLES, { job.grp }, session.soon())
  if not declared then
    return nil, err
  end
  local failure
  for _, member in ipairs(members) do
    local tables, ok
    tables, err = shape.read(member, declared.rows, session.soon(), true)
    if tables then
      ok, err = release_shard(context, member, job, states, tables)
    end
    if not ok and errors.is(err, "LOCK_HELD") then
      return nil, err
    end
    failure = failure or not ok and err or nil
  end
  return not failure or nil, failure
end

return release
