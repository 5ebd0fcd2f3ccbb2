--- Arithmetic of checksums: of rows that are added to others, and of rows that are taken away.
-- A checksum is a text as `names.checksum` gives it: the number of rows, the xor of their hashes, and the sums of the upper
-- and of the lower halves. As `{ rows, xor, upper, lower }` of 64-bit integers it can be computed with.
-- @module lunashard.rebalancer.sums
-- @local

local bit = require("bit")

local sums = {}

local MASK = 0xffffffffLL

-- Exact, where a double would not be: digits are taken nine at a time.
local function integer(text)
  local sign, digits = text:match("^(%-?)(%d+)$")
  local value = 0LL
  for at = 1, #digits, 9 do
    local piece = digits:sub(at, at + 8)
    value = value * 10LL ^ #piece - (tonumber(piece) + 0LL) -- below zero: there is one number more
  end
  return sign == "-" and value or -value
end

local function text_of(value)
  return (tostring(value + 0LL):gsub("LL$", ""))
end

--- The checksum of nothing.
-- @treturn table
function sums.zero()
  return { 0LL, 0LL, 0LL, 0LL }
end

--- Read a checksum.
-- @string text
-- @treturn table
function sums.parse(text)
  local parts = {}
  for part in text:gmatch("%S+") do
    parts[#parts + 1] = integer(part)
  end
  return parts
end

--- The checksum of rows by their hashes.
-- @tparam {number|int64,...} hashes
-- @treturn table
function sums.of(hashes)
  local xor, upper, lower = 0LL, 0LL, 0LL
  for _, one in ipairs(hashes) do
    local hash = one + 0LL
    xor, upper, lower = bit.bxor(xor, hash), upper + bit.arshift(hash, 32), lower + bit.band(hash, MASK)
  end
  return { #hashes + 0LL, xor, upper, lower }
end

--- Of the rows of both.
-- @tparam table a
-- @tparam table b
-- @treturn table
function sums.add(a, b)
  return { a[1] + b[1], bit.bxor(a[2], b[2]), a[3] + b[3], a[4] + b[4] }
end

--- Of the rows of `a` without those of `b`.
-- @tparam table a
-- @tparam table b
-- @treturn table
function sums.subtract(a, b)
  return { a[1] - b[1], bit.bxor(a[2], b[2]), a[3] - b[3], a[4] - b[4] }
end

--- As a check: what `verify.run` gives for a table.
-- @tparam table a
-- @treturn table `rows`, `checksum`
function sums.check(a)
  local parts = {}
  for i = 1, 4 do
    parts[i] = text_of(a[i])
  end
  return { rows = tonumber(a[1]), checksum = table.concat(parts, " ") }
end

return sums
