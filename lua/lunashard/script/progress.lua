--- Progress on stderr: a bar on a terminal, a line now and then elsewhere.
-- It is drawn by a task of its own, so that a stall is seen, too.
-- @module lunashard.script.progress

local meter = require("lunashard.script.meter")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local terminal = require("lunashard.core.terminal")

local progress = {}

local Progress = {}
Progress.__index = Progress

local DRAW, TELL = 0.2, 5 -- seconds between two drawings of the bar, and between two lines
local STALLED = 3 -- seconds without a change that are worth a word
local BAR = 20
local ERASE = "\r\27[K"

local drawn -- the bar that is on the terminal's last line now

--- Can a line of stderr be drawn anew?
-- @treturn boolean
function progress.is_terminal()
  local term = os.getenv("TERM")
  return system.isatty(2) and term ~= nil and term ~= "" and term ~= "dumb"
end

--- Say a line on stderr, above the bar where there is one.
-- @string line
function progress.say(line)
  io.stderr:write(drawn and ERASE or "", line, "\n")
  if drawn then
    drawn:draw()
  end
end

--- 90 is `1:30`.
-- @number seconds
-- @treturn string
function progress.clock(seconds)
  local whole = math.ceil(seconds)
  if whole >= 3600 then
    return ("%d:%02d:%02d"):format(whole / 3600, whole % 3600 / 60, whole % 60)
  end
  return ("%d:%02d"):format(whole / 60, whole % 60)
end

local function rate_text(rate)
  return rate >= 100 and ("%d/s"):format(rate) or ("%.1f/s"):format(rate)
end

-- The parts that are known: how much, how fast, how long yet, and whether it has stopped.
local function facts(self, now)
  local seen = self.meter:read(now)
  local parts = {}
  local unit = self.unit and " " .. self.unit or ""
  if seen.total then
    parts[1] = ("%d of %d%s"):format(seen.done, seen.total, unit)
  else
    parts[1] = ("%d%s"):format(seen.done, unit)
  end
  if seen.rate and seen.done > 0 then
    parts[#parts + 1] = rate_text(seen.rate)
  end
  if seen.left and seen.share < 1 then
    parts[#parts + 1] = progress.clock(seen.left) .. " left"
  end
  if seen.idle >= STALLED then
    parts[#parts + 1] = ("no change for %d s"):format(seen.idle)
  end
  return seen, table.concat(parts, ", ")
end

--- The line for a file or a log.
-- @local
-- @number now
-- @treturn string
function Progress:line(now)
  local seen, text = facts(self, now)
  return ("%s: %s: %s%s"):format(self.name, self.phase, text,
    seen.share and (" (%d %%)"):format(math.floor(seen.share * 100)) or "")
end

--- Draw the bar.
-- @local
function Progress:draw()
  local seen, text = facts(self, task.now())
  local bar = ""
  if seen.share then
    local full = math.floor(seen.share * BAR)
    bar = ("[%s%s] %3d %% "):format(("#"):rep(full), ("."):rep(BAR - full), math.floor(seen.share * 100))
  end
  local width = (terminal.size(2) or 80) - 1 -- one that fills the line would wrap
  io.stderr:write(ERASE, ("%s %s%s"):format(self.phase, bar, text):sub(1, width))
  drawn = self
end

local function work(self)
  while not self.finished do
    task.sleep(self.is_bar and DRAW or TELL)
    if self.finished then
      return
    elseif self.is_bar then
      self:draw()
    else
      progress.say("lunashard: " .. self:line(task.now()))
    end
  end
end

--- Begin to show progress. It ends with `finish`.
-- @string name whose
-- @string phase what is being done
-- @tparam ?number total
-- @string[opt] unit such as `rows`
-- @treturn Progress
function progress.new(name, phase, total, unit)
  local self = setmetatable({ name = name, phase = phase, unit = unit, meter = meter.new(total, task.now()),
    is_bar = progress.is_terminal() }, Progress)
  self.task = task.daemon(work, self)
  if self.is_bar then
    self:draw()
  end
  return self
end

--- So much more is done.
-- @int[opt=1] n
function Progress:add(n)
  self.meter:set(self.meter.done + (n or 1), task.now())
end

--- So much is done in all.
-- @int n
function Progress:set(n)
  self.meter:set(n, task.now())
end

--- The work, or this phase of it, is over: the bar makes way for one line. May be called again.
function Progress:finish()
  if self.finished then
    return
  end
  self.finished = true
  self.task:cancel()
  if drawn == self then
    io.stderr:write(ERASE)
    drawn = nil
  end
  local seen = self.meter:read(task.now())
  local unit = self.unit and " " .. self.unit or ""
  progress.say(("lunashard: %s: %s: %d%s in %.1f s"):format(self.name, self.phase, seen.done, unit, seen.elapsed))
end

return progress
