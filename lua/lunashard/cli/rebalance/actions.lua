--- What `lunashard rebalance` does: one function for each word.
-- @module lunashard.cli.rebalance.actions

local arguments = require("lunashard.cli.rebalance.arguments")
local cli = require("lunashard.cli")
local confirm = require("lunashard.cli.confirm")
local follow = require("lunashard.cli.rebalance.follow")
local json_text = require("lunashard.json_text")
local output = require("lunashard.cli.output")
local progress = require("lunashard.script.progress")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local view = require("lunashard.cli.rebalance.view")

local actions = {}

local WATCH_EVERY = 1 -- seconds

local fail, next_command = follow.fail, follow.next_command

function actions.plan(self, args)
  local requests, err = arguments.requests(self, args)
  local plans = {}
  for i, given in ipairs(requests or {}) do
    plans[i], err = self:plan(given)
    if not plans[i] then
      break
    end
  end
  if err then
    return fail(args, err)
  end
  for i, made in ipairs(plans) do
    if not args.json then
      io.stdout:write(i > 1 and "\n" or "", view.plan(made))
    else
      plans[i] = view.json(made)
    end
    for _, warning in ipairs(made.warnings) do
      cli.say("warning: %s", warning)
    end
  end
  if args.json then
    output.json({ plans = plans })
  elseif args.action == "plan" then
    cli.say("nothing was moved; next: %s rebalance start -c %s", cli.program(), cli.cluster_path(args))
  end
  return cli.exit.ok
end

local function show(args, last)
  if args.json then
    output.json(view.json(last))
  else
    io.stdout:write(view.status(last))
  end
end

local function start_one(self, args, given)
  local made, err = self:create_rebalance_job(given)
  if not made then
    return fail(args, err)
  end
  for _, warning in ipairs(made.plan.warnings) do
    cli.say("warning: %s", warning)
  end
  if not args.json then
    io.stderr:write(view.plan(made.plan))
  end
  local code, last = follow.run(self, args, made.job_id, "execute_job")
  if code == cli.exit.ok then
    show(args, last)
    if last.planner == "drain" then
      cli.say("%s owns nothing any more in this group: take it out of the cluster file when all groups are done", args.drain)
    end
  end
  return code
end

function actions.start(self, args)
  if args.dry_run then
    return actions.plan(self, args)
  end
  local ok, err = confirm.check(self.manager, { what = args.offline and "close rows while they move between shards"
    or "move rows between shards", yes = args.yes })
  local requests
  if ok then
    requests, err = arguments.requests(self, args)
  end
  if not requests then
    return fail(args, err)
  end
  for _, given in ipairs(requests) do
    local code = start_one(self, args, given)
    if code ~= cli.exit.ok then
      return code
    end
  end
  return cli.exit.ok
end

function actions.status(self, args)
  local told, err = self:get_job_status(args.job)
  while told and args.watch and (told.status == "running" or told.status == "pending") do
    if args.json then
      output.json(view.json(told))
    else
      io.stdout:write(progress.is_terminal() and system.isatty(1) and "\27[H\27[2J" or "", view.status(told))
    end
    io.stdout:flush()
    task.sleep(WATCH_EVERY)
    told, err = self:get_job_status(told.job_id)
  end
  if not told then
    return fail(args, err)
  end
  show(args, told)
  if told.interrupted or told.status == "paused" or told.status == "failed" then
    next_command(args, "resume", told.job_id)
  end
  return cli.exit.ok
end

-- The number of the job that is meant.
local function job_id(self, args)
  if args.job then
    return args.job
  end
  local told, err = self:get_job_status()
  return told and told.job_id, err
end

function actions.resume(self, args)
  local id, err = job_id(self, args)
  if not id then
    return fail(args, err)
  end
  local code, last = follow.run(self, args, id, "execute_job")
  if code == cli.exit.ok then
    show(args, last)
  end
  return code
end

local function simple(method, question)
  return function(self, args)
    local id, err = job_id(self, args)
    local ok = id
    if id and question then
      ok, err = confirm.check(self.manager, { what = question, yes = args.yes })
    end
    if ok then
      ok, err = self[method](self, id)
    end
    local told = ok and self:get_job_status(id)
    if not told then
      return fail(args, err)
    end
    show(args, told)
    return cli.exit.ok
  end
end

actions.pause = simple("pause_job")
actions.cancel = simple("cancel_job", "end a rebalance job")

function actions.rollback(self, args)
  local id, err = job_id(self, args)
  local told = id
  if id then
    told, err = self:get_job_status(id)
  end
  local ok
  if told then
    cli.say("rolling back job %d: what %d of its moves have brought away (%.0f rows) is moved back, %s, as it was moved there",
      id, told.moves_done, told.total_migrated, told.strategy == "offline" and "offline" or "live")
    ok, err = confirm.check(self.manager, { what = "move rows back", yes = args.yes })
  end
  if not ok then
    return fail(args, err)
  end
  local code, last = follow.run(self, args, id, "rollback_job")
  if code == cli.exit.ok then
    show(args, last)
  end
  return code
end

function actions.cleanup(self, args)
  local removed, err = self:cleanup()
  if not removed then
    return fail(args, err)
  end
  if args.json then
    output.json({ removed = json_text.list(removed) })
  else
    for _, line in ipairs(removed) do
      io.stdout:write(line, "\n")
    end
    cli.say("%s", #removed == 0 and "there was nothing to remove" or ("%d things removed"):format(#removed))
  end
  return cli.exit.ok
end

return actions
