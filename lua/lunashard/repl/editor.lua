--- The line editor: reads a text, of one or more lines, from a terminal.
-- What it keeps is in `lunashard.repl.line`, where it is drawn in `lunashard.repl.view`. It draws all of the text at each
-- change, from its first row on, so that others may write above it at any time (`notice`), and the window may change.
-- @module lunashard.repl.editor

local cells = require("lunashard.core.text")
local descriptor = require("lunashard.core.descriptor")
local keys = require("lunashard.repl.keys")
local line = require("lunashard.repl.line")
local search = require("lunashard.repl.search")
local task = require("lunashard.task")
local terminal = require("lunashard.core.terminal")
local view = require("lunashard.repl.view")

local editor = {}

local ESCAPE_WAIT = 0.05 -- seconds in which the rest of a key's sequence comes
local LISTED_ROWS = 20
local MARK = (os.getenv("NO_COLOR") or "") ~= "" and "%" or "\27[7m%\27[0m"

local COMMANDS = {
  left = "left", ["C-b"] = "left", right = "right", ["C-f"] = "right", ["C-left"] = "word_left", ["M-left"] = "word_left",
  ["M-b"] = "word_left", ["C-right"] = "word_right", ["M-right"] = "word_right", ["M-f"] = "word_right",
  home = "home", ["C-a"] = "home", ["end"] = "end", ["C-e"] = "end", ["M-<"] = "first", ["M->"] = "last",
  ["C-home"] = "first", ["C-end"] = "last", backspace = "backspace", ["C-h"] = "backspace", delete = "delete",
  ["C-k"] = "kill_end", ["C-u"] = "kill_start", ["C-w"] = "kill_blank_back", ["M-backspace"] = "kill_word_back",
  ["M-d"] = "kill_word", ["C-y"] = "yank", ["C-t"] = "transpose", ["C-_"] = "undo",
}

local Editor = {}
Editor.__index = Editor

local wait_input = task.waits(function(input, deadline)
  return input:wait(deadline)
end)

--- An editor for the terminal.
-- @tparam table options
--
-- - `fd`: where it is drawn
-- - `history`: see `lunashard.repl.history`
-- - `complete`: `complete(text, cursor) -> from, candidates`, with the byte where what they replace begins
-- - `is_complete`: `is_complete(text) -> boolean`: may the text be taken, or does it go on in another line
-- @treturn Editor
function editor.new(options)
  return setmetatable({
    fd = options.fd,
    history = options.history,
    complete = options.complete,
    is_complete = options.is_complete,
    input = descriptor.stdin(),
    decoder = keys.decoder(),
    queue = {},
    line = line.new(),
  }, Editor)
end

local function write(self, bytes)
  terminal.write(self.fd, bytes)
end

local function size(self)
  local columns, rows = terminal.size(self.fd)
  return columns or 80, rows or 24
end

local function layout(self, columns)
  local mode = self.search
  return view.layout({
    prompt = mode and mode:prompt() or self.prompt,
    continuation = self.continuation,
    chars = self.line.chars,
    widths = self.line.widths,
    cursor = self.line.cursor,
  }, columns)
end

-- From wherever in the text the cursor is to where its first row that can be seen begins.
local function to_start(self)
  local up = self.drawn_row or 0
  self.drawn_row = nil
  return (up > 0 and ("\27[%dA"):format(up) or "") .. "\r\27[J"
end

local function refresh(self, before)
  if not self.is_reading then
    return
  end
  local columns, rows = size(self)
  local now = layout(self, columns)
  local first = math.min(self.first or 1, math.max(1, #now.rows - rows + 1))
  first = math.max(math.min(first, now.cursor_row), now.cursor_row - rows + 1)
  local last = math.min(#now.rows, first + rows - 1)
  local up = last - now.cursor_row
  write(self, table.concat({
    to_start(self), before or "", view.draw(now, first, last),
    up > 0 and ("\27[%dA"):format(up) or "",
    "\r", now.cursor_column > 0 and ("\27[%dC"):format(now.cursor_column) or "",
  }))
  self.first, self.drawn_row, self.drawn_column = first, now.cursor_row - first, now.cursor_column
  self.drawn_width = columns
end

-- Leave the text as it is on the screen, whole, and go on below it.
local function leave(self, mark)
  self.line.cursor = #self.line.chars
  local columns, rows = size(self)
  local now = layout(self, columns)
  local text
  if #now.rows > rows then
    text = to_start(self) .. view.draw(now, 1, #now.rows)
  else
    local down = #now.rows - self.first - self.drawn_row
    text = (down > 0 and ("\27[%dB"):format(down) or "") .. "\r"
      .. (now.cursor_column > 0 and ("\27[%dC"):format(now.cursor_column) or "")
  end
  write(self, text .. (mark or "") .. "\r\n")
  self.drawn_row, self.first = nil, nil
end

local function begin(self)
  self.line:set("")
  self.index, self.draft, self.search, self.first, self.drawn_row = nil, nil, nil, nil, nil
end

-- ---- keys -----------------------------------------------------------------------------

local actions = {}

local function recall(self, index)
  local entries = self.history.entries
  if index < 1 or index > #entries + 1 then
    return
  end
  if not self.index or self.index > #entries then
    self.draft = self.line:text()
  end
  self.index = index
  self.line:set(entries[index] or self.draft)
end

local function up(self)
  if not self.line:up() then
    recall(self, (self.index or #self.history.entries + 1) - 1)
  end
end

local function down(self)
  if not self.line:down() and self.index then
    recall(self, self.index + 1)
  end
end

actions.up, actions["C-p"], actions.down, actions["C-n"] = up, up, down, down

function actions.enter(self)
  local text = self.line:text()
  if text:find("%S") and self.is_complete and not self.is_complete(text) then
    self.line:insert("\n")
    return
  end
  leave(self)
  self.taken = text
end

actions["M-enter"] = function(self)
  self.line:insert("\n")
end

actions["C-c"] = function(self)
  leave(self, "^C")
  if self.is_question then
    self.ended = "interrupt"
    return
  end
  begin(self)
  self.prompt = self.make_prompt()
end

actions["C-d"] = function(self)
  if #self.line.chars > 0 then
    self.line:run("delete")
    return
  end
  leave(self)
  self.ended = "eof"
end

actions["C-l"] = function(self)
  write(self, "\27[H\27[2J")
  self.drawn_row = nil
end

actions["C-z"] = function(self)
  self:suspend()
end

actions["C-r"] = function(self)
  self.search = search.new(self.history.entries, self.line:text())
end

local function common_prefix(items)
  local prefix = items[1]
  for i = 2, #items do
    local n = 0
    while n < #prefix and prefix:byte(n + 1) == items[i]:byte(n + 1) do
      n = n + 1
    end
    prefix = prefix:sub(1, n)
  end
  -- Not within a character.
  return (prefix:gsub("[\192-\247][\128-\191]*$", function(tail)
    return select(2, terminal.characters(tail))[1] == -1 and "" or nil
  end))
end

function actions.tab(self)
  local before = self.line:text(1, self.line.cursor)
  if before:match("[^\n]*$"):find("^%s*$") then
    self.line:insert("  ")
    return
  end
  local from, items = self.complete(self.line:text(), #before)
  if not from or #items == 0 or self.line:text(1, self.line.cursor) ~= before then
    write(self, "\7")
    return
  end
  local prefix = common_prefix(items)
  if #prefix > #before - from + 1 or (#items == 1 and prefix ~= before:sub(from)) then
    self.line:complete(from, prefix)
  elseif #items > 1 then
    self:notice(view.columns(items, (size(self)), LISTED_ROWS))
  end
end

local function in_search(self, event)
  local done, text = self.search:take(event)
  if text then
    self.line:set(text)
    self.line.cursor = self.search:cursor(self.line)
  end
  if done then
    self.search, self.index = nil, nil
  end
  return done ~= "again"
end

-- One typed character at the end needs no more than itself.
local function insert(self, text)
  local is_last = self.line.cursor == #self.line.chars
  self.line:insert(text)
  local columns = size(self)
  if is_last and #text == 1 and self.drawn_row and self.drawn_column + 1 < columns then
    write(self, text)
    self.drawn_column = self.drawn_column + 1
    return true
  end
end

local function handle(self, event)
  self:resized() -- it may have been, and the signal be on its way
  if self.search and in_search(self, event) then
    refresh(self)
    return
  end
  if event.paste then
    self.line:insert(event.paste)
  elseif event.text then
    if insert(self, event.text) then
      return
    end
  elseif COMMANDS[event.key] then
    self.line:run(COMMANDS[event.key])
  elseif actions[event.key] then
    actions[event.key](self)
  end
  if not self.taken and not self.ended then
    refresh(self)
  end
end

-- ---- what it is for ---------------------------------------------------------------------

local function next_events(self)
  wait_input(self.input)
  if self.ended then
    return {}
  end
  local bytes = self.input:read()
  if not bytes then
    return nil
  end
  local events = self.decoder:feed(bytes)
  if #events == 0 and self.decoder:is_unsure() then
    local _, more = wait_input(self.input, task.now() + ESCAPE_WAIT)
    events = more and events or self.decoder:settle()
  end
  return events
end

local function read(self)
  while not self.taken and not self.ended do
    if #self.queue == 0 then
      self.queue = next_events(self)
      if not self.queue then
        self.queue, self.ended = {}, "hangup"
        break
      end
    end
    local event = table.remove(self.queue, 1)
    if event then
      handle(self, event)
    end
  end
  return self.taken, self.ended
end

--- Read a text. Yields.
-- @tparam function prompt gives the prompt, and that of further lines
-- @tparam[opt] table options `is_question`: Ctrl-C gives it up
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] string `eof` (Ctrl-D), `interrupt` (Ctrl-C, of a question) or `hangup`
function Editor:read(prompt, options)
  local ok, reason = terminal.edit(self.fd)
  if not ok then
    return nil, "hangup", reason
  end
  self.make_prompt = function()
    local first, more = prompt()
    self.continuation = more or ""
    return first
  end
  begin(self)
  self.prompt, self.taken, self.ended = self.make_prompt(), nil, nil
  self.is_question = options and options.is_question
  self.is_reading = true
  if self.is_used then
    -- What was written may not have ended its last line: then this mark stays, and the prompt begins below it.
    write(self, MARK .. (" "):rep(size(self) - 1) .. "\r")
  end
  self.is_used = true
  refresh(self)
  local good, text, why = pcall(read, self)
  self.is_reading = false
  if not good and self.drawn_row then
    pcall(leave, self)
  end
  terminal.restore()
  if not good then
    error(text, 0)
  end
  return text, why
end

--- Write lines above the text that is edited, which stays as it is.
-- @string text
function Editor:notice(text)
  text = cells.safe(text, true)
  if not self.is_reading then
    terminal.write(self.fd, text .. "\n")
    return
  end
  self.prompt = self.make_prompt()
  if self.is_reading then
    refresh(self, text .. "\r\n")
  end
end

--- The window has another size. Terminals of today wrap the rows anew.
function Editor:resized()
  local columns = size(self)
  if self.is_reading and self.drawn_row and columns ~= self.drawn_width then
    local now = layout(self, columns)
    self.drawn_row = math.max(0, now.cursor_row - (self.first or 1))
    refresh(self)
  end
end

--- Drop what was typed and begin anew, as Ctrl-C does.
function Editor:interrupt()
  if self.is_reading then
    handle(self, { key = "C-c" })
  end
end

--- Was Ctrl-C typed already after what was read? What was typed before it is then forgotten.
-- @treturn boolean
function Editor:take_interrupt()
  for i = #self.queue, 1, -1 do
    if self.queue[i].key == "C-c" then
      self.queue = { unpack(self.queue, i + 1) }
      return true
    end
  end
  return false
end

--- Stop, with the terminal as the shell wants it, until the program goes on.
function Editor:suspend()
  if self.is_reading then
    write(self, "\r\n")
    terminal.stop()
    self:resumed()
  end
end

--- The program goes on: the terminal is the shell's no more.
function Editor:resumed()
  if self.is_reading then
    terminal.restore()
    terminal.edit(self.fd)
    self.drawn_row = nil
    refresh(self)
  end
end

--- There is nothing more to be typed for: what is being read ends as if the terminal had hung up.
function Editor:hang_up()
  if self.is_reading then
    leave(self)
    self.ended = "hangup"
  end
  self.input:close()
end

--- Read no more.
function Editor:close()
  terminal.restore()
  self.input:close()
end

return editor
