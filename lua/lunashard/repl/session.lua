--- A session: what becomes of the lines that somebody types. It knows nothing of terminals; who drives it sets
--
-- - `out(text)`, `err(text)`: where rows and values go, and all that is said beside them
-- - `ask(question) -> answer`: asks on the terminal; nil when there is none, and then what would be asked about is refused
-- - `notice(text)`: tells of something between two lines
-- - `width() -> cells`: of the terminal; nil where there is none
-- - `page(text) -> shown`: shows what is too long for the terminal in another way
--
-- `number`, where several sessions are driven from elsewhere, is what `lunashard.core.interrupt` knows this one's lines by.
--
-- `env` has the variables of its lines, `commands` the names of its commands; `is_done` says that it is to end.
-- @classmod lunashard.repl.session

local classify = require("lunashard.repl.classify")
local cluster_file = require("lunashard.cluster")
local commands = require("lunashard.repl.commands")
local errors = require("lunashard.errors")
local evaluate = require("lunashard.repl.evaluate")
local failure = require("lunashard.repl.failure")
local interrupt = require("lunashard.core.interrupt")
local options = require("lunashard.options")
local progress = require("lunashard.repl.progress")
local prompt = require("lunashard.repl.prompt")
local statements = require("lunashard.repl.statements")
local stopping = require("lunashard.repl.stopping")
local task = require("lunashard.task")
local transactions = require("lunashard.repl.transactions")

local session = {}

local Session = {}
Session.__index = Session

local KEPT = 1000 -- lines that \save can save, at least

local OPTIONS = { out = "function", err = "function", ask = "function", notice = "function", width = "function",
  yes = "boolean", max_rows = "count" }

local function to(file)
  return function(text)
    file:write(text)
  end
end

--- Create a session. Yields.
-- A production cluster that can be written is opened a second time, read-only, and the session works with that.
-- @tparam ?lunashard.cluster cluster from `lunashard.open`, with `protect = true` for an own one; nil for Lua alone
-- @tparam[opt] table opts `out`, `err`, `ask`, `notice`, `width`, see above; `yes = true`: nothing is asked about;
--   `max_rows`: rows of a result that are shown, 0 for all [1000 on a terminal, all elsewhere]
-- @treturn[1] Session with `env`, the variables of its lines
-- @treturn[2] nil
-- @treturn[2] lunashard.error a production cluster could not be opened read-only
function session.new(cluster, opts)
  opts = options.check(opts, OPTIONS, "repl.session.new")
  local self = setmetatable({
    out = opts.out or to(io.stdout),
    err = opts.err or to(io.stderr),
    ask = opts.ask,
    notice = opts.notice,
    width = opts.width,
    yes = opts.yes,
    commands = commands.names(),
    settings = { timing = true, expanded = "auto", max_rows = opts.max_rows },
    lines = {},
    n_lines = 0,
  }, Session)
  self.env = evaluate.environment(self)
  self:use(cluster)
  if cluster and not self.read_only and cluster.manager.options.environment == "production" then
    local own, err = cluster_file.open(cluster.path, { read_only = true })
    if not own then
      return nil, err
    end
    self:replace(own)
  end
  self.looking = cluster and progress.watch(self)
  return self
end

--- Work with another cluster from now on.
-- @local
-- @tparam ?lunashard.cluster cluster
function Session:use(cluster)
  self.cluster = cluster
  self.manager, self.router = cluster and cluster.manager, cluster and cluster.router
  self.read_only = cluster ~= nil and cluster.manager.options.read_only == true
  self.env.cluster, self.env.manager, self.env.router = cluster, self.manager, self.router
end

--- Work with a cluster that the session has opened itself: it is closed with it.
-- @local
-- @tparam lunashard.cluster cluster
function Session:replace(cluster)
  local before = self.own_cluster
  self.own_cluster = cluster
  self:use(cluster)
  if before then
    before:close()
  end
end

local function chunk_name(self)
  return "=input " .. self.n_lines + 1
end

--- Is what was typed so far complete? Runs nothing.
-- @string text one line, or several
-- @treturn string `more` or `done`
function Session:feed(text)
  local before = self.fed -- a long statement is not read again with each of its lines
  if before and text:sub(1, #before) == before and not text:find(";", #before + 1, true) then
    self.fed = text
    return "more"
  end
  local read = classify.read(text, self.env, chunk_name(self))
  self.fed = read.more and read.kind == "sql" and text or nil
  self.read_text, self.read = text, read
  return read.more and "more" or "done"
end

-- Remember a line for \save: what was typed, and the calls that came of it.
local function remember(self, text, kind)
  local line = { text = text, kind = kind, calls = {} }
  if #self.lines >= 2 * KEPT then
    self.lines = { unpack(self.lines, KEPT + 1) }
  end
  self.lines[#self.lines + 1] = line
  self.line = line
  return line
end

--- Note a call that the present line comes down to.
-- @local
-- @string what
-- @tparam[opt] table details
function Session:note(what, details)
  if self.line then
    table.insert(self.line.calls, { what = what, details = details or {} })
  end
end

--- Show rows or a text that may be long.
-- @local
-- @string text
function Session:show(text)
  if self.output or not self.page or not self.page(text) then
    self.out(text)
  end
end

--- Say why something failed, and keep it in `_err`.
-- @local
-- @tparam lunashard.error err
-- @string[opt] sql
-- @tparam[opt] boolean is_rewritten
function Session:fail(err, sql, is_rewritten)
  if errors.is(err, "CANCELED") then
    error(err, 0)
  end
  evaluate.failed(self, err, err.traceback)
  self.err(failure.text(err, sql, is_rewritten) .. "\n")
  if self.read_only and err.sqlstate == "25006" then
    self.err("HINT: this session is read-only; \\rw makes it writable.\n")
  elseif err.code == "NO_KEY" then
    self.err("HINT: \\use SHARD, or \\use key KEY, says where.\n")
  end
end

--- Run a line in the calling task. Yields. For commands that run others.
-- @local
-- @string text
-- @treturn boolean
function Session:perform(text)
  local read = self.read_text == text and self.read or classify.read(text, self.env, chunk_name(self))
  self.read_text, self.read = nil, nil
  self.n_lines = self.n_lines + 1
  if read.kind == "empty" then
    return true
  end
  local line = remember(self, text, read.kind)
  local ok = true
  if read.kind == "command" then
    ok = commands.run(self, text)
  elseif read.kind == "lua" then
    line.is_expression = read.is_expression
    ok = evaluate.run(self, read, text)
  else
    for _, statement in ipairs(read.statements) do
      ok = ok and statements.run(self, statement)
    end
  end
  line.ok = ok
  return ok
end

--- Run what was typed, in a task of its own. Yields until it has ended.
-- @string text
-- @treturn boolean false when it failed, which was said
-- @treturn int the exit code of a program that ends with this line: 2 for what was refused for want of a terminal
function Session:run(text)
  self.code = nil
  local running = task.daemon(self.perform, self, text):watch()
  self.running = running
  interrupt.arm(running.handle, self.number)
  local joined, value, err = pcall(running.join, running)
  local was_computing = interrupt.disarm(running.handle)
  local was_stopped = was_computing or self.stopped
  self.is_told = not (was_computing and not self.stopped) -- of the signal that has stopped it
  self.running, self.stopped = nil, nil
  if not joined then -- our own task is cancelled
    running:cancel()
    error(value, 0)
  elseif value then
    return err, err and 0 or self.code or 1
  elseif was_stopped then
    stopping.report(self)
    return false, 130
  end
  self:fail_unexpectedly(err)
  return false, 1
end

--- Say that a line ended by a fault of ours.
-- @local
-- @param err
function Session:fail_unexpectedly(err)
  if errors.is(err, "CANCELED") then
    return self.err("cancelled\n")
  end
  self:fail(err)
end

--- Stop the line that runs: what waits is cancelled, on the servers too. One that computes is stopped by SIGINT itself, when
-- that is caught with `lunashard.core.signal`. Does not wait: `run` returns when the line has ended.
-- @treturn boolean false when no line runs, and none has just been stopped by the same signal
function Session:interrupt()
  if not self.running then
    local was_told = self.is_told
    self.is_told = true
    return was_told == false
  end
  self.stopped = true
  self.running:cancel()
  return true
end

--- The text before the place where the next line is typed.
-- @tparam[opt] boolean continuation a line is not complete yet
-- @treturn string
function Session:prompt(continuation)
  return prompt.text(self, continuation)
end

--- What would be lost if the session ended now.
-- @treturn ?string nil when nothing would
function Session:unfinished()
  local state = transactions.state(self)
  if not state or state == "pending" then
    return nil
  end
  return ("a transaction is open on %s and will be rolled back"):format(self.tx.shard_id)
end

--- End the session: an open transaction is rolled back. The cluster stays open, unless the session has opened it itself. Yields.
function Session:close()
  if self.looking then
    self.looking:cancel()
  end
  transactions.close(self)
  if self.own_cluster then
    self.own_cluster:close()
    self.own_cluster = nil
  end
end

return session
