--- The text that Prometheus reads: families of samples, one line each.
-- @module lunashard.metrics.text

local text = {}

local MAX_VALUE = 256 -- bytes of a label's value

local ESCAPED = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

-- What is no UTF-8 is shown byte by byte; a scrape that holds it would be refused as a whole.
local function utf8_only(value)
  local out, pos = {}, 1
  while pos <= #value do
    local c = value:byte(pos)
    local n = c < 0x80 and 1 or c >= 0xC2 and c < 0xE0 and 2 or c >= 0xE0 and c < 0xF0 and 3
      or c >= 0xF0 and c < 0xF5 and 4 or 0
    local piece = value:sub(pos, pos + n - 1)
    local second = value:byte(pos + 1) or 0
    local bad = n == 0 or #piece < n or piece:find("[^\128-\191]", 2)
      or c == 0xE0 and second < 0xA0 or c == 0xED and second > 0x9F or c == 0xF0 and second < 0x90
      or c == 0xF4 and second > 0x8F
    out[#out + 1] = bad and ("\\x%02X"):format(c) or piece
    pos = pos + (bad and 1 or n)
  end
  return table.concat(out)
end

--- A label's value as it may be kept: a text of at most 256 bytes, in UTF-8.
-- @param value
-- @treturn string
function text.value(value)
  value = tostring(value)
  if value:find("[\128-\255]") then
    value = utf8_only(value)
  end
  if #value > MAX_VALUE then
    local cut = MAX_VALUE
    while value:byte(cut + 1) >= 0x80 and value:byte(cut + 1) < 0xC0 do -- not in the middle of a character
      cut = cut - 1
    end
    value = value:sub(1, cut)
  end
  return value
end

-- Labels are the same for one scrape after the other.
local MAX_KNOWN = 10000
local known, n_known = {}, 0 -- name -> value -> text

local function label(name, value)
  local of_name = known[name]
  local found = of_name and of_name[value]
  if not found then
    if n_known >= MAX_KNOWN then
      known, n_known = {}, 0
    end
    of_name = known[name] or {}
    found = name .. '="' .. text.value(value):gsub('[\\"\n]', ESCAPED) .. '"'
    known[name], of_name[value], n_known = of_name, found, n_known + 1
  end
  return found
end

--- `name="value"` pairs, without the braces.
-- @string n1 name of the first
-- @param v1 its value
-- @string[opt] n2 name of the second, and so on
-- @param[opt] v2
-- @string[opt] n3
-- @param[opt] v3
-- @string[opt] n4
-- @param[opt] v4
-- @treturn string
function text.labels(n1, v1, n2, v2, n3, v3, n4, v4)
  if n4 then
    return label(n1, v1) .. "," .. label(n2, v2) .. "," .. label(n3, v3) .. "," .. label(n4, v4)
  elseif n3 then
    return label(n1, v1) .. "," .. label(n2, v2) .. "," .. label(n3, v3)
  elseif n2 then
    return label(n1, v1) .. "," .. label(n2, v2)
  end
  return label(n1, v1)
end

--- The same for lists.
-- @tparam {string,...} names
-- @tparam table values
-- @treturn string "" when the lists are empty
function text.label_list(names, values)
  local list = {}
  for i, name in ipairs(names) do
    list[i] = label(name, values[i])
  end
  return table.concat(list, ",")
end

local Writer = {}
Writer.__index = Writer

local spare -- a large table, which would have to grow again for every scrape

--- Something to write families into.
-- @treturn Writer
function text.writer()
  local self = spare or setmetatable({}, Writer)
  self.n, spare = 0, nil
  return self
end

--- Begin a family; its samples follow.
-- @string name
-- @string kind `counter`, `gauge` or `histogram`
-- @string help one line
function Writer:family(name, kind, help)
  self.name = name
  local n = self.n
  self[n + 1], self[n + 2], self[n + 3], self[n + 4] = "# HELP ", name, " ",
    (help:gsub("[\\\n]", ESCAPED))
  self[n + 5], self[n + 6], self[n + 7], self[n + 8], self[n + 9] = "\n# TYPE ", name, " ", kind, "\n"
  self.n = n + 9
end

-- Numbers that are none are written in words.
local function number(value)
  if value ~= value then
    return "NaN"
  elseif value == math.huge then
    return "+Inf"
  elseif value == -math.huge then
    return "-Inf"
  elseif value % 1 == 0 and value > -2 ^ 53 and value < 2 ^ 53 and (value >= 1e14 or value <= -1e14) then
    return ("%.0f"):format(value)
  end
  return value
end

--- Write a sample of the family.
-- @string labels as from `labels`; "" for none
-- @tparam number|boolean value
function Writer:sample(labels, value)
  if type(value) == "boolean" then
    value = value and 1 or 0
  end
  local n = self.n
  self[n + 1] = self.name
  if labels == "" then
    self[n + 2] = " "
    n = n + 2
  else
    self[n + 2], self[n + 3], self[n + 4] = "{", labels, "} "
    n = n + 4
  end
  self[n + 1], self[n + 2] = number(value), "\n"
  self.n = n + 2
end

--- Write a histogram of the family.
-- @string labels
-- @tparam {string,...} bounds what is shown as `le`, in order, without `+Inf`
-- @tparam {number,...} counts up to each of these, those below included
-- @number count of all
-- @number sum
function Writer:histogram(labels, bounds, counts, count, sum)
  local n, name = self.n, self.name
  local lead = labels == "" and '_bucket{le="' or "_bucket{" .. labels .. ',le="'
  for i = 1, #bounds do
    self[n + 1], self[n + 2], self[n + 3], self[n + 4], self[n + 5], self[n + 6] = name, lead, bounds[i], '"} ',
      number(counts[i]), "\n"
    n = n + 6
  end
  local tail = labels == "" and " " or "{" .. labels .. "} "
  for _, line in ipairs({ { lead, '+Inf"} ', count }, { "_sum", tail, sum }, { "_count", tail, count } }) do
    self[n + 1], self[n + 2], self[n + 3], self[n + 4], self[n + 5] = name, line[1], line[2], number(line[3]), "\n"
    n = n + 5
  end
  self.n = n
end

--- All that was written. The writer is of no use any more.
-- @treturn string
function Writer:text()
  spare = self
  return table.concat(self, "", 1, self.n)
end

return text
