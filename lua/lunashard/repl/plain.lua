--- Reads lines from a terminal that can do nothing but that (no TERM, or a dumb one): the terminal itself lets them be
-- edited. Has what the console asks of `lunashard.repl.editor`.
-- @module lunashard.repl.plain

local cells = require("lunashard.core.text")
local descriptor = require("lunashard.core.descriptor")
local task = require("lunashard.task")
local terminal = require("lunashard.core.terminal")

local plain = {}

local Plain = {}
Plain.__index = Plain

local wait_input = task.waits(function(input)
  return input:wait()
end)

--- A reader.
-- @tparam table options `fd`, `is_complete` as for the editor
-- @treturn Plain
function plain.new(options)
  return setmetatable({
    fd = options.fd,
    is_complete = options.is_complete,
    input = descriptor.stdin(),
    rest = "",
  }, Plain)
end

-- The next line; nil at the end, and what is left of the last line then.
local function next_line(self)
  while true do
    local text, rest = self.rest:match("^([^\n]*)\n(.*)$")
    if text then
      self.rest = rest
      return text
    end
    wait_input(self.input)
    if self.is_over then
      return nil
    end
    local bytes = self.input:read()
    if not bytes then
      return nil
    end
    self.rest = self.rest .. bytes
  end
end

--- Read a text. Yields.
-- @tparam function prompt gives the prompt, and that of further lines
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] string `eof` or `hangup`
function Plain:read(prompt)
  self.make_prompt = prompt
  self.text, self.is_reading = nil, true
  while true do
    local first, more = prompt()
    terminal.write(self.fd, self.text and more or first)
    local text = next_line(self)
    if not text then
      self.is_reading = false
      return nil, self.is_over and "hangup" or "eof"
    end
    self.text = self.text and self.text .. "\n" .. text or text
    if not self.is_complete or not self.text:find("%S") or self.is_complete(self.text) then
      self.is_reading = false
      return self.text
    end
  end
end

--- Write lines, and the prompt again.
-- @string text
function Plain:notice(text)
  text = cells.safe(text, true)
  terminal.write(self.fd, (self.is_reading and "\n" or "") .. text .. "\n")
  if self.is_reading then
    terminal.write(self.fd, (self.make_prompt()))
  end
end

--- Drop what was typed and begin anew.
function Plain:interrupt()
  if self.is_reading then
    self.text, self.rest = nil, ""
    terminal.write(self.fd, "\n" .. self.make_prompt())
  end
end

--- Ctrl-C is a signal here.
-- @treturn boolean
function Plain:take_interrupt()
  return false
end

--- The window has another size: nothing to do.
function Plain:resized() end

--- The program goes on.
function Plain:resumed()
  self:notice("")
end

--- Stop, until the program goes on.
function Plain:suspend()
  terminal.stop()
end

--- There is nothing more to be typed for.
function Plain:hang_up()
  self.is_over = true
  self.input:close()
end

--- Read no more.
function Plain:close()
  self.input:close()
end

return plain
