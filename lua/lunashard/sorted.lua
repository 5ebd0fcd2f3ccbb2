--- Names in order, for what is told or done name by name.
-- @module lunashard.sorted
-- @local

local sorted = {}

--- The keys of a table.
-- @tparam table set by texts
-- @treturn {string,...}
function sorted.keys(set)
  local names = {}
  for name in pairs(set) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

return sorted
