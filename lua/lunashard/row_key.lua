--- The shard key in a row of an answer.
-- @module lunashard.row_key
-- @local

local row_key = {}

--- Find it. Does not yield.
-- @tparam table row
-- @tparam {string,...} columns of the key
-- @return the value, or a list of values of several columns; nil when one of them is NULL
function row_key.of(row, columns)
  if #columns == 1 then
    return row[columns[1]]
  end
  local key = {}
  for i, column in ipairs(columns) do
    if row[column] == nil then
      return nil
    end
    key[i] = row[column]
  end
  return key
end

return row_key
