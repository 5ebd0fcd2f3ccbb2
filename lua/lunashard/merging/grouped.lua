--- Plans for aggregates and groups that span shards.
-- Each shard gives the groups of its own rows with parts of the aggregates: its keys, sums and counts. What the
-- statement says of whole groups (its list, HAVING, windows, ORDER BY, LIMIT) is then evaluated by PostgreSQL over the
-- parts of all shards, on one of them.
-- @module lunashard.merging.grouped

local bounds = require("lunashard.merging.bounds")
local clauses = require("lunashard.merging.clauses")
local expression = require("lunashard.merging.expression")
local quote_ident = require("lunashard.router.statement").quote_ident

local grouped = {}

-- What puts the parts of all shards together; the parts are what the aggregate itself gives.
local SAME = {
  min = "min", max = "max", bool_and = "bool_and", bool_or = "bool_or", every = "every", bit_and = "bit_and",
  bit_or = "bit_or", bit_xor = "bit_xor", range_intersect_agg = "range_intersect_agg",
}

-- With DISTINCT the different values of all shards are enough.
local OF_VALUES = {
  count = true, sum = true, avg = true, array_agg = true, json_agg = true, jsonb_agg = true, stddev = true,
  stddev_pop = true, stddev_samp = true, variance = true, var_pop = true, var_samp = true, bit_xor = true,
}

local ADVICE = {
  percentile_cont = "use aggregation_func = lunashard.aggregate.percentile { column =, p = } over the values",
  percentile_disc = "use aggregation_func = lunashard.aggregate.percentile { column =, p =, discrete = true }",
  array_agg = "select the rows, in order, and collect them", json_agg = "select the rows and collect them",
  string_agg = "select the rows, in order, and put their texts together",
}
ADVICE.jsonb_agg, ADVICE.json_object_agg, ADVICE.jsonb_object_agg = ADVICE.json_agg, ADVICE.json_agg, ADVICE.json_agg
for name in ("stddev stddev_pop stddev_samp variance var_pop var_samp"):gmatch("%S+") do
  ADVICE[name] = "select count(x), sum(x) and sum(x * x), and compute it from these"
end

local Maker = {}
Maker.__index = Maker

-- A column that the shards are asked for; the same text is asked for once.
function Maker:column(text, is_key)
  local id = (is_key and "key " or "part ") .. text
  local i = self.by_text[id]
  if not i then
    i = #self.columns + 1
    self.columns[i] = { text = text, is_key = is_key }
    self.by_text[id] = i
  end
  return i
end

local function part(i)
  return ("p.c%d"):format(i)
end

function Maker:fail(message, ...)
  self.problem = self.problem or message:format(...)
end

function Maker:refuse(name)
  self:fail("%s over groups that span shards cannot be put together from parts%s", name,
    ADVICE[name] and ": " .. ADVICE[name] or "")
end

-- The values themselves come from the shards, each once for each group.
function Maker:of_values(call, range, name)
  local argument = call.args and #call.args == 1 and range.argument
  if not argument or not OF_VALUES[name] or call.agg_order or next(call.args[1]) == "RowExpr" then
    return self:refuse(name .. "(DISTINCT ...)")
  end
  local value = self:column("(" .. clauses.text(self.found, argument) .. ")", true)
  local filter = ""
  if range.filter then -- FILTER ( WHERE condition )
    local inside = { first = range.filter.first + 3, last = range.filter.last - 1 }
    filter = (" FILTER (WHERE %s)"):format(part(self:column("(" .. clauses.text(self.found, inside) .. ")", true)))
  end
  return ("%s(DISTINCT %s)%s"):format(name, part(value), filter)
end

-- sum and count of the same rows. Times one: a sum of float4 is rounded to float4, that of avg is not.
function Maker:of_mean(range)
  local argument = clauses.text(self.found, range.argument)
  local filter = range.filter and " " .. clauses.text(self.found, range.filter) or ""
  local sum = self:column(("sum((%s) * 1)%s"):format(argument, filter))
  local count = self:column(("count(%s)%s"):format(argument, filter))
  return ("(sum(%s) / nullif(sum(%s), 0))"):format(part(sum), part(count)), { kind = "avg", part = sum, count = count }
end

-- What stands for an aggregate when the parts are put together, and how that may be done without a server.
function Maker:aggregate(call, range)
  local name = expression.last_name(call.funcname)
  local schema = #call.funcname > 1 and call.funcname[#call.funcname - 1].String.sval
  if schema and schema ~= "pg_catalog" or call.agg_within_group or call.func_variadic then
    return self:refuse(name)
  elseif call.agg_distinct and not (SAME[name] and name ~= "bit_xor") then
    return self:of_values(call, range, name)
  elseif SAME[name] then
    local i = self:column(clauses.text(self.found, range))
    return ("%s(%s)"):format(SAME[name], part(i)), { kind = name, part = i }
  elseif name == "count" then
    local i = self:column(clauses.text(self.found, range))
    return ("coalesce(sum(%s), 0)::int8"):format(part(i)), { kind = "count", part = i }
  elseif name == "sum" then
    local i = self:column(clauses.text(self.found, range))
    return ("sum(%s)::\1%d\2"):format(part(i), i), { kind = "sum", part = i } -- one of int8 sums would be numeric
  elseif name == "avg" and range.argument then
    return self:of_mean(range)
  end
  return self:refuse(name)
end

function Maker:key(node)
  return self.keys[expression.canonical(node, self.parsed)]
end

-- The edits of an expression over whole groups: keys and aggregates give way to columns of the parts.
function Maker:edits_of(node, range)
  local found, edits = self.found, {}
  local function replace(where, text)
    edits[#edits + 1] = text and clauses.edit(found, where, text) or nil
  end
  local whole = range and self:key(node)
  if whole then
    replace(range, part(whole))
    return edits
  end
  expression.walk({ node }, function(kind, inner)
    if kind == "ColumnRef" then
      local key = self:key({ ColumnRef = inner })
      if not key then
        self:fail("column %s is neither aggregated nor in GROUP BY as it is written here",
          expression.last_name(inner.fields))
      else
        replace(clauses.name(found, inner.location, #inner.fields), part(key))
      end
      return true
    elseif kind == "FuncCall" and inner.funcformat ~= "COERCE_SQL_SYNTAX" then -- no EXTRACT(x FROM y) and the like
      local where = clauses.call(found, inner)
      local key = not inner.over and self:key({ FuncCall = inner })
      if not where then
        self:fail("the call of %s cannot be read", expression.last_name(inner.funcname))
      elseif key then
        replace(where, part(key))
      elseif expression.is_aggregate(inner, self.user_aggregates) then
        local text, simple = self:aggregate(inner, where)
        self.simple[inner] = simple
        replace(where, text)
      else
        return false
      end
      return true
    elseif kind == "SubLink" then
      self:fail("a subquery beside aggregates is not evaluated over the groups of all shards")
      return true
    elseif kind == "GroupingFunc" then
      self:fail("GROUPING is not known over groups that span shards")
      return true
    end
  end)
  return edits
end

function Maker:rewrite(node, range)
  return clauses.text(self.found, range, self:edits_of(node, range))
end

function Maker:read_keys(level, ctx)
  local stmt, found = self.stmt, self.found
  if found.group_quantifier or #found.group ~= #(stmt.groupClause or {}) then
    return self:fail("its GROUP BY cannot be read")
  end
  for i, node in ipairs(stmt.groupClause or {}) do
    if node.GroupingSet then
      return self:fail("ROLLUP, CUBE and GROUPING SETS over groups that span shards: run one GROUP BY at a time")
    end
    local value, target = level:group_item(stmt, node, ctx)
    if not value then
      return self:fail("%s", target)
    end
    local unsteady = expression.unsteady(value)
    if unsteady then
      return self:fail("GROUP BY %s: its value may differ between shards", unsteady)
    end
    local range = found.group[i]
    if target then
      range = clauses.without_alias(found, found.targets[target], stmt.targetList[target].ResTarget)
    end
    local key = self:column("(" .. clauses.text(found, range) .. ")", true)
    self.keys[expression.canonical(value, self.parsed)] = key
    self.group[i] = part(key)
  end
end

function Maker:list()
  local parts = {}
  for i, target in ipairs(self.stmt.targetList or {}) do
    local range = clauses.without_alias(self.found, self.found.targets[i], target.ResTarget)
    local name = expression.output_name(target.ResTarget)
    parts[i] = ("%s AS %s"):format(self:rewrite(target.ResTarget.val, range), quote_ident(name))
  end
  return table.concat(parts, ", ")
end

-- ORDER BY and DISTINCT ON: a name alone or a number is a column of the result, and so is what stands there too.
function Maker:order_edits(node, range)
  local constant, fields = node.A_Const, node.ColumnRef and node.ColumnRef.fields
  if constant and constant.ival then
    return {}
  end
  for i, target in ipairs(self.stmt.targetList or {}) do
    local is_name = fields and #fields == 1 and fields[1].String
      and fields[1].String.sval == expression.output_name(target.ResTarget)
    if is_name then
      return {}
    elseif expression.canonical(node, self.parsed) == expression.canonical(target.ResTarget.val, self.parsed) then
      return { clauses.edit(self.found, range, tostring(i)) }
    end
  end
  return self:edits_of(node, range)
end

local function append(to, list)
  for _, one in ipairs(list) do
    to[#to + 1] = one
  end
end

function Maker:order()
  local clause, edits = self.found.by_name.ORDER, {}
  if not clause then
    return ""
  end
  for i, sort in ipairs(self.stmt.sortClause) do
    append(edits, self:order_edits(sort.SortBy.node, self.found.order[i]))
  end
  return " " .. clauses.text(self.found, clause, edits)
end

function Maker:distinct()
  local distinct, edits = self.found.distinct, {}
  if not distinct then
    return ""
  end
  for i, range in ipairs(distinct.on or {}) do
    append(edits, self:order_edits(self.stmt.distinctClause[i], range))
  end
  return clauses.text(self.found, distinct, edits) .. " "
end

-- HAVING and WINDOW, word for word but for what gives way to the parts.
function Maker:clause(name, tree)
  local clause = self.found.by_name[name]
  return clause and " " .. clauses.text(self.found, clause, self:edits_of(tree)) or ""
end

-- What the shards are asked for.
function Maker:shard_sql()
  local found, by_name, list, keys = self.found, self.found.by_name, {}, {}
  for i, column in ipairs(self.columns) do
    list[i] = ("%s AS c%d"):format(column.text, i)
    keys[#keys + 1] = column.is_key and tostring(i) or nil
  end
  local parts = { "SELECT", table.concat(list, ", ") }
  if found.with then
    table.insert(parts, 1, clauses.text(found, found.with))
  end
  for _, name in ipairs({ "FROM", "WHERE" }) do
    parts[#parts + 1] = by_name[name] and clauses.text(found, by_name[name]) or nil
  end
  if keys[1] then
    parts[#parts + 1] = "GROUP BY " .. table.concat(keys, ", ")
  end
  return table.concat(parts, " ")
end

-- The aggregates of a list that has nothing else, in a statement that says nothing else of them.
function Maker:simple_list()
  local stmt, list = self.stmt, {}
  for i, target in ipairs(stmt.targetList or {}) do
    local call = target.ResTarget.val.FuncCall
    local simple = call and self.simple[call]
    if not simple then
      return nil
    end
    list[i] = { name = expression.output_name(target.ResTarget), kind = simple.kind, part = simple.part,
      count = simple.count }
  end
  local more = stmt.groupClause or stmt.havingClause or stmt.sortClause or stmt.distinctClause or stmt.limitCount
    or stmt.limitOffset
  return not more and list[1] and list or nil
end

--- Make a plan.
-- @tparam table found from `clauses.find`
-- @tparam table stmt a `SelectStmt`
-- @tparam table level its tables
-- @tparam table ctx `user_aggregates`, `integer_of`
-- @tparam table parsed `sql`, `tokens`, `single`
-- @treturn[1] table plan: `kind = "grouped"`, `sql`, `columns`, `final`: the statement over the parts `p`, in which
--   `\1n\2` stands for the type of part n; `bounds`, `steps`; `simple`: a list of `{ name =, kind =, part =, count = }`
--   when it is aggregates alone, of which some need no server
-- @treturn[2] nil
-- @treturn[2] string why not
function grouped.plan(found, stmt, level, ctx, parsed)
  local maker = setmetatable({
    found = found, stmt = stmt, parsed = parsed, user_aggregates = ctx.user_aggregates, columns = {}, by_text = {},
    keys = {}, group = {}, simple = {},
  }, Maker)
  if stmt.lockingClause then
    return nil, "rows of a group cannot be locked"
  elseif #found.targets ~= #(stmt.targetList or {}) or #found.order ~= #(stmt.sortClause or {}) then
    return nil, "its list of columns cannot be read"
  end
  maker:read_keys(level, ctx)
  if maker.problem then
    return nil, maker.problem
  end
  local final = { "SELECT ", maker:distinct(), maker:list(), " FROM p" }
  if maker.group[1] then
    final[#final + 1] = " GROUP BY " .. table.concat(maker.group, ", ")
  end
  final[#final + 1] = maker:clause("HAVING", stmt.havingClause)
  final[#final + 1] = maker:clause("WINDOW", stmt.windowClause)
  final[#final + 1] = maker:order()
  local wanted, reason = bounds.read(stmt, parsed)
  if maker.problem or not wanted then
    return nil, maker.problem or reason
  end
  if not maker.columns[1] then
    maker:column("count(*)") -- without any column it would not be an aggregate
  end
  local plan = { kind = "grouped", sql = maker:shard_sql(), columns = maker.columns, bounds = wanted }
  plan.final, plan.simple = table.concat(final), maker:simple_list()
  plan.steps = {
    ("ask each shard for %s"):format(maker.group[1] and "its part of every group" or "its part of the aggregates"),
    "put the parts together on one of the shards: " .. plan.final:gsub("\1%d+\2", "type"),
  }
  if wanted.limit or wanted.offset then
    plan.steps[3] = "take the rows of LIMIT and OFFSET there"
  end
  return plan
end

return grouped
