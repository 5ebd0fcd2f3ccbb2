--- Median and extremes.
local spread = {}

--- The value below which a share of a sorted list lies.
-- @tparam {number,...} sorted
-- @number share 0 to 1
function spread.quantile(sorted, share)
  return sorted[math.max(1, math.ceil(share * #sorted))]
end

--- Median, least and greatest of a list that is not empty.
-- @tparam {number,...} values
-- @treturn table `median`, `min`, `max`
function spread.of(values)
  local sorted = {}
  for i, value in ipairs(values) do
    sorted[i] = value
  end
  table.sort(sorted)
  local middle = math.floor((#sorted + 1) / 2)
  local median = #sorted % 2 == 1 and sorted[middle] or (sorted[middle] + sorted[middle + 1]) / 2
  return { median = median, min = sorted[1], max = sorted[#sorted] }
end

return spread
