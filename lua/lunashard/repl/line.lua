--- The text that is being edited and the place in it. Pure: nothing of the terminal.
-- The cursor moves over characters, each with the marks that are put onto it. The text may have several lines.
-- @module lunashard.repl.line

local terminal = require("lunashard.core.terminal")

local line = {}

local MAX_UNDO = 200

local Line = {}
Line.__index = Line

--- An empty one.
-- @treturn Line with `chars` (each with its marks), `widths` (columns, -1 for controls), `cursor` (characters before it)
function line.new()
  return setmetatable({ chars = {}, widths = {}, cursor = 0, killed = "", past = {} }, Line)
end

--- The text.
-- @number[opt] from
-- @number[opt] to
-- @treturn string
function Line:text(from, to)
  return table.concat(self.chars, "", from or 1, to or #self.chars)
end

-- To be called before a change; changes of one kind one after the other are one step.
local function remember(self, kind)
  if kind ~= "insert" or self.last_change ~= "insert" then
    self.past[#self.past + 1] = { text = self:text(), cursor = self.cursor }
    if #self.past > MAX_UNDO then
      table.remove(self.past, 1)
    end
  end
  self.last_change = kind
end

local function splice(self, at, removed, chars, widths)
  local new_chars, new_widths = {}, {}
  for i = 1, at do
    new_chars[i], new_widths[i] = self.chars[i], self.widths[i]
  end
  for i = 1, #chars do
    new_chars[at + i], new_widths[at + i] = chars[i], widths[i]
  end
  local shift = #chars - removed
  for i = at + removed + 1, #self.chars do
    new_chars[i + shift], new_widths[i + shift] = self.chars[i], self.widths[i]
  end
  self.chars, self.widths = new_chars, new_widths
end

--- Replace it all, with the cursor at the end.
-- @string text
function Line:set(text)
  self.chars, self.widths = terminal.characters(text)
  self.cursor = #self.chars
  self.past, self.last_change = {}, nil
end

--- Insert at the cursor.
-- @string text
function Line:insert(text)
  remember(self, "insert")
  local chars, widths = terminal.characters(text)
  -- A mark that was typed on its own belongs to the character before.
  if widths[1] == 0 and self.cursor > 0 and self.widths[self.cursor] > 0 then
    self.chars[self.cursor] = self.chars[self.cursor] .. table.remove(chars, 1)
    table.remove(widths, 1)
  end
  if #chars == 1 then
    table.insert(self.chars, self.cursor + 1, chars[1])
    table.insert(self.widths, self.cursor + 1, widths[1])
  else
    splice(self, self.cursor, 0, chars, widths)
  end
  self.cursor = self.cursor + #chars
end

local function remove(self, from, to, is_killed)
  if from < 1 or to < from then
    return false
  end
  remember(self, is_killed and "kill" or "delete")
  if is_killed then
    self.killed = self:text(from, to)
  end
  splice(self, from - 1, to - from + 1, {}, {})
  self.cursor = from - 1
  return true
end

-- Where the line that the cursor is in begins (characters before it) and ends.
local function bounds(self)
  local from, to = self.cursor, self.cursor
  while from > 0 and self.chars[from] ~= "\n" do
    from = from - 1
  end
  while to < #self.chars and self.chars[to + 1] ~= "\n" do
    to = to + 1
  end
  return from, to
end

local function is_word(char)
  return char ~= nil and (char:find("^[%w_]") ~= nil or char:byte() >= 128)
end

local function word_left(self)
  local at = self.cursor
  while at > 0 and not is_word(self.chars[at]) do
    at = at - 1
  end
  while at > 0 and is_word(self.chars[at]) do
    at = at - 1
  end
  return at
end

local function word_right(self)
  local at = self.cursor
  while at < #self.chars and not is_word(self.chars[at + 1]) do
    at = at + 1
  end
  while at < #self.chars and is_word(self.chars[at + 1]) do
    at = at + 1
  end
  return at
end

local function blank_left(self)
  local at = self.cursor
  while at > 0 and self.chars[at]:find("^%s") do
    at = at - 1
  end
  while at > 0 and not self.chars[at]:find("^%s") do
    at = at - 1
  end
  return at
end

-- Up and down keep to a column of characters.
local function vertical(self, direction)
  local from, to = bounds(self)
  local column = self.goal or self.cursor - from
  if direction < 0 and from == 0 or direction > 0 and to == #self.chars then
    return false
  end
  self.cursor = direction < 0 and from - 1 or to + 1
  local new_from, new_to = bounds(self)
  self.cursor = math.min(new_from + column, new_to)
  self.goal = column
  return true
end

local commands = {}

function commands.left(self)
  self.cursor = math.max(0, self.cursor - 1)
end

function commands.right(self)
  self.cursor = math.min(#self.chars, self.cursor + 1)
end

function commands.word_left(self)
  self.cursor = word_left(self)
end

function commands.word_right(self)
  self.cursor = word_right(self)
end

function commands.home(self)
  self.cursor = bounds(self)
end

commands["end"] = function(self)
  self.cursor = select(2, bounds(self))
end

function commands.first(self)
  self.cursor = 0
end

function commands.last(self)
  self.cursor = #self.chars
end

function commands.backspace(self)
  return remove(self, self.cursor, self.cursor)
end

function commands.delete(self)
  return self.cursor < #self.chars and remove(self, self.cursor + 1, self.cursor + 1)
end

function commands.kill_end(self)
  local _, to = bounds(self)
  -- At the end of a line, the newline.
  return remove(self, self.cursor + 1, to == self.cursor and math.min(to + 1, #self.chars) or to, true)
end

function commands.kill_start(self)
  return remove(self, bounds(self) + 1, self.cursor, true)
end

function commands.kill_word(self)
  return remove(self, self.cursor + 1, word_right(self), true)
end

function commands.kill_word_back(self)
  return remove(self, word_left(self) + 1, self.cursor, true)
end

function commands.kill_blank_back(self)
  return remove(self, blank_left(self) + 1, self.cursor, true)
end

function commands.yank(self)
  self.last_change = nil
  self:insert(self.killed)
  self.last_change = nil
end

function commands.transpose(self)
  local at = math.min(self.cursor + 1, #self.chars)
  if at < 2 then
    return
  end
  remember(self, "transpose")
  local chars, widths = self.chars, self.widths
  chars[at - 1], chars[at] = chars[at], chars[at - 1]
  widths[at - 1], widths[at] = widths[at], widths[at - 1]
  self.cursor = at
end

function commands.undo(self)
  local before = table.remove(self.past)
  if before then
    self.chars, self.widths = terminal.characters(before.text)
    self.cursor, self.last_change = math.min(before.cursor, #self.chars), nil
  end
end

--- Do something: `left`, `right`, `word_left`, `word_right`, `home`, `end` (of the line), `first`, `last` (of it all),
-- `backspace`, `delete`, `kill_end`, `kill_start`, `kill_word`, `kill_word_back`, `kill_blank_back`, `yank`, `transpose`, `undo`.
-- @string name
function Line:run(name)
  self.goal = nil
  commands[name](self)
end

--- To the line above.
-- @treturn boolean false in the first one
function Line:up()
  return vertical(self, -1)
end

--- To the line below.
-- @treturn boolean false in the last one
function Line:down()
  return vertical(self, 1)
end

--- Replace what is before the cursor, from a byte of the text on.
-- @number from the first byte to be replaced
-- @string text
function Line:complete(from, text)
  remember(self, "complete")
  local before = self:text(1, self.cursor):sub(1, from - 1)
  local after = self:text(self.cursor + 1)
  self.chars, self.widths = terminal.characters(before .. text .. after)
  self.cursor = #(terminal.characters(before .. text))
end

return line
