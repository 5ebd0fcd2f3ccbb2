--- Numbers, durations and times as people read them.
-- @module lunashard.serve.page.words

local words = {}

local STEPS = { { 1e12, "T" }, { 1e9, "G" }, { 1e6, "M" }, { 1e3, "k" } }
local BYTES = { { 2 ^ 40, "TiB" }, { 2 ^ 30, "GiB" }, { 2 ^ 20, "MiB" }, { 2 ^ 10, "KiB" } }

-- Three digits that count.
local function digits(n)
  if n == 0 or n >= 100 then
    return ("%.0f"):format(n)
  end
  return ((n >= 10 and "%.1f" or "%.2f"):format(n):gsub("%.?0+$", ""))
end

--- A number, such as `42`, `1.25k` or `3.4M`.
-- @number n
-- @treturn string
function words.number(n)
  for _, step in ipairs(STEPS) do
    if n >= step[1] * 10 or n >= step[1] and step[1] > 1e3 then
      return digits(n / step[1]) .. step[2]
    end
  end
  return digits(n)
end

--- A whole number in groups of three digits.
-- @number n
-- @treturn string
function words.count(n)
  local text = ("%.0f"):format(n):reverse():gsub("(%d%d%d)", "%1 "):reverse()
  return (text:gsub("^(%D*) ", "%1"):gsub(" ", "\226\128\175")) -- narrow, and without a line break
end

--- A size in bytes.
-- @number n
-- @treturn string
function words.bytes(n)
  for _, step in ipairs(BYTES) do
    if n >= step[1] then
      return digits(n / step[1]) .. " " .. step[2]
    end
  end
  return digits(n) .. " B"
end

--- How long something took, such as `0.42 ms` or `1.3 s`.
-- @number seconds
-- @treturn string
function words.latency(seconds)
  if seconds < 0.001 then
    return ("%.0f µs"):format(seconds * 1e6)
  elseif seconds < 1 then
    return digits(seconds * 1000) .. " ms"
  end
  return digits(seconds) .. " s"
end

--- How long something has been so, such as `12 s`, `5 min` or `3 h 20 min`.
-- @number seconds
-- @treturn string
function words.duration(seconds)
  seconds = math.floor(math.max(seconds, 0))
  if seconds < 120 then
    return seconds .. " s"
  elseif seconds < 7200 then
    return math.floor(seconds / 60) .. " min"
  elseif seconds < 172800 then
    return ("%d h %d min"):format(math.floor(seconds / 3600), math.floor(seconds % 3600 / 60))
  end
  return math.floor(seconds / 86400) .. " d"
end

--- A share in percent.
-- @number share 0 to 1
-- @treturn string
function words.percent(share)
  local percent = share * 100
  return ((percent == 0 or percent >= 10) and "%.0f\226\128\175%%" or "%.1f\226\128\175%%"):format(percent)
end

--- A number of things: `1 shard`, `2 shards`.
-- @number n
-- @string noun
-- @treturn string
function words.of(n, noun)
  return ("%d %s%s"):format(n, noun, n == 1 and "" or "s")
end

return words
