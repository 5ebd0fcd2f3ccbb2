--- How a script's run ends: what its error is called, what is told of it and of the shards, and the exit code.
-- @module lunashard.script.ending

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local job = require("lunashard.script.job")
local output = require("lunashard.script.output")
local progress = require("lunashard.script.progress")
local summary = require("lunashard.script.summary")
local task = require("lunashard.task")

local ending = {}

local EXIT = cli.exit

--- Metatable of what `--help` raises.
-- @local
ending.Help = {}

local Help, Usage = ending.Help, job.Usage

local function say(name, format, ...)
  progress.say(("lunashard: %s: %s"):format(name, select("#", ...) > 0 and format:format(...) or format))
end

--- A message handler for `xpcall`: what is raised on purpose passes as it is, a mistake gets its traceback.
-- @param err
-- @return
function ending.on_raise(err)
  local kind = getmetatable(err)
  local is_told = errors.is(err) or type(err) == "table" and err.plain
  if kind == Help or kind == Usage or is_told or type(err) == "string" and err:find("interrupted$") then
    return err
  end
  return { bug = debug.traceback(tostring(err), 2) }
end

--- The exit code.
-- @tparam table state `job`, once there is one
-- @param err nil when nothing was raised
-- @treturn number
function ending.code_of(state, err)
  local self = state.job
  if getmetatable(err) == Usage then
    return EXIT.usage
  elseif err ~= nil then
    return errors.is(err) and err.exit_code or errors.exit_code(err)
  end
  local code = self.summary:exit_code()
  if code == EXIT.ok and self.difference_count > 0 and self.args.exit_code then
    return EXIT.differences
  end
  return code
end

--- Say on stderr what became of it all.
-- @tparam table spec
-- @tparam table state
-- @param err
function ending.tell(spec, state, err)
  local self = state.job
  if getmetatable(err) == Usage then
    say(spec.name, "%s (see --help)", err.message)
  elseif type(err) == "table" and (err.bug or err.plain) then
    say(spec.name, "%s", err.bug or err.plain)
  elseif state.interrupted then
    say(spec.name, "interrupted")
  elseif errors.is(err) then
    say(spec.name, "%s%s", tostring(err), err.hint and "; " .. err.hint or "")
  elseif err ~= nil then
    say(spec.name, "%s", tostring(err))
  end
  if self and #self.summary.shards > 0 then
    for _, line in ipairs(self.summary:problems()) do
      say(spec.name, "%s", line)
    end
    say(spec.name, "%s%s", self.dry_run and "dry run, nothing was changed: " or "", self.summary:text())
  end
  if self and self.next_command then
    say(spec.name, "next: %s", self.next_command)
  end
end

--- The shards that the error is about belong into the summary, too.
-- @tparam Job self
-- @param err
function ending.note_shards(self, err)
  local failed = errors.is(err) and err.code ~= "CANCELED" and (err.failed or { { shard_id = err.shard_id, error = err } }) or {}
  for _, failure in ipairs(failed) do
    local id = failure.shard_id
    if self.manager.by_id[id] and not self.summary.by_id[id] then
      self.summary:add(id, summary.state_of(failure.error)).is_told = true
    end
  end
end

local function error_table(err)
  if getmetatable(err) == Usage then
    return { code = "USAGE", message = err.message }
  elseif type(err) == "table" and (err.bug or err.plain) then
    return { message = (err.bug or err.plain):match("[^\n]*") }
  end
  return errors.to_table(err)
end

--- Say it in JSON on stdout.
-- @tparam table spec
-- @tparam table state
-- @param err
-- @number code
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error stdout cannot be written
function ending.tell_json(spec, state, err, code)
  local self = state.job
  local document = { script = spec.name, ok = code == EXIT.ok, exit_code = code, error = err ~= nil and error_table(err) or nil }
  if self then
    document.cluster, document.dry_run = self.manager.name, self.dry_run
    document.duration = task.now() - state.started
    document.shards, document.counts = output.list(self.summary.shards), self.summary:counts()
    document.result, document.next = self.result, self.next_command
  end
  return output.json(document)
end

return ending
