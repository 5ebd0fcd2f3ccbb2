--- A terminal's screen: what a person reads after all the escape sequences.
-- Knows what line editors use of a VT100, wraps as xterm does (in the last column the cursor waits for the next
-- character), and says so when it is asked for something that it does not know.
-- @module spec.support.screen

local screen = {}

local Screen = {}
Screen.__index = Screen

-- Characters of two columns and of none, as far as specs use them.
local WIDE = { { 0x1100, 0x115f }, { 0x2e80, 0x303e }, { 0x3041, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff },
  { 0xfe30, 0xfe6f }, { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f }, { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd } }
local NONE = { { 0x300, 0x36f }, { 0x591, 0x5bd }, { 0x610, 0x61a }, { 0x64b, 0x65f }, { 0x200b, 0x200f }, { 0x20d0, 0x20ff },
  { 0xfe00, 0xfe0f } }

local function is_in(ranges, code)
  for _, range in ipairs(ranges) do
    if code >= range[1] and code <= range[2] then
      return true
    end
  end
  return false
end

local function width_of(code)
  return is_in(NONE, code) and 0 or is_in(WIDE, code) and 2 or 1
end

local function decode(char)
  local first = char:byte()
  if first < 0x80 then
    return first
  end
  local code = first % (first >= 0xf0 and 8 or first >= 0xe0 and 16 or 32)
  for i = 2, #char do
    code = code * 64 + char:byte(i) % 64
  end
  return code
end

--- An empty screen.
-- @number columns
-- @number rows
function screen.new(columns, rows)
  return setmetatable({
    columns = columns, rows = rows, row = 1, column = 1, lines = { {} }, modes = {}, style = "", rest = "", scrolled = {},
  }, Screen)
end

local function line_at(self, row)
  for i = #self.lines + 1, row do
    self.lines[i] = {}
  end
  return self.lines[row]
end

local function line_feed(self)
  self.row = self.row + 1
  line_at(self, self.row)
  if self.row > self.rows then
    self.scrolled[#self.scrolled + 1] = table.remove(self.lines, 1)
    self.row = self.rows
  end
end

local function put(self, char)
  local width = width_of(decode(char))
  if width == 0 then
    local line, at = line_at(self, self.row), self.column - (self.is_waiting and 0 or 1)
    while at > 1 and line[at] == "" do
      at = at - 1
    end
    line[at] = (line[at] or " ") .. char
    return
  end
  if self.is_waiting or self.column + width - 1 > self.columns then
    self.is_waiting = false
    line_at(self, self.row).wraps = true
    line_feed(self)
    self.column = 1
  end
  local line = line_at(self, self.row)
  line[self.column] = char
  if width == 2 then
    line[self.column + 1] = ""
  end
  self.column = self.column + width
  if self.column > self.columns then
    self.column, self.is_waiting = self.columns, true
  end
end

local function blank(line, from, to)
  for i = from, to do
    line[i] = nil
  end
end

local function clamp(value, low, high)
  return math.max(low, math.min(high, value))
end

local csi = {}

function csi.A(self, n)
  self.row = clamp(self.row - n, 1, self.rows)
end

function csi.B(self, n)
  self.row = clamp(self.row + n, 1, self.rows)
  line_at(self, self.row)
end

function csi.C(self, n)
  self.column = clamp(self.column + n, 1, self.columns)
end

function csi.D(self, n)
  self.column = clamp(self.column - n, 1, self.columns)
end

function csi.G(self, n)
  self.column = clamp(n, 1, self.columns)
end

function csi.H(self, n, parameters)
  self.row = clamp(n, 1, self.rows)
  self.column = clamp(tonumber(parameters:match(";(%d+)")) or 1, 1, self.columns)
  line_at(self, self.row)
end

function csi.K(self, _, parameters)
  local line = line_at(self, self.row)
  blank(line, parameters == "" and self.column or 1, parameters == "1" and self.column or self.columns)
end

function csi.J(self, _, parameters)
  if parameters == "" or parameters == "0" then
    csi.K(self, 1, "")
    for row = self.row + 1, #self.lines do
      self.lines[row] = {}
    end
  else
    for row = 1, #self.lines do
      self.lines[row] = {}
    end
  end
end

function csi.m(self, _, parameters)
  self.style = (parameters == "" or parameters == "0") and "" or parameters
end

function csi.h(self, _, parameters)
  self.modes[parameters] = true
end

function csi.l(self, _, parameters)
  self.modes[parameters] = false
end

local CONTROLS = {
  ["\r"] = function(self)
    self.column = 1
  end,
  ["\n"] = line_feed,
  ["\8"] = function(self)
    self.column = math.max(1, self.column - 1)
  end,
  ["\t"] = function(self)
    self.column = math.min(self.columns, self.column + 8 - (self.column - 1) % 8)
  end,
  ["\7"] = function(self)
    self.bells = (self.bells or 0) + 1
  end,
}

-- One thing from the front of `text`; gives what is left, or nil when it is not complete.
local function step(self, text)
  local first = text:sub(1, 1)
  if first == "\27" then
    local parameters, command = text:match("^\27%[([%d;?>=]*)([%a@`~])")
    if command then
      local run = csi[command] or error(("the screen knows no ESC [ %s %s"):format(parameters, command), 0)
      if command ~= "m" then
        self.is_waiting = false
      end
      run(self, math.max(1, tonumber(parameters:match("^%d+")) or 1), parameters)
      return text:sub(#parameters + 4)
    elseif text:find("^\27%[[%d;?>=]*$") or text == "\27" then
      return nil
    end
    return text:match("^\27[=>](.*)$") or error(("the screen does not know %q"):format(text:sub(1, 8)), 0)
  elseif CONTROLS[first] then
    self.is_waiting = false
    CONTROLS[first](self)
    return text:sub(2)
  end
  local byte = first:byte()
  local n = byte >= 0xf0 and 4 or byte >= 0xe0 and 3 or byte >= 0xc0 and 2 or 1
  if #text < n then
    return nil
  elseif byte < 32 or byte == 127 then
    error(("the control character %d reached the screen"):format(byte), 0)
  end
  put(self, text:sub(1, n))
  return text:sub(n + 1)
end

--- Take bytes from the program.
-- @string bytes
function Screen:feed(bytes)
  local text = self.rest .. bytes
  while text ~= "" do
    -- Plain text at once: rows of results are long.
    local plain = text:match("^[\32-\126]+")
    if plain then
      for i = 1, #plain do
        put(self, plain:sub(i, i))
      end
      text = text:sub(#plain + 1)
    else
      local left = step(self, text)
      if not left then
        break
      end
      text = left
    end
  end
  self.rest = text
end

--- Another size. Lines are wrapped anew, as most terminals do: those that went on in the next row are joined first.
-- @number columns
-- @number rows
function Screen:resize(columns, rows)
  if columns == self.columns then
    self.rows = rows
    while self.row > rows do
      self.scrolled[#self.scrolled + 1] = table.remove(self.lines, 1)
      self.row = self.row - 1
    end
    return
  end
  local old, row, column = self.lines, self.row, self.column + (self.is_waiting and 1 or 0)
  local again = screen.new(columns, rows)
  local cursor_row, cursor_column
  for i, line in ipairs(old) do
    for at = 1, self.columns + 1 do
      if i == row and at == column then
        cursor_row, cursor_column = again.row + #again.scrolled, again.column
      end
      local rest_is_blank = true
      for further = at, self.columns do
        rest_is_blank = rest_is_blank and line[further] == nil
      end
      if rest_is_blank and not (i == row and at < column) then
        break
      elseif at <= self.columns and line[at] ~= "" then
        put(again, (line[at] or " "):match("^[%z\1-\127\194-\244][\128-\191]*"))
      end
    end
    if not line.wraps and i < #old then
      again.column, again.is_waiting = 1, false
      line_feed(again)
    end
  end
  self.columns, self.rows, self.lines = columns, rows, again.lines
  for _, line in ipairs(again.scrolled) do
    self.scrolled[#self.scrolled + 1] = line
  end
  self.row = clamp((cursor_row or row) - #again.scrolled, 1, rows)
  self.column, self.is_waiting = clamp(cursor_column or column, 1, columns), false
end

local function text_of(self, line)
  local cells = {}
  for i = 1, self.columns do
    cells[i] = line[i] or " "
  end
  return (table.concat(cells):gsub(" +$", ""))
end

--- The line that the cursor is in, without blanks at its end.
-- @treturn string
function Screen:line()
  return text_of(self, line_at(self, self.row))
end

--- What is on the screen, rows without blanks at their ends, without empty rows at the end.
-- @treturn string
function Screen:text()
  local lines = {}
  for i, line in ipairs(self.lines) do
    lines[i] = text_of(self, line)
  end
  return (table.concat(lines, "\n"):gsub("\n+$", ""))
end

--- Is nothing left on that should not outlast a program?
-- @treturn boolean
-- @treturn ?string what is wrong
function Screen:is_plain()
  for mode, is_on in pairs(self.modes) do
    if is_on ~= (mode == "?25" or mode == "?7") then
      return false, "mode " .. mode .. (is_on and " is left on" or " is left off")
    end
  end
  if self.style ~= "" then
    return false, "colour " .. self.style .. " is left on"
  elseif self.rest ~= "" then
    return false, ("a part of a sequence is left: %q"):format(self.rest)
  end
  return true
end

return screen
