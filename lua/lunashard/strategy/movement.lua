--- What moves between two placements of the same keys.
-- @module lunashard.strategy.movement

local movement = {}

local SAMPLE = 16384

-- A key of each type that differs for each `i`.
local MAKE = {
  int8 = function(i)
    return i
  end,
  text = function(i)
    return "key " .. i
  end,
  uuid = function(i)
    return ("%08x-0000-4000-8000-%012x"):format(i, i)
  end,
  date = function(i)
    return os.date("!%Y-%m-%d", i * 86400)
  end,
}

--- Keys to compare placements by, when the caller has none.
-- @tparam ?string|{string,...} types
-- @treturn table list
function movement.sample(types)
  local keys = {}
  for i = 1, SAMPLE do
    if type(types) == "table" and #types > 1 then
      keys[i] = {}
      for column, name in ipairs(types) do
        keys[i][column] = MAKE[name](i)
      end
    else
      keys[i] = MAKE[type(types) == "table" and types[1] or types or "int8"](i)
    end
  end
  return keys
end

local function bucket_owners(map)
  local owners = {}
  for bucket = 0, map:buckets() - 1 do
    owners[bucket + 1] = map:owner(bucket)
  end
  return owners
end

--- Compare two bound strategies.
-- @tparam lunashard.strategy.bound before
-- @tparam lunashard.strategy.bound after
-- @tparam ?table keys by default the buckets when they are the same, else a sample
-- @treturn[1] table `moved`, `total`, `fraction`, `by`, `unit`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function movement.compare(before, after, keys)
  local from, to, err
  local unit = "keys"
  if keys == nil and before.map:buckets() == after.map:buckets() then
    from, to, unit = bucket_owners(before.map), bucket_owners(after.map), "buckets"
  else
    keys = keys or movement.sample(before.key_type)
    from, err = before:route_many(keys)
    if from then
      to, err = after:route_many(keys)
    end
    if not to then
      return nil, err
    end
  end
  local result = { moved = 0, total = #from, by = {}, unit = unit }
  for i = 1, #from do
    if from[i] ~= to[i] then
      local way = from[i] .. "->" .. to[i]
      result.moved, result.by[way] = result.moved + 1, (result.by[way] or 0) + 1
    end
  end
  result.fraction = result.total > 0 and result.moved / result.total or 0
  return result
end

return movement
