--- Where the characters of a text that is edited come to stand on a terminal. Pure.
-- Rows that are full go on in the next one by the terminal's own wrapping, so that it knows that they are one line when
-- its window becomes another size, and when somebody copies from it.
-- @module lunashard.repl.view

local cells = require("lunashard.core.text")
local terminal = require("lunashard.core.terminal")

local view = {}

local TAB = 4

-- What a character is shown as, and its columns.
local function shown(char, width)
  if width >= 0 then
    return char, width
  elseif char == "\t" then
    return (" "):rep(TAB), TAB
  elseif char:byte() < 32 then
    return "^" .. string.char(char:byte() + 64), 2
  elseif char == "\127" then
    return "^?", 2
  end
  return "\239\191\189", 1 -- U+FFFD
end

local Layout = {}
Layout.__index = Layout

local function break_row(self, is_soft)
  self.rows[#self.rows].soft = is_soft
  self.rows[#self.rows + 1] = {}
  self.column = 0
end

local function put(self, text, width)
  if self.column + width > self.columns then
    break_row(self, true)
  end
  local row = self.rows[#self.rows]
  row[#row + 1] = text
  self.column = self.column + width
end

-- A prompt may have colours.
local function put_prompt(self, prompt)
  local at = 1
  while at <= #prompt do
    local colour = prompt:match("^\27%[[%d;]*m", at)
    local row = self.rows[#self.rows]
    if colour then
      row[#row + 1] = colour
      at = at + #colour
    else
      local text = prompt:match("^[^\27]+", at) or prompt:sub(at, at)
      local chars, widths = terminal.characters(text)
      for i = 1, #chars do
        put(self, shown(chars[i], widths[i]))
      end
      at = at + #text
    end
  end
end

local function mark_cursor(self, is_last)
  if self.column < self.columns then
    self.cursor_row, self.cursor_column = #self.rows, self.column
  elseif is_last then
    break_row(self, false)
    self.cursor_row, self.cursor_column = #self.rows, 0
  else
    self.cursor_row, self.cursor_column = #self.rows, self.columns - 1
  end
end

--- Lay a text out.
-- @tparam table given `chars`, `widths`, `cursor` as a line has them, `prompt`, `continuation`
-- @number columns
-- @treturn table `rows` (lists of texts; `soft` when the terminal wraps there), `cursor_row` from 1, `cursor_column` from 0
function view.layout(given, columns)
  local self = setmetatable({ rows = { {} }, column = 0, columns = math.max(columns, 8) }, Layout)
  put_prompt(self, given.prompt)
  local chars, widths = given.chars, given.widths
  for i = 1, #chars do
    local text, width = shown(chars[i], widths[i])
    if i == given.cursor + 1 then
      if self.column + width > self.columns and chars[i] ~= "\n" then
        break_row(self, true)
      end
      mark_cursor(self, false)
    end
    if chars[i] == "\n" then
      break_row(self, false)
      put_prompt(self, given.continuation)
    else
      put(self, text, width)
    end
  end
  if given.cursor == #chars then
    mark_cursor(self, true)
  end
  return self
end

--- What draws some of its rows, from where the cursor is on; the cursor is then in the last one.
-- @tparam table layout
-- @number from
-- @number to
-- @treturn string
function view.draw(layout, from, to)
  local parts = {}
  for i = from, to do
    parts[#parts + 1] = table.concat(layout.rows[i])
    if i < to and not layout.rows[i].soft then
      parts[#parts + 1] = "\r\n"
    end
  end
  return table.concat(parts)
end

--- A text in columns, as a list of candidates is shown.
-- @tparam {string,...} items
-- @number columns
-- @number limit rows at the most
-- @treturn string
function view.columns(items, columns, limit)
  local widest = 1
  for _, item in ipairs(items) do
    widest = math.max(widest, cells.width(item))
  end
  local across = math.max(1, math.floor(columns / (widest + 2)))
  local down = math.ceil(#items / across)
  local left_out = 0
  if down > limit then
    left_out = #items - limit * across
    down = limit
  end
  local lines = {}
  for row = 1, down do
    local parts = {}
    for column = 1, across do
      local item = items[(column - 1) * down + row]
      if item then
        parts[#parts + 1] = item .. (" "):rep(widest + 2 - cells.width(item))
      end
    end
    lines[row] = table.concat(parts):gsub(" +$", "")
  end
  if left_out > 0 then
    lines[#lines + 1] = ("... and %d more"):format(left_out)
  end
  return table.concat(lines, "\n")
end

return view
