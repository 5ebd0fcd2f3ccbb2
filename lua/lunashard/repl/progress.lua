--- Tells of a job that moves rows while it makes progress, above the prompt.
-- @module lunashard.repl.progress

local rebalance = require("lunashard.serve.rebalance")
local task = require("lunashard.task")

local progress = {}

local OFTEN, SELDOM = 1, 10 -- seconds between two looks at the catalog, while a job runs and otherwise
local STEP = 10 -- percent

--- Tell of a job, when that says more than what was told last.
-- @tparam Session session
-- @tparam table told from `lunashard.rebalancer.job.describe`
function progress.tell(session, told)
  local now = ("%s %s %d"):format(told.job_id, told.status, math.floor(told.progress_percent / STEP))
  if session.job_told and session.job_told ~= now then
    session.notice(("job %s: %s, %.0f %%, %d of %d moves done%s"):format(told.job_id, told.status, told.progress_percent,
      told.moves_done, told.moves_total, told.error_message and ": " .. told.error_message or ""))
  end
  session.job_told = now
end

local function watch(session)
  while true do
    local told
    if session.notice and session.manager.catalog then
      told = rebalance.refresh(session.manager)
      if told then
        progress.tell(session, told)
      else
        session.job_told = "none"
      end
    end
    task.sleep(told and told.open and OFTEN or SELDOM)
  end
end

--- Look at the catalog now and then, until the session is closed.
-- @tparam Session session
-- @treturn Task
function progress.watch(session)
  return task.daemon(watch, session):watch()
end

return progress
