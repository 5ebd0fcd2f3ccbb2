--- Where the rows of a bulk load come from.
-- A source is a function that hands its next batch to a splitter, as tables or as bytes.
-- @module lunashard.router.copy_source

local options = require("lunashard.options")
local task = require("lunashard.task")

local copy_source = {}

local now = task.now

local BATCH = 100 -- rows: little enough that they are still in the cache when they are written
local PIECE = 65536 -- bytes

local function is_plain(value)
  return type(value) == "table" and getmetatable(value) == nil
end

-- The values that a row with a metatable shows, by name or by position.
local function shown(row, columns)
  if type(row) ~= "table" or getmetatable(row) == nil then
    return row
  end
  local by_name = type(next(row)) == "string"
  local list = {}
  for i, column in ipairs(columns) do
    if by_name then
      list[column] = row[column]
    else
      list[i] = row[i]
    end
  end
  if by_name then -- names that are no columns are refused as in any other row
    for name in pairs(row) do
      list[name] = row[name]
    end
  else
    list[#columns + 1] = row[#columns + 1]
  end
  return list
end

local function from_list(list)
  local at, n = 0, #list
  return function(split)
    local from, to, plain = at + 1, math.min(at + BATCH, n), true
    for i = from, to do
      plain = plain and getmetatable(list[i]) == nil
    end
    at = to
    if plain then
      local ok, err = split:rows(list, from, to)
      return ok, err, at < n
    end
    local batch = {}
    for i = from, to do
      batch[i - from + 1] = shown(list[i], split.columns)
    end
    local ok, err = split:rows(batch, 1, to - from + 1)
    return ok, err, at < n
  end
end

-- A batch ends with the deadline, so that one who is slow with the rows is told of it.
local function from_iterator(next_row, deadline)
  local batch = {}
  return function(split)
    local n, more = 0, true
    while n < BATCH do
      local row, failure = next_row()
      if row == nil then
        if failure ~= nil then
          error(failure, 0)
        end
        more = false
        break
      end
      n = n + 1
      batch[n] = getmetatable(row) == nil and row or shown(row, split.columns)
      if deadline and now() >= deadline then
        break
      end
    end
    local ok, err = split:rows(batch, 1, n)
    return ok, err, more
  end
end

local function from_pieces(next_piece)
  return function(split)
    local bytes, failure = next_piece()
    if bytes == nil and failure ~= nil then
      error(failure, 0)
    elseif bytes ~= nil and type(bytes) ~= "string" then
      error("expected bytes as a string, got a " .. type(bytes), 0)
    end
    local ok, err = split:text(bytes)
    return ok, err, bytes ~= nil
  end
end

local function pieces_of_string(bytes)
  local at = 1
  return function()
    local piece = bytes:sub(at, at + PIECE - 1)
    at = at + PIECE
    return piece ~= "" and piece or nil
  end
end

local function pieces_of_list(list)
  local i = 0
  return function()
    i = i + 1
    return list[i]
  end
end

--- The source for what a caller gave as rows.
-- @param rows
-- @tparam ?string format bytes, if given
-- @tparam ?number deadline
-- @treturn[1] func takes a splitter of @{lunashard.router.copy_split}; gives true, an error, and whether
--   there is more. Raises what an iterator raises, or when that gives `nil, err`
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function copy_source.new(rows, format, deadline)
  local is_file = io.type(rows)
  if is_file and not format then
    return nil, 'a file holds bytes: say which with option format, "text" or "csv"'
  elseif is_file == "closed file" then
    return nil, "the file is closed"
  elseif is_file then
    return from_pieces(function()
      return rows:read(PIECE)
    end)
  elseif type(rows) == "string" and format then
    return from_pieces(pieces_of_string(rows))
  elseif type(rows) ~= "table" and type(rows) ~= "function" then
    return nil, (format and "expected bytes, a file or an iterator, got " or "expected a list or an iterator, got ")
      .. options.describe(rows)
  elseif is_plain(rows) and not options.is_list(rows) then
    return nil, "expected a list or an iterator, got a table with gaps or names"
  elseif format then
    return from_pieces(is_plain(rows) and pieces_of_list(rows) or rows)
  end
  return is_plain(rows) and from_list(rows) or from_iterator(rows, deadline)
end

return copy_source
