--- LIMIT and OFFSET: what they say, and what the shards are asked for instead.
-- @module lunashard.merging.bounds

local clauses = require("lunashard.merging.clauses")
local errors = require("lunashard.errors")
local expression = require("lunashard.merging.expression")
local values = require("lunashard.values")

local bounds = {}

local MOST = 2 ^ 53

-- `{ value = }`, `{ param = }` or, for NULL and ALL, false.
local function read_one(node, parsed)
  while node.TypeCast do
    node = node.TypeCast.arg
  end
  local constant, param = node.A_Const, node.ParamRef
  if param then
    return { param = param.number }
  elseif constant and constant.isnull then
    return false
  end
  local number = constant and (constant.ival and constant.ival.ival or constant.ival
    and expression.integer(constant, parsed.sql, parsed.tokens) or constant.fval and tonumber(constant.fval.fval))
  return number and number % 1 == 0 and { value = number } or nil
end

--- What a statement says.
-- @tparam table stmt a `SelectStmt`
-- @tparam table parsed `sql`, `tokens`
-- @treturn[1] table `limit` and `offset`, each `{ value = n }`, `{ param = n }` or nil
-- @treturn[2] nil
-- @treturn[2] string why it cannot be done here
function bounds.read(stmt, parsed)
  local found = {}
  for field, key in pairs({ limitCount = "limit", limitOffset = "offset" }) do
    if stmt[field] then
      local one = read_one(stmt[field], parsed)
      if one == nil then
        return nil, key:upper() .. " must be a number or a parameter"
      end
      if one and (one.param or one.value <= MOST or key == "offset") then -- a greater LIMIT is none
        found[key] = one
      end
    end
  end
  if stmt.limitOption == "LIMIT_OPTION_WITH_TIES" then
    return nil, "FETCH FIRST ... WITH TIES needs to know ties between shards"
  end
  return found
end

--- The edits that make a shard send all that may be needed of it: LIMIT the sum of both, and no OFFSET.
-- @tparam table found from `clauses.find`
-- @tparam table wanted from @{read}
-- @treturn {table,...}
function bounds.edits(found, wanted)
  local edits, first = {}, nil
  for _, name in ipairs({ "LIMIT", "OFFSET", "FETCH" }) do
    local clause = found.by_name[name]
    if clause then
      local edit = clauses.edit(found, clause, "")
      edits[#edits + 1] = edit
      first = (not first or edit.first < first.first) and edit or first
    end
  end
  local limit, offset = wanted.limit, wanted.offset
  if limit and limit.value and (not offset or offset.value) then
    first.text = ("LIMIT %d"):format(limit.value + (offset and offset.value or 0))
  elseif limit then
    local function text(one)
      return ("CAST(%s AS bigint)"):format(one.param and "$" .. one.param or ("%d"):format(one.value))
    end
    first.text = "LIMIT " .. text(limit) .. (offset and " + coalesce(" .. text(offset) .. ", 0)" or "")
  end
  return edits
end

local function value_of(one, params, name, most)
  local value = one and one.value
  if one and one.param then
    value = params and params[one.param]
    if value == nil or value == values.null then
      return nil
    end
    value = tonumber(value)
    if most and value and value > most then
      return nil
    end
  end
  if one and (value == nil or value < 0 or value % 1 ~= 0 or value > MOST) then
    return nil, errors.new("INVALID", {
      message = ("%s must be a whole number, 0 or more, got %s"):format(name, tostring(one.value or params[one.param])),
    })
  end
  return value
end

--- The numbers of one call.
-- @tparam table wanted from @{read}
-- @tparam ?table params
-- @treturn[1] table `limit` (nil for all) and `offset` (0)
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for what is no whole number of 0 or more
function bounds.values(wanted, params)
  local limit, err = value_of(wanted.limit, params, "LIMIT", MOST)
  if err then
    return nil, err
  end
  local offset
  offset, err = value_of(wanted.offset, params, "OFFSET")
  if err then
    return nil, err
  end
  return { limit = limit, offset = offset or 0 }
end

return bounds
