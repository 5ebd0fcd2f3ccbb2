--- Which rows are equal in some columns, as the server's DISTINCT and GROUP BY see it.
-- @module lunashard.aggregate.identity

local errors = require("lunashard.errors")
local options = require("lunashard.options")
local order = require("lunashard.order")
local sortkey = require("lunashard.order.sortkey")

local identity = {}

local Identity = {}
Identity.__index = Identity

local function not_mergeable(column, shard_id, text)
  return nil, errors.new("NOT_MERGEABLE", {
    message = ("column %q: %s"):format(column, text),
    shard_id = shard_id,
  })
end

--- Tell rows apart by these columns.
-- @tparam {string,...} columns
-- @treturn Identity with `of(row, types, shard_id)`
function identity.new(columns)
  return setmetatable({ columns = columns, family = {} }, Identity)
end

-- Texts made for different families must not meet: they would never be equal.
function Identity:settle_family(i, family, shard_id)
  if self.family[i] ~= nil and self.family[i] ~= family then
    return not_mergeable(self.columns[i], shard_id, ("is %s here but %s on another shard: cast it to one type"):format(
      family, self.family[i]))
  end
  self.family[i] = family
  return true
end

--- Take over what another one has seen, when both mean the same by equal.
-- @tparam Identity other for the same columns
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE`
function Identity:merge(other)
  for i in ipairs(self.columns) do
    if other.family[i] ~= nil then
      local ok, err = self:settle_family(i, other.family[i])
      if not ok then
        return nil, err
      end
    end
  end
  return true
end

function Identity:bind(types, shard_id)
  local of = {}
  for i, column in ipairs(self.columns) do
    if types ~= nil and types[column] == nil then
      return nil, order.no_column(column, types, shard_id)
    end
    local sql_type = types and types[column]
    local text_of, reason = sortkey.identity(sql_type)
    if not text_of then
      return not_mergeable(column, shard_id, reason)
    end
    local ok, err = self:settle_family(i, sortkey.family(sql_type), shard_id)
    if not ok then
      return nil, err
    end
    of[i] = text_of
  end
  self.text_of, self.types, self.bound = of, types, true
  return true
end

--- A string that rows share exactly when they are equal; NULLs are equal to each other.
-- @tparam table row
-- @tparam ?table types column name -> SQL type
-- @tparam ?string shard_id
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `NOT_MERGEABLE`
function Identity:of(row, types, shard_id)
  if not self.bound or self.types ~= types then
    local ok, err = self:bind(types, shard_id)
    if not ok then
      return nil, err
    end
  end
  local texts = {}
  for i, column in ipairs(self.columns) do
    local value, text = row[column], "-"
    if value ~= nil then
      text = self.text_of[i](value)
      if text == nil then
        return not_mergeable(column, shard_id, options.describe(value) .. " is not a value of its type")
      end
    end
    texts[i] = text
  end
  return table.concat(texts)
end

return identity
