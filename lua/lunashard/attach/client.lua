--- A session that lives in another process: what the console asks of a session is asked over a socket.
-- @module lunashard.attach.client

local descriptor = require("lunashard.core.descriptor")
local errors = require("lunashard.errors")
local frames = require("lunashard.attach.frames")
local interrupt = require("lunashard.core.interrupt")
local task = require("lunashard.task")

local client = {}

local GREETING = 10 -- seconds that the other side has to greet
local ANSWER = 2 -- seconds after which a question about a line is given up: the other side computes
local HEARD = 0.3 -- seconds after which it does not hear because it computes
local FOREIGN = 4 -- so often it is told then, before it must be somebody else's line that computes

local Client = {}
Client.__index = Client

local received = {}

function received.hello(self, frame)
  self.pid, self.number = tonumber(frame.pid), tonumber(frame.number)
  self.name, self.shards = frame.cluster, tonumber(frame.shards)
end

function received.refused(self, frame)
  self.refusal = tostring(frame.text)
end

function received.state(self, frame)
  self.prompts = { tostring(frame.prompt), tostring(frame.continuation) }
  self.is_done, self.lost = frame.is_done, frame.unfinished
end

function received.out(self, frame)
  self.out(frame.text)
end

function received.err(self, frame)
  self.err(frame.text)
end

function received.notice(self, frame)
  if self.notice then
    self.notice(frame.text)
  end
end

-- In tasks of their own: while somebody answers, what else comes is heard.
function received.page(self, frame)
  task.daemon(function()
    self.frames:send({ kind = "shown", value = self.page ~= nil and self.page(frame.text) })
  end)
end

function received.ask(self, frame)
  self.asking = task.daemon(function()
    local answer = self.ask and self.ask(frame.text)
    self.asking = nil
    self.frames:send({ kind = "answer", text = answer })
  end)
end

function received.interrupted(self)
  self.is_heard = true
end

function received.done(self, frame)
  self.result = frame
end

function received.reply(self, frame)
  self.replies[frame.id] = frame
end

local function listen(self)
  local ok, err = pcall(function()
    local frame = self.frames:receive()
    while frame do
      if received[frame.kind] then
        received[frame.kind](self, frame)
      end
      self.changed:notify()
      frame = self.frames:receive()
    end
  end)
  self.is_gone, self.is_done = true, true
  self.changed:notify()
  if not self.is_closed then
    local text = ("lunashard: repl: the process at %s has ended"):format(self.path)
    if self.notice then
      self.notice(text)
    else
      self.err(text .. "\n")
    end
    if self.gone then
      self.gone()
    end
  end
  if not ok and not errors.is(err, "CANCELED") then
    error(err, 0)
  end
end

local function wait_for(self, condition, deadline)
  while not condition() and not self.is_gone do
    if not self.changed:wait(deadline) then
      return nil
    end
  end
  return condition()
end

local function request(self, frame)
  self.id = self.id + 1
  local id = self.id
  frame.id = id
  self.frames:send(frame)
  local reply = wait_for(self, function()
    return self.replies[id]
  end, task.now() + ANSWER)
  self.replies[id] = nil
  return reply
end

--- Attach to a process. Yields.
-- @string path of its socket
-- @tparam table options `terminal`: is there one, to be asked on; `width`: of it
-- @treturn[1] Client with what a session has
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function client.attach(path, options)
  local socket, reason = descriptor.connect(path)
  local over
  if socket then
    over, reason = frames.over(socket)
  end
  if not over then
    return nil, errors.new("INVALID", { message = ("cannot attach to %s: %s"):format(path, reason) })
  end
  local self = setmetatable({ path = path, frames = over, replies = {}, id = 0, changed = task.event(),
    prompts = { "> ", "> " } }, Client)
  function self.out(text)
    io.stdout:write(text)
  end
  function self.err(text)
    io.stdout:flush()
    io.stderr:write(text)
  end
  self.completer = self
  self.listening = task.daemon(listen, self)
  over:send({ kind = "hello", terminal = options.terminal, width = options.width })
  wait_for(self, function()
    return self.pid or self.refusal
  end, task.now() + GREETING)
  if not self.pid then
    self:close()
    return nil, errors.new("INVALID", {
      message = ("cannot attach to %s: %s"):format(path, self.refusal or "nobody greets there"),
    })
  end
  return self
end

--- Is it complete? Yields.
-- @string text
-- @treturn string `more` or `done`
function Client:feed(text)
  local reply = request(self, { kind = "feed", text = text })
  return reply and reply.value or "done"
end

--- What may stand at the cursor. Yields.
-- @string text
-- @number cursor bytes before it
-- @treturn ?number the byte where what the candidates replace begins
-- @treturn {string,...}
function Client:candidates(text, cursor)
  local reply = request(self, { kind = "complete", text = text, cursor = cursor })
  return reply and reply.value, reply and reply.items or {}
end

--- A text was run: the other side knows.
function Client:ran() end

--- Run it there. Yields.
-- @string text
-- @treturn boolean
-- @treturn number exit code
function Client:run(text)
  self.result, self.is_running = nil, true
  if self.width then
    self.frames:send({ kind = "width", value = self.width() })
  end
  self.frames:send({ kind = "run", text = text })
  local ok, err = pcall(wait_for, self, function()
    return self.result
  end)
  self.is_running = false
  if not ok then
    error(err, 0)
  elseif not self.result then
    return false, 1
  end
  return self.result.ok, self.result.code
end

-- Until it is heard that the line is to be stopped.
local function stop_computing(self)
  local n = 0
  task.sleep(HEARD)
  while self.is_running and not self.is_heard and not self.is_gone do
    interrupt.send(self.pid, self.number)
    n = n + 1
    if n == FOREIGN and self.notice then
      self.notice("lunashard: the process computes something else and hears of nothing; Ctrl-\\ leaves it")
    end
    task.sleep(HEARD)
  end
  self.stopping = nil
end

--- Stop the line that runs there, and no other.
-- @treturn boolean false when none runs
function Client:interrupt()
  if not self.is_running then
    return false
  end
  self.is_heard = false
  self.frames:send({ kind = "interrupt" })
  if not self.stopping then
    self.stopping = task.daemon(stop_computing, self)
  end
  return true
end

--- The prompt, as it was when the other side told it last.
-- @tparam[opt] boolean continuation
-- @treturn string
function Client:prompt(continuation)
  return self.prompts[continuation and 2 or 1]
end

--- What would be lost if the session ended now.
-- @treturn ?string
function Client:unfinished()
  return type(self.lost) == "string" and self.lost or nil
end

--- Leave. The session there ends.
function Client:close()
  self.is_closed = true
  self.listening:cancel()
  self.frames:close()
end

return client
