--- A session at a terminal: reads a text, runs it, and again; Ctrl-C stops what runs, notices appear above the prompt.
-- @module lunashard.repl.console

local complete = require("lunashard.repl.complete")
local core = require("lunashard.core.task")
local editor = require("lunashard.repl.editor")
local history = require("lunashard.repl.history")
local pager = require("lunashard.repl.pager")
local plain = require("lunashard.repl.plain")
local signal = require("lunashard.core.signal")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local terminal = require("lunashard.core.terminal")
local warn = require("lunashard.warn")

local console = {}

local SIGINT, SIGCONT, SIGTSTP, SIGWINCH = 2, 18, 20, 28
local SIGNALS = { SIGINT, SIGCONT, SIGTSTP, SIGWINCH }

local Console = {}
Console.__index = Console

local wait_signal = task.waits(signal.wait)

--- Is there somebody to talk to?
-- @treturn ?number the descriptor to draw on; nil when there is none
function console.terminal()
  if not system.isatty(0) then
    return nil
  end
  return system.isatty(2) and 2 or system.isatty(1) and 1 or nil
end

local function is_dumb(fd)
  local term = os.getenv("TERM")
  return not term or term == "" or term == "dumb" or not terminal.size(fd)
end

local function on_signal(self, signo)
  if signo == SIGINT then
    if self.reader.is_reading then
      self.reader:interrupt()
    elseif not self.is_paging then
      self.is_interrupted = true
      self.session:interrupt()
    end
  elseif signo == SIGWINCH then
    self.reader:resized()
  elseif signo == SIGCONT then
    self.reader:resumed()
  elseif self.reader.is_reading then
    self.reader:suspend()
  else
    terminal.stop()
  end
end

local function watch_signals(self)
  while true do
    wait_signal()
    local signo = signal.take()
    while signo do
      on_signal(self, signo)
      signo = signal.take()
    end
  end
end

--- A console on the terminal. It is to be closed.
-- @tparam table session see `lunashard.repl.session`
-- @treturn Console
function console.new(session)
  local fd = assert(console.terminal(), "there is no terminal")
  local self = setmetatable({ session = session, fd = fd }, Console)
  local problem
  self.history, problem = history.open(history.path())
  self.completer = session.completer or complete.new(session)
  local options = {
    fd = fd,
    history = self.history,
    complete = function(text, cursor)
      return self.completer:candidates(text, cursor)
    end,
    is_complete = function(text)
      return session:feed(text) == "done"
    end,
  }
  self.reader = is_dumb(fd) and plain.new(options) or editor.new(options)
  session.notice = function(text)
    self.reader:notice(text)
  end
  session.ask = function(question)
    return self:ask(question)
  end
  session.page = function(text)
    self.is_paging = true -- the pager's Ctrl-C is its own
    local ok, shown = pcall(pager.show, fd, text)
    self.is_paging = false
    if not ok then
      error(shown, 0)
    end
    return shown
  end
  session.gone = function()
    self.reader:hang_up()
  end
  session.width = function()
    return system.isatty(1) and terminal.size(1) or nil
  end
  -- Nothing else may write where a text is edited.
  self.warn_before = warn.set(function(message)
    self.reader:notice("lunashard: " .. message)
  end)
  core.set_say(function(message)
    self.reader:notice("lunashard: " .. message)
  end)
  for _, signo in ipairs(SIGNALS) do
    signal.catch(signo)
  end
  self.watching = task.daemon(watch_signals, self)
  if problem then
    warn.emit(("history: %s; what you enter is not kept"):format(problem))
  end
  return self
end

--- Ask for a line. Yields.
-- @string question
-- @treturn ?string nil when there is none (Ctrl-C, Ctrl-D)
function Console:ask(question)
  io.stdout:flush()
  local entries, is_complete, completes = self.reader.history, self.reader.is_complete, self.reader.complete
  self.reader.history, self.reader.is_complete = { entries = {} }, nil
  self.reader.complete = function()
    return nil
  end
  local ok, answer = pcall(self.reader.read, self.reader, function()
    return question:find("%s$") and question or question .. " ", ""
  end, { is_question = true })
  self.reader.history, self.reader.is_complete, self.reader.complete = entries, is_complete, completes
  if not ok then
    error(answer, 0)
  end
  return answer
end

local function run(self, text)
  local problem = self.history:add(text)
  if problem then
    warn.emit(("history: %s; what you enter is not kept from now on"):format(problem))
  end
  if self.reader:take_interrupt() then
    return
  end
  -- A signal that came before the line was under way stops it when it is.
  task.daemon(function()
    if self.is_interrupted then
      self.session:interrupt()
    end
  end)
  self.session:run(text)
  self.completer:ran(text)
  local written, reason = io.stdout:flush()
  if not written then
    self.reader:notice("cannot write: " .. reason)
  end
end

local function may_leave(self)
  local unfinished = self.session:unfinished()
  if not unfinished then
    return true
  end
  local answer = self:ask(unfinished .. "; leave all the same? [y/N]")
  return answer ~= nil and answer:lower():find("^%s*y") ~= nil
end

--- Read and run until the user leaves. Yields.
function Console:run()
  local session = self.session
  while not session.is_done do
    self.is_interrupted = false
    local text, why = self.reader:read(function()
      return session:prompt(false), session:prompt(true)
    end)
    if text and text:find("%S") then
      run(self, text)
    elseif not text and (why == "hangup" or may_leave(self)) then
      return
    end
  end
end

--- Give the terminal back. May be called again.
function Console:close()
  if self.watching then
    self.watching:cancel()
    self.watching = nil
    for _, signo in ipairs(SIGNALS) do
      signal.release(signo)
    end
    self.reader:close()
    if self.completer ~= self.session.completer then
      self.completer:close()
    end
    warn.set(self.warn_before)
    core.set_say(nil)
  end
end

return console
