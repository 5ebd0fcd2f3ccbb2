--- Programs on a pseudo-terminal, typed to and read as a person does.
-- What is asked for is waited for; nothing sleeps for a while and hopes.
-- @module spec.support.pty

local bit = require("bit")
local cli = require("spec.support.cli")
local ffi = require("ffi")
local process = require("lunashard.process")
local screen = require("spec.support.screen")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

ffi.cdef([[
int posix_openpt(int flags);
int grantpt(int fd);
int unlockpt(int fd);
char *ptsname(int fd);
int ioctl(int fd, unsigned long request, ...);
int tcgetattr(int fd, void *termios);
long read(int fd, void *buf, unsigned long n);
long write(int fd, const void *buf, unsigned long n);
int close(int fd);
]])

local pty = {}

local TIMEOUT = tonumber(os.getenv("LUNASHARD_PTY_TIMEOUT")) or 40
local O_RDWR, O_NOCTTY, O_NONBLOCK, O_CLOEXEC = 2, 256, 2048, 524288
local TIOCSWINSZ = 0x5414
local EAGAIN, EIO = 11, 5

-- The session's leader opens the terminal, which makes it its own, and becomes the program.
local LEADER = 'echo $$; exec "$@" <"$PTY_NAME" >"$PTY_NAME" 2>"$PTY_NAME"'

local Pty = {}
Pty.__index = Pty

local buf = ffi.new("char[65536]")

-- All that the program has written by now.
local function drain(self)
  while self.fd and not self.is_ended do
    local n = tonumber(ffi.C.read(self.fd, buf, 65536))
    if n > 0 then
      local bytes = ffi.string(buf, n)
      self.output = self.output .. bytes
      self.view:feed(bytes)
    else
      self.is_ended = n == 0 or ffi.errno() == EIO -- EIO: nobody has the other side open
      return
    end
  end
end

-- Called until it gives something; fails with what was on the screen.
local function wait_for(self, what, condition, timeout)
  local deadline = task.now() + (timeout or TIMEOUT)
  while true do
    local had_ended = self.is_ended
    drain(self)
    local found = condition()
    if found then
      return found
    elseif had_ended or task.now() > deadline then
      error(("waited in vain until %s; %s. The screen:\n%s\n-- and after what was expected last:\n%q"):format(what,
        had_ended and "the program has ended" or "it goes on", self.view:text(), self.output:sub(self.mark)), 3)
    end
    task.sleep(0.005)
  end
end

--- Start a program. Yields. It is to be closed.
-- @tparam {string,...} argv
-- @tparam[opt] table options `columns` [80], `rows` [24], `env`, `cwd`; the environment has TERM=xterm-256color
-- @treturn Pty
function pty.spawn(argv, options)
  options = options or {}
  local fd = ffi.C.posix_openpt(bit.bor(O_RDWR, O_NOCTTY, O_NONBLOCK, O_CLOEXEC))
  assert(fd >= 0 and ffi.C.grantpt(fd) == 0 and ffi.C.unlockpt(fd) == 0, "no pseudo-terminal to be had")
  local self = setmetatable({ fd = fd, output = "", mark = 1 }, Pty)
  self.view = screen.new(options.columns or 80, options.rows or 24)
  self:resize(options.columns or 80, options.rows or 24)
  local env = { LUNASHARD_CLUSTER = false, LUNASHARD_TEST_SANDBOX = false, NO_COLOR = false, TERM = "xterm-256color",
    PTY_NAME = ffi.string(ffi.C.ptsname(fd)) }
  for name, value in pairs(options.env or {}) do
    env[name] = value
  end
  -- Whoever runs the specs in the background may ignore these, which a child would inherit.
  local all = { "env", "--default-signal=INT,QUIT", "setsid", "--wait", "sh", "-c", LEADER, "sh" }
  for _, argument in ipairs(argv) do
    all[#all + 1] = argument
  end
  self.process = assert(process.spawn({ argv = all, env = env, cwd = options.cwd }))
  cli.wait_until("the program has started", function()
    self.pid = tonumber((self.process:output():match("^(%d+)\n")))
    return self.pid
  end, TIMEOUT)
  return self
end

--- Start this program with arguments. Yields.
-- @tparam {string,...} argv without the program
-- @tparam[opt] table options as for `spawn`
function pty.lunashard(argv, options)
  return pty.spawn({ cli.binary, unpack(argv) }, options)
end

--- Type. Yields when the program does not read.
-- @string text `\r` is the enter key, `\3` Ctrl-C, `\4` Ctrl-D
function Pty:type(text)
  local at = 1
  wait_for(self, "all was typed", function()
    local n = tonumber(ffi.C.write(self.fd, text:sub(at), #text - at + 1))
    assert(n >= 0 or ffi.errno() == EAGAIN, "the terminal does not take what is typed")
    at = at + math.max(n, 0)
    return at > #text
  end)
end

--- Paste, as a terminal does when the program has asked to be told of it. Yields.
-- @string text
function Pty:paste(text)
  self:type("\27[200~" .. text:gsub("\n", "\r") .. "\27[201~")
end

--- Wait until the program has written this after what was expected last. Yields.
-- Escape sequences are part of what is written: look at `see` for what a person reads.
-- @string text literally
-- @tparam[opt] number timeout seconds
function Pty:expect(text, timeout)
  local stop = wait_for(self, ("%q was written"):format(text), function()
    return select(2, self.output:find(text, self.mark, true))
  end, timeout)
  self.mark = stop + 1
end

--- Wait until this can be read on the screen. Yields.
-- @string text literally; may span lines, which end without blanks
-- @tparam[opt] number timeout seconds
function Pty:see(text, timeout)
  wait_for(self, ("the screen shows %q"):format(text), function()
    return self.view:text():find(text, 1, true)
  end, timeout)
end

--- Wait until the last line with something on it, where the cursor is, reads this. Yields.
-- @string text without blanks at its end
-- @tparam[opt] number timeout seconds
function Pty:see_line(text, timeout)
  wait_for(self, ("the line of the cursor reads %q"):format(text), function()
    return self.view:line() == text
  end, timeout)
end

--- Wait until a function returns something true. Yields.
-- @string what in words
-- @tparam function condition
-- @tparam[opt] number timeout seconds
function Pty:wait_until(what, condition, timeout)
  return wait_for(self, what, condition, timeout)
end

--- All that was written so far, without escape sequences and carriage returns.
-- @treturn string
function Pty:text()
  drain(self)
  return (self.output:gsub("\27%[[%d;?>=]*[%a@`~]", ""):gsub("\27[%]P].-\7", ""):gsub("\27.", ""):gsub("\r", ""))
end

--- Change the terminal's size, which sends SIGWINCH.
-- @number columns
-- @number rows
function Pty:resize(columns, rows)
  assert(ffi.C.ioctl(self.fd, TIOCSWINSZ, ffi.new("unsigned short[4]", { rows, columns, 0, 0 })) == 0)
  self.view:resize(columns, rows)
end

--- Send the program a signal.
-- @string name without SIG
function Pty:signal(name)
  assert(system.kill(self.pid, process.signals[name] or error("unknown signal " .. name)))
end

-- The flags of struct termios, of which the first four members are 32 bits each.
local function flags(self)
  local termios = ffi.new("uint32_t[32]")
  assert(ffi.C.tcgetattr(self.fd, termios) == 0)
  return { iflag = termios[0], oflag = termios[1], lflag = termios[3] }
end

local LFLAGS = { ISIG = 1, ICANON = 2, ECHO = 8 }
local ICRNL, OPOST = 256, 1

--- Is the terminal as a shell wants to find it: line by line, echoing, with signals, newlines translated, and neither
-- bracketed paste, another screen, a hidden cursor nor a colour left on?
-- @treturn boolean
-- @treturn ?string what is wrong
function Pty:is_sane()
  drain(self)
  local now = flags(self)
  for name, value in pairs(LFLAGS) do
    if bit.band(now.lflag, value) == 0 then
      return false, name .. " is off"
    end
  end
  if bit.band(now.iflag, ICRNL) == 0 or bit.band(now.oflag, OPOST) == 0 then
    return false, "newlines are not translated"
  end
  return self.view:is_plain()
end

--- Wait until the program has ended; what it wrote last is then read. Yields.
-- @tparam[opt] number timeout seconds
-- @treturn number exit code; of one that a signal ended, the signal's number
function Pty:wait(timeout)
  local deadline = task.now() + (timeout or TIMEOUT)
  while self.process:is_running() do
    drain(self) -- a full terminal would hold it up
    assert(task.now() < deadline, "waited in vain for the program's end. The screen:\n" .. self.view:text())
    task.sleep(0.005)
  end
  drain(self)
  return assert(self.process:wait(TIMEOUT)).code
end

--- Hang up, kill what is left. May be called again. Yields.
function Pty:close()
  if not self.fd then
    return
  end
  local was_running = self.process:is_running()
  ffi.C.close(self.fd)
  self.fd = nil
  if was_running then
    system.kill(self.pid, process.signals.KILL)
    self.process:wait(TIMEOUT)
  end
  self.process:close()
end

return pty
