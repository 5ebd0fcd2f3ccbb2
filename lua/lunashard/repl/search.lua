--- Looking for an earlier line while its letters are typed (Ctrl-R). Pure.
-- @module lunashard.repl.search

local search = {}

local Search = {}
Search.__index = Search

--- Begin at the latest entry.
-- @tparam {string,...} entries
-- @string before what was being edited, and is again when the search is given up
-- @treturn Search
function search.new(entries, before)
  return setmetatable({ entries = entries, before = before, text = "", index = #entries + 1, is_found = true }, Search)
end

-- The entry from `index` on (downwards or upwards) that has the text; small letters stand for large ones as well.
local function find(self, index, step)
  local has_capitals = self.text:find("%u") ~= nil
  while index >= 1 and index <= #self.entries do
    local entry = self.entries[index]
    local at = (has_capitals and entry or entry:lower()):find(self.text, 1, true)
    if at then
      self.index, self.at, self.is_found = index, at, true
      return entry
    end
    index = index + step
  end
  self.is_found = false
  return nil
end

--- What is shown in front of the entry.
-- @treturn string
function Search:prompt()
  return ("(%ssearch) `%s': "):format(self.is_found and "" or "failed ", self.text)
end

--- Where in the entry that is shown the cursor belongs.
-- @tparam Line line
-- @treturn number
function Search:cursor(line)
  local bytes = 0
  for i, char in ipairs(line.chars) do
    bytes = bytes + #char
    if bytes >= (self.at or 0) then
      return i - 1
    end
  end
  return #line.chars
end

--- Take a key or a text.
-- @tparam table event
-- @treturn ?string `done` when the search is over, `again` when the key is to be looked at once more by the editor
-- @treturn ?string what is to be shown
function Search:take(event)
  if event.text or event.paste then
    self.text = self.text .. (event.text or event.paste:match("[^\n]*"))
    return nil, find(self, math.min(self.index, #self.entries), -1)
  elseif event.key == "C-r" then
    return nil, find(self, self.index - 1, -1)
  elseif event.key == "C-s" then
    return nil, find(self, self.index + 1, 1)
  elseif event.key == "backspace" or event.key == "C-h" then
    self.text = self.text:gsub("[^\128-\191][\128-\191]*$", "")
    self.index = #self.entries
    return nil, self.text ~= "" and find(self, self.index, -1) or self.before
  elseif event.key == "C-g" or event.key == "C-c" then
    return "done", self.before
  elseif event.key == "escape" then
    return "done"
  end
  return "again"
end

return search
