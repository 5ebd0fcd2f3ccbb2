--- Prompts that work inside a running process: each that attaches has a session of its own here.
--
-- The socket has mode 0600 and lies in a directory of mode 0700, and who connects must be this user. Frames that come:
-- `hello` (`terminal`, `width`), `run` (`text`), `feed` and `complete` (`id`, `text`, `cursor`), `answer` (`text`), `shown`
-- (`value`), `width`, `interrupt`. Those that go: `hello` or `refused`, `state` (the prompt), `out`, `err`, `notice`, `page`,
-- `ask`, `interrupted`, `done`, `reply`.
--
-- A line that computes hears no frame: then the other side sends SIGUSR1 with the number that `hello` gave it, which
-- stops its own line, if that is what computes, as SIGINT stops a line of a program of its own.
-- @module lunashard.attach.server

local bit = require("bit")
local descriptor = require("lunashard.core.descriptor")
local errors = require("lunashard.errors")
local events = require("lunashard.events")
local frames = require("lunashard.attach.frames")
local signal = require("lunashard.core.signal")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local server = {}

local OTHERS = 63 -- 0077
local PIECE = 2 ^ 18 -- bytes of output in one frame

local Server = {}
Server.__index = Server

local wait_connection = task.waits(function(listener)
  return listener:wait()
end)

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

--- Where the socket of a cluster is, unless it is said.
-- @tparam ?string name the cluster's
-- @treturn string
function server.default_path(name)
  local dir = os.getenv("XDG_RUNTIME_DIR")
  dir = dir and dir ~= "" and dir .. "/lunashard" or ("/tmp/lunashard-%d"):format(system.getuid())
  return ("%s/%s.sock"):format(dir, ((name or "cluster"):gsub("[^%w_.-]", "_")))
end

-- Nobody else may put a socket there.
local function check_directory(path)
  local dir = path:match("^(.*)/[^/]*$") or "."
  dir = dir == "" and "/" or dir
  local info = system.stat(dir)
  if not info then
    local ok, reason = system.mkdir(dir, 448)
    return ok, reason
  elseif info.type ~= "directory" then
    return nil, dir .. ": is no directory"
  elseif info.uid ~= system.getuid() then
    return nil, dir .. ": belongs to somebody else"
  elseif bit.band(info.mode, OTHERS) ~= 0 then
    return nil, ("%s: others may enter it (mode %03o); chmod 700 it"):format(dir, info.mode)
  end
  return true
end

-- ---- one that is attached -----------------------------------------------------------------

local function send_text(self, kind)
  return function(text)
    for at = 1, #text, PIECE do
      self.frames:send({ kind = kind, text = text:sub(at, at + PIECE - 1) })
    end
  end
end

-- Ask the other side and wait for what it says.
local function ask(self, frame, answer)
  if self.is_closed then
    return nil
  end
  self.answers[answer] = nil
  self.frames:send(frame)
  while not self.answers[answer] and not self.is_closed do
    self.answered:wait()
  end
  return self.answers[answer] and self.answers[answer].text
end

local function send_state(self)
  local session = self.session
  self.frames:send({ kind = "state", prompt = session:prompt(false), continuation = session:prompt(true),
    is_done = session.is_done, unfinished = session:unfinished() })
end

local function run(self, frame)
  -- What came before the line was under way stops it when it is.
  task.daemon(function()
    if self.is_interrupted then
      self.session:interrupt()
    end
  end)
  local ok, code = self.session:run(frame.text)
  self.completer:ran(frame.text)
  send_state(self)
  self.frames:send({ kind = "done", ok = ok, code = code })
end

local requests = {}

function requests.run(self, frame)
  if not self.running and type(frame.text) == "string" then
    self.is_interrupted = false
    self.running = task.daemon(function()
      local ok, err = pcall(run, self, frame)
      self.running = nil
      if not ok and not self.is_closed then
        self.frames:send({ kind = "err", text = tostring(err) .. "\n" })
        self.frames:send({ kind = "done", ok = false, code = 1 })
      end
    end)
  end
end

function requests.feed(self, frame)
  self.frames:send({ kind = "reply", id = frame.id, value = self.session:feed(tostring(frame.text)) })
end

function requests.complete(self, frame)
  local from, items = self.completer:candidates(tostring(frame.text), tonumber(frame.cursor) or 0)
  self.frames:send({ kind = "reply", id = frame.id, value = from, items = items })
end

function requests.answer(self, frame)
  self.answers.answer = { text = type(frame.text) == "string" and frame.text or nil }
  self.answered:notify()
end

function requests.shown(self, frame)
  self.answers.shown = { text = frame.value == true }
  self.answered:notify()
end

function requests.width(self, frame)
  self.width = tonumber(frame.value)
end

function requests.interrupt(self)
  self.is_interrupted = true
  self.frames:send({ kind = "interrupted" })
  self.session:interrupt()
end

-- The session, as the other side says that it can be talked to.
local function greet(self, hello)
  local function page(text)
    return ask(self, { kind = "page", text = text }, "shown")
  end
  self.width = tonumber(hello.width)
  local err
  -- Loaded by the first that attaches: most programs that serve never need it.
  self.session, err = require("lunashard.repl.session").new(self.cluster, {
    out = send_text(self, "out"),
    err = send_text(self, "err"),
    ask = hello.terminal and function(question)
      return ask(self, { kind = "ask", text = question }, "answer")
    end or nil,
    width = function()
      return self.width
    end,
  })
  if not self.session then
    self.frames:send({ kind = "refused", text = err.message })
    return false
  end
  self.session.number = self.number
  self.session.page = hello.terminal and page or nil
  self.completer = require("lunashard.repl.complete").new(self.session)
  self.unsubscribe = events.subscribe(function(event)
    self.frames:send({ kind = "notice", text = "lunashard: " .. event.message })
    send_state(self)
  end)
  self.frames:send({ kind = "hello", pid = system.getpid(), number = self.number, cluster = self.cluster.name,
    shards = #self.cluster.manager.shards })
  send_state(self)
  return true
end

local function talk(self)
  local hello = self.frames:receive()
  if not hello or hello.kind ~= "hello" or not greet(self, hello) then
    return
  end
  local frame = self.frames:receive()
  while frame do
    if requests[frame.kind] then
      requests[frame.kind](self, frame)
    end
    frame = self.frames:receive()
  end
end

-- Whatever it ran is stopped, and its transaction rolled back.
local function leave(self)
  self.is_closed = true
  self.answered:notify()
  if self.unsubscribe then
    self.unsubscribe()
  end
  if self.running then
    self.running:cancel()
  end
  if self.session then
    self.completer:close()
    self.session:close()
  end
  self.frames:close()
end

local function serve(self, one)
  local ok, err = pcall(talk, one)
  self.attached[one] = nil
  local left, problem = pcall(leave, one)
  err = not ok and err or not left and problem
  if err and not errors.is(err, "CANCELED") then
    warn.emit("attached prompt: " .. tostring(err))
  end
end

-- ---- all of them ----------------------------------------------------------------------------

local function accept(self)
  local socket, uid = self.listener:accept()
  if not socket then
    return
  elseif uid ~= system.getuid() then
    warn.emit(("user %d tried to attach at %s"):format(uid, self.path))
    socket:close()
    return
  end
  local over = frames.over(socket)
  if not over then
    socket:close()
    return
  end
  self.n_attached = self.n_attached + 1
  local one = { number = self.n_attached, cluster = self.cluster, frames = over, answers = {}, answered = task.event() }
  self.attached[one] = task.daemon(serve, self, one)
end

local function listen(self)
  while not self.is_closed do
    wait_connection(self.listener)
    accept(self)
  end
end

--- Let prompts attach to a cluster.
-- @tparam lunashard.cluster cluster
-- @string path of the socket; its directory is made when it is missing
-- @treturn[1] Server
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function server.listen(cluster, path)
  local ok, reason = check_directory(path)
  if not ok then
    return invalid("socket %s: %s", path, reason)
  end
  local listener
  listener, reason = descriptor.listen(path)
  if not listener then
    return invalid("socket %s: %s", path, reason)
  end
  local self = setmetatable({ cluster = cluster, path = path, listener = listener, attached = {},
    n_attached = 0 }, Server)
  signal.catch(signals.USR1) -- for good: one that comes late must not end the program
  self.accepting = task.daemon(listen, self)
  return self
end

--- Send everybody away and remove the socket. May be called again.
function Server:close()
  if self.is_closed then
    return
  end
  self.is_closed = true
  self.accepting:cancel()
  self.listener:close()
  system.unlink(self.path)
  for one, serving in pairs(self.attached) do
    one.frames:send({ kind = "notice", text = "lunashard: the process ends" })
    serving:cancel()
  end
end

return server
