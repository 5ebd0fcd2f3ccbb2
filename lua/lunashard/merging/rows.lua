--- Plans for statements whose rows are those of the shards put together: ORDER BY, LIMIT, DISTINCT, UNION ALL.
-- @module lunashard.merging.rows

local bounds = require("lunashard.merging.bounds")
local clauses = require("lunashard.merging.clauses")
local expression = require("lunashard.merging.expression")

local rows = {}

local HIDDEN = "lunashard_hidden_"

local function is_star(value)
  local parts = value.ColumnRef and value.ColumnRef.fields or value.A_Indirection and value.A_Indirection.indirection
  return parts ~= nil and parts[#parts].A_Star ~= nil
end

-- Is the position of this target in the result not known?
local function has_star(stmt, up_to)
  for i = 1, up_to do
    if is_star(stmt.targetList[i].ResTarget.val) then
      return true
    end
  end
  return false
end

-- A row as a table has one field for all columns of a name.
local function is_ambiguous(stmt, i)
  local name = expression.output_name(stmt.targetList[i].ResTarget)
  for k, target in ipairs(stmt.targetList) do
    if k ~= i and expression.output_name(target.ResTarget) == name then
      return true
    end
  end
  return false
end

local function bare_name(node)
  local fields = node.ColumnRef and node.ColumnRef.fields
  return fields and #fields == 1 and fields[1].String and fields[1].String.sval
end

local Maker = {}
Maker.__index = Maker

-- What is hidden twice, by ORDER BY and DISTINCT ON, is one column.
function Maker:hide(node, range)
  local id = expression.canonical(node, self.parsed)
  local name = self.hidden_as[id]
  if not name then
    name = HIDDEN .. (#self.hidden + 1)
    self.hidden_as[id], self.hidden[#self.hidden + 1] = name, name
    self.texts[#self.texts + 1] = (", (%s) AS %s"):format(clauses.text(self.found, range), name)
  end
  return { name = name }
end

-- Which column of the result an item of ORDER BY or DISTINCT ON is: its position, its name, or a hidden one. A name
-- alone is a column of the result before it is one of the tables.
function Maker:resolve(node, item_range)
  local stmt, constant, name = self.stmt, node.A_Const, bare_name(node)
  if constant and constant.ival then
    return { position = expression.integer(constant, self.parsed.sql, self.parsed.tokens) }
  elseif self.is_union then
    return name and { name = name } or nil
  end
  for i, target in ipairs(stmt.targetList) do
    local same = name and expression.output_name(target.ResTarget) == name
      or not name and expression.canonical(target.ResTarget.val, self.parsed)
        == expression.canonical(node, self.parsed)
    if same and self.may_hide and is_ambiguous(stmt, i) then
      local range = clauses.without_alias(self.found, self.found.targets[i], target.ResTarget)
      return self:hide(target.ResTarget.val, range)
    elseif same and not has_star(stmt, i) then
      return { position = i }
    elseif same then
      return { name = expression.output_name(target.ResTarget) }
    end
  end
  if self.may_hide then
    return self:hide(node, item_range)
  end
  local ref = node.ColumnRef
  return ref and { name = expression.last_name(ref.fields) } or nil
end

local function order_item(maker, sort, range)
  if sort.sortby_dir == "SORTBY_USING" then
    return nil, "ORDER BY ... USING says no order that can be merged"
  end
  local item = maker:resolve(sort.node, range)
  if not item then
    return nil, "ORDER BY must name columns of the result here"
  end
  item.desc = sort.sortby_dir == "SORTBY_DESC"
  item.nulls_first = item.desc
  if sort.sortby_nulls ~= "SORTBY_NULLS_DEFAULT" then
    item.nulls_first = sort.sortby_nulls == "SORTBY_NULLS_FIRST"
  end
  local collate = sort.node.CollateClause
  item.collate = collate and expression.last_name(collate.collname)
  return item
end

local function describe(plan)
  local steps = {}
  if plan.distinct or plan.distinct_on then
    steps[#steps + 1] = "keep each different row once, as one of the shards sees it"
  end
  if plan.order[1] then
    steps[#steps + 1] = ("merge the shards' rows by %d column%s of ORDER BY"):format(#plan.order,
      #plan.order > 1 and "s" or "")
  elseif not steps[1] then
    steps[#steps + 1] = "put the shards' rows one after the other"
  end
  if plan.bounds.limit or plan.bounds.offset then
    steps[#steps + 1] = "take the rows of LIMIT and OFFSET"
  end
  if plan.hidden[1] then
    steps[#steps + 1] = ("remove %d hidden column%s"):format(#plan.hidden, #plan.hidden > 1 and "s" or "")
  end
  return steps
end

--- Make a plan.
-- @tparam table found from `clauses.find`
-- @tparam table stmt a `SelectStmt`
-- @tparam table how `parsed`, `distinct` (all rows, or those of a UNION), `distinct_on`, `is_union`
-- @treturn[1] table plan: `kind = "rows"`, `sql`, `order` (items with `position` or `name`), `distinct`, `distinct_on`,
--   `hidden` (names), `bounds`, `trivial`, `steps`
-- @treturn[2] nil
-- @treturn[2] string why not
function rows.plan(found, stmt, how)
  if how.distinct then
    local unsteady = expression.unsteady({ stmt.targetList or {}, stmt.larg or {}, stmt.rarg or {} })
    if unsteady then
      return nil, ("DISTINCT or UNION of %s: its value may differ between shards"):format(unsteady)
    end
  end
  local maker = setmetatable({
    found = found, stmt = stmt, parsed = how.parsed, is_union = how.is_union, hidden = {}, hidden_as = {}, texts = {},
    may_hide = not how.is_union and (not how.distinct or how.distinct_on) and found.targets[1] ~= nil,
  }, Maker)
  local plan = { kind = "rows", order = {}, distinct = how.distinct and not how.distinct_on }
  if #found.order ~= #(stmt.sortClause or {}) then
    return nil, "its ORDER BY cannot be read"
  end
  for i, sort in ipairs(stmt.sortClause or {}) do
    local item, reason = order_item(maker, sort.SortBy, found.order[i])
    if not item then
      return nil, reason
    end
    plan.order[i] = item
  end
  if how.distinct_on then
    plan.distinct_on = {}
    for i, node in ipairs(stmt.distinctClause) do
      plan.distinct_on[i] = maker:resolve(node, found.distinct.on[i])
    end
  end
  local wanted, reason = bounds.read(stmt, how.parsed)
  if not wanted then
    return nil, reason
  end
  local edits = bounds.edits(found, wanted)
  if maker.texts[1] then
    local last = found.tokens[found.targets[#found.targets].last].last
    edits[#edits + 1] = { first = last + 1, last = last, text = table.concat(maker.texts) }
  end
  plan.sql = clauses.text(found, found, edits):match("^(.*%S)")
  plan.bounds, plan.hidden = wanted, maker.hidden
  plan.trivial = not (plan.order[1] or plan.distinct or plan.distinct_on or wanted.limit or wanted.offset)
  plan.steps = describe(plan)
  return plan
end

return rows
