--- Positions in a server's write-ahead log.
-- They stay as PostgreSQL writes them, "0/16B3748": their 64 bits are more than a number holds exactly, so they are
-- compared as two halves.
-- @module lunashard.lsn

local errors = require("lunashard.errors")

local lsn = {}

-- Both halves as numbers, or nil.
local function halves(text)
  local high, low = text:match("^(%x+)/(%x+)$")
  if high and #high <= 8 and #low <= 8 then
    return tonumber(high, 16), tonumber(low, 16)
  end
end

--- Is this a position, as text?
-- @param value anything
-- @treturn boolean
function lsn.is(value)
  return type(value) == "string" and halves(value) ~= nil
end

--- Has who stands at one position seen all that was written before another one?
-- @string position
-- @string wanted
-- @treturn boolean
function lsn.reached(position, wanted)
  local high, low = halves(position)
  local wanted_high, wanted_low = halves(wanted)
  return high > wanted_high or high == wanted_high and low >= wanted_low
end

--- A metatable for results: their field `lsn` is asked for when it is first looked at, and kept.
-- To `pairs` and whatever else lists fields, the result stays what it was.
-- @tparam func ask returns the position, or nil and an error, which is raised then: nil instead of a position would
--   mean a stale read that nobody notices
-- @treturn table
function lsn.lazily(ask)
  return {
    __metatable = false, -- for those who show metatables
    __index = function(result, name)
      if name ~= "lsn" then
        return nil
      end
      local position, err = ask()
      if not position then
        error(err, 0)
      end
      rawset(result, "lsn", position)
      return position
    end,
  }
end

-- The result of a write that concerns a shard: of those of many shards, or of many statements, the last one there.
local function result_on(after, shard_id)
  if after.shard_results then
    return after.shard_results[shard_id]
  elseif after.results then
    for i = #after.results, 1, -1 do
      local result = after.results[i]
      if result and result.shard_id == shard_id then
        return result
      end
    end
    return nil
  elseif after.shard_id == nil or after.shard_id == shard_id then
    return after
  end
end

local function field(result)
  return result.lsn
end

--- The position that a read on a shard must see. Yields when it has to be asked for.
-- @tparam string|table after a position; or the result of a write, on this shard, another one, or several
-- @string shard_id
-- @treturn[1] ?string|boolean nil when nothing was written there; false when something was and its position is not
--   known, so that nobody but the primary has seen it for sure
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function lsn.of(after, shard_id)
  if type(after) == "string" then
    return after
  end
  local result = result_on(after, shard_id)
  if result == nil then
    return nil
  end
  local ok, position = pcall(field, result)
  if ok then
    return lsn.is(position) and position or false
  elseif errors.is(position) and not errors.is(position, "CANCELED") then
    return nil, position
  end
  error(position, 0)
end

return lsn
