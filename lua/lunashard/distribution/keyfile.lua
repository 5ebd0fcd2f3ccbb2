--- Keys from a file, one record after the other, whatever the file's size.
-- A record is a line, or one of CSV (RFC 4180) when columns are named or the key has several. An empty line, `\N`, and
-- in CSV an empty field without quotes, are NULL.
-- @module lunashard.distribution.keyfile

local errors = require("lunashard.errors")
local task = require("lunashard.task")
local values = require("lunashard.values")

local keyfile = {}

local PIECE = 65536
local LONGEST = 1024 * 1024 -- bytes of a record
local INTERRUPTED = 4 -- EINTR: by a signal, which cancels this task at its next wait

local Reader = {}
Reader.__index = Reader

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

-- More bytes behind those that are left; false at the end of the file.
local function fill(self)
  local piece, reason, number = self.file:read(PIECE)
  while piece == nil and number == INTERRUPTED do
    task.sleep(0)
    piece, reason, number = self.file:read(PIECE)
  end
  if piece == nil and reason then
    return invalid("%s: %s", self.name, reason)
  elseif piece == nil then
    return false
  end
  self.bytes, self.at = self.bytes:sub(self.at) .. piece, 1
  return true
end

-- Lines end with LF or CR LF; inside of a quoted field both belong to it.
local function without_return(line)
  return line:byte(-1) == 13 and line:sub(1, -2) or line
end

-- A line without its LF; nil at the end of the file, or nil and an error.
local function next_line(self)
  local from = self.at
  while true do
    local stop = self.bytes:find("\n", from, true)
    if stop then
      local line = self.bytes:sub(self.at, stop - 1)
      self.at, self.lines = stop + 1, self.lines + 1
      return line
    end
    local left = #self.bytes - self.at + 1
    if left > LONGEST then
      return invalid("%s:%d: a line of more than 1 MiB; is this a file of keys?", self.name, self.lines + 1)
    end
    local more, err = fill(self)
    from = left + 1
    if more == nil then
      return nil, err
    elseif not more then
      local line = self.bytes:sub(self.at)
      self.bytes, self.at = "", 1
      self.lines = self.lines + (line ~= "" and 1 or 0)
      return line ~= "" and line or nil
    end
  end
end

-- The fields of a record that begins with `line`; NULL is the value null.
local function csv_fields(self, line)
  local fields, n, at, first = {}, 0, 1, self.lines
  while true do
    n = n + 1
    if line:byte(at) == 34 then
      local parts = {}
      at = at + 1
      while true do
        local quote = line:find('"', at, true)
        if not quote then
          parts[#parts + 1] = line:sub(at) .. "\n"
          local err
          line, err = next_line(self)
          if err then
            return nil, err
          elseif not line then
            return invalid("%s:%d: a quoted field has no end", self.name, first)
          elseif #parts > LONGEST then
            return invalid("%s:%d: a record of more than 1 Mi lines; is a quote missing?", self.name, first)
          end
          at = 1
        elseif line:byte(quote + 1) == 34 then
          parts[#parts + 1] = line:sub(at, quote)
          at = quote + 2
        else
          parts[#parts + 1] = line:sub(at, quote - 1)
          at = quote + 1
          break
        end
      end
      fields[n] = table.concat(parts)
      at = at == #line and line:byte(at) == 13 and at + 1 or at
      if at <= #line and line:byte(at) ~= 44 then
        return invalid("%s:%d: there is more behind the end of a quoted field", self.name, self.lines)
      end
    else
      local comma = line:find(",", at, true)
      local text = comma and line:sub(at, comma - 1) or without_return(line:sub(at))
      fields[n] = (text == "" or text == "\\N") and values.null or text
      at = comma or #line + 1
    end
    if at > #line then
      return fields
    end
    at = at + 1
  end
end

local function position_of(self, header, wanted)
  if type(wanted) == "number" then
    return wanted
  end
  for i, name in ipairs(header) do
    if name == wanted then
      return i
    end
  end
  local names = {}
  for i, name in ipairs(header) do
    names[i] = tostring(name)
  end
  local near = errors.nearest(wanted, names)
  return invalid("%s: there is no column %q%s", self.name, wanted, near and ("; did you mean %q?"):format(near)
    or "; the first line has " .. table.concat(names, ", "):sub(1, 200))
end

local function read_header(self, columns)
  local line, err = next_line(self)
  if err then
    return nil, err
  elseif not line then
    return invalid("%s: it is empty, but its first line should name the columns", self.name)
  end
  local header
  header, err = csv_fields(self, line:gsub("^\239\187\191", "")) -- a byte order mark
  if not header then
    return nil, err
  end
  for i, wanted in ipairs(columns) do
    self.positions[i], err = position_of(self, header, wanted)
    if err then
      return nil, err
    end
  end
  return true
end

--- Open a file of keys.
-- @string path `-` for stdin
-- @tparam ?{string|int,...} columns of CSV: names, which the first line has, or positions; nil: a key is a line
-- @treturn[1] Reader with `read`, `where` and `close`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function keyfile.open(path, columns)
  local file, reason = io.stdin
  if path ~= "-" then
    file, reason = io.open(path, "rb")
  end
  if not file then
    return invalid("%s", reason)
  end
  local self = setmetatable({ file = file, name = path == "-" and "stdin" or path, bytes = "", at = 1, lines = 0,
    line = 0 }, Reader)
  if columns then
    self.positions = {}
    local named = false
    for i, column in ipairs(columns) do
      self.positions[i], named = column, named or type(column) == "string"
    end
    local ok, err = true, nil
    if named then
      ok, err = read_header(self, columns)
    end
    if not ok then
      self:close()
      return nil, err
    end
  end
  return self
end

--- The next key, as text; a list of texts for several columns; the value null for NULL.
-- @treturn[1] ?string|table nil at the end
-- @treturn[2] nil
-- @treturn[2] lunashard.error the file cannot be read, or is no CSV
function Reader:read()
  local line, err = next_line(self)
  if line == nil then
    return nil, err
  end
  self.line = self.lines
  if not self.positions then
    line = without_return(line)
    return (line == "" or line == "\\N") and values.null or line
  end
  local fields
  fields, err = csv_fields(self, line)
  if not fields then
    return nil, err
  elseif #self.positions == 1 then
    local field = fields[self.positions[1]]
    return field == nil and values.null or field
  end
  local key = {}
  for i, position in ipairs(self.positions) do
    key[i] = fields[position] == nil and values.null or fields[position]
  end
  return key
end

--- Where the last key was read: the file and its line.
-- @treturn string
function Reader:where()
  return ("%s:%d"):format(self.name, self.line)
end

--- Close the file.
function Reader:close()
  if self.file ~= io.stdin then
    self.file:close()
  end
end

return keyfile
