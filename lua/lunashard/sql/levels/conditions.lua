--- What a condition says of columns, where it is true.
-- @module lunashard.sql.levels.conditions

local names = require("lunashard.sql.levels.names")
local source = require("lunashard.sql.levels.source")

local conditions = {}

local MIRRORED = { ["<"] = ">", ["<="] = ">=", [">"] = "<", [">="] = "<=", ["="] = "=" }

-- The operator, when it is one of PostgreSQL's own as far as can be told.
local function operator(list)
  local schema = list[2] and list[#list - 1].String.sval
  if schema and schema ~= "pg_catalog" then
    return nil
  end
  return list[#list].String.sval
end

local function column(env, node)
  return node.ColumnRef and names.resolve(env.scope, node.ColumnRef.fields)
end

local function eq_domain(read)
  return { kind = "eq", source = read, id = read.id }
end

local function list_domain(sources, at)
  local ids = {}
  for i, one in ipairs(sources) do
    ids[i] = one.id
  end
  return { kind = "list", sources = sources, id = "(" .. table.concat(ids, ",") .. ")", at = at }
end

-- Elements that are NULL equal nothing. nil when one cannot be read, or none is left.
local function read_list(nodes, sql, cast)
  local sources, positions = {}, {}
  for i, node in ipairs(nodes) do
    local read = source.read(node, sql)
    if not read then
      return nil
    elseif not read.null then
      if cast then
        read.casts = read.casts or {}
        read.casts[#read.casts + 1] = cast
      end
      sources[#sources + 1] = read
      positions[#positions + 1] = i
    end
  end
  if #sources > 0 then
    return sources, positions
  end
end

-- '{1,2}', as far as it needs no unquoting.
local function literal_elements(text)
  local inner = text:match("^{([%w%-+_,]+)}$")
  if not inner or inner:find("^,") or inner:find(",,") or inner:find(",$") then
    return nil
  end
  local nodes = {}
  for element in inner:gmatch("[^,]+") do
    nodes[#nodes + 1] = { A_Const = element:lower() == "null" and { isnull = true } or { sval = { sval = element } } }
  end
  return nodes
end

--- The values of an array as a domain.
-- @tparam table node the right side of `= ANY`
-- @string sql
-- @treturn ?table domain
function conditions.array(node, sql)
  local cast
  if node.TypeCast then
    cast = source.family(node.TypeCast.typeName, true)
    if not cast then
      return nil
    end
    node = node.TypeCast.arg
  end
  local sources, positions, at
  if node.ParamRef and node.ParamRef.number then
    return { kind = "array", param = node.ParamRef.number, casts = cast and { cast }, id = "a" .. node.ParamRef.number }
  elseif node.A_ArrayExpr then
    sources, positions = read_list(node.A_ArrayExpr.elements or {}, sql, cast)
    at = sources and { location = node.A_ArrayExpr.location, open = "[", n = #node.A_ArrayExpr.elements,
      positions = positions }
  elseif node.A_Const and node.A_Const.sval then
    sources = read_list(literal_elements(node.A_Const.sval.sval or "") or {}, sql, cast)
  end
  return sources and list_domain(sources, at)
end

local function fact(sink, term, domain)
  if domain.at then
    domain.at.of_key = domain.at.of_key or term.key ~= nil
  end
  sink.facts[#sink.facts + 1] = { term = term, domain = domain }
end

local function equate(env, sink, left, right)
  local a, b = column(env, left), column(env, right)
  if a and b then
    if a ~= b then
      sink.equal[#sink.equal + 1] = { a, b }
    end
    return
  end
  local read = a and source.read(right, env.sql) or b and source.read(left, env.sql)
  if read and not read.null then
    fact(sink, a or b, eq_domain(read))
  end
end

local function compare(env, sink, op, left, right)
  if left.RowExpr and right.RowExpr then
    if op == "=" and #left.RowExpr.args == #right.RowExpr.args then
      for i, one in ipairs(left.RowExpr.args) do
        equate(env, sink, one, right.RowExpr.args[i])
      end
    end
    return
  elseif op == "=" then
    equate(env, sink, left, right)
    return
  end
  local term = column(env, left)
  if not term then
    term, right, op = column(env, right), left, MIRRORED[op]
  end
  local read = term and source.read(right, env.sql)
  if not read or read.null then
    return
  end
  local exclusive = op == "<" or op == ">"
  local domain = { kind = "range", id = op .. read.id }
  if op == "<" or op == "<=" then
    domain.high, domain.high_exclusive = read, exclusive
  else
    domain.low, domain.low_exclusive = read, exclusive
  end
  fact(sink, term, domain)
end

local function rows_in(env, sink, columns, items, at)
  local terms, rows = {}, {}
  for i, node in ipairs(columns) do
    terms[i] = column(env, node) or false
  end
  for _, item in ipairs(items) do
    local args = item.RowExpr and item.RowExpr.args
    if not args or #args ~= #columns then
      return
    end
    rows[#rows + 1] = args
  end
  local lists = {}
  for i in ipairs(columns) do
    local nodes = {}
    for j, row in ipairs(rows) do
      nodes[j] = row[i]
    end
    lists[i] = terms[i] and read_list(nodes, env.sql) or false
    if lists[i] and #lists[i] < #rows then
      lists[i] = false -- a row with NULL in it: not worth the trouble
    end
    if lists[i] then
      fact(sink, terms[i], list_domain(lists[i], at))
    end
  end
  sink.tuples[#sink.tuples + 1] = { terms = terms, lists = lists, n = #rows, at = at }
end

local EXPRESSIONS = {}

function EXPRESSIONS.AEXPR_OP(env, sink, expr)
  local op = operator(expr.name)
  if op and MIRRORED[op] and expr.lexpr and expr.rexpr then
    compare(env, sink, op, expr.lexpr, expr.rexpr)
  end
end

function EXPRESSIONS.AEXPR_IN(env, sink, expr)
  if operator(expr.name) ~= "=" then
    return
  end
  local items = expr.rexpr.List and expr.rexpr.List.items or {}
  local at = { location = expr.location, open = "(", n = #items }
  if expr.lexpr.RowExpr then
    at.positions = {}
    for i in ipairs(items) do
      at.positions[i] = i
    end
    rows_in(env, sink, expr.lexpr.RowExpr.args, items, at)
    return
  end
  local term = column(env, expr.lexpr)
  local sources, positions = read_list(items, env.sql)
  if term and sources then
    at.positions = positions
    fact(sink, term, #sources == 1 and #items == 1 and eq_domain(sources[1]) or list_domain(sources, at))
  end
end

function EXPRESSIONS.AEXPR_OP_ANY(env, sink, expr)
  local term = operator(expr.name) == "=" and column(env, expr.lexpr)
  local domain = term and conditions.array(expr.rexpr, env.sql)
  if domain then
    fact(sink, term, domain)
  end
end

-- Where the other side is NULL it says something else, and a parameter may be.
function EXPRESSIONS.AEXPR_NOT_DISTINCT(env, sink, expr)
  local term, other = column(env, expr.lexpr), expr.rexpr
  if not term then
    term, other = column(env, expr.rexpr), expr.lexpr
  end
  local read = term and source.read(other, env.sql)
  if read and read.value ~= nil then
    fact(sink, term, eq_domain(read))
  end
end

function EXPRESSIONS.AEXPR_BETWEEN(env, sink, expr)
  local term = column(env, expr.lexpr)
  local bounds = expr.rexpr.List.items
  local low, high = source.read(bounds[1], env.sql), source.read(bounds[2], env.sql)
  if not term or low and low.null or high and high.null or not (low or high) then
    return
  end
  fact(sink, term, {
    kind = "range", low = low, high = high, id = ">=" .. (low and low.id or "") .. "<=" .. (high and high.id or ""),
  })
end

local say

-- What holds in each arm: a column is in the union of what it is in there.
local function either(env, sink, arms)
  local by_term, order = {}, {}
  for i, arm in ipairs(arms) do
    local own = conditions.sink()
    say(env, own, arm)
    local seen = {}
    for _, one in ipairs(own.facts) do
      local domain = one.domain
      if not seen[one.term] and (domain.kind == "eq" or domain.kind == "list") then
        seen[one.term] = true
        local so_far = by_term[one.term]
        if i == 1 then
          so_far = { arms = 0, sources = {}, ids = {} }
          by_term[one.term], order[#order + 1] = so_far, one.term
        end
        if so_far and so_far.arms == i - 1 then
          so_far.arms = i
          for _, read in ipairs(domain.sources or { domain.source }) do
            if not so_far.ids[read.id] then
              so_far.ids[read.id] = true
              so_far.sources[#so_far.sources + 1] = read
            end
          end
        end
      end
    end
  end
  for _, term in ipairs(order) do
    local union = by_term[term]
    if union.arms == #arms then
      fact(sink, term, #union.sources == 1 and eq_domain(union.sources[1]) or list_domain(union.sources))
    end
  end
end

function say(env, sink, node)
  if node.BoolExpr then
    local bool = node.BoolExpr
    if bool.boolop == "AND_EXPR" then
      for _, arg in ipairs(bool.args) do
        say(env, sink, arg)
      end
    elseif bool.boolop == "OR_EXPR" then
      either(env, sink, bool.args)
    end
  elseif node.A_Expr then
    local read = EXPRESSIONS[node.A_Expr.kind]
    if read then
      read(env, sink, node.A_Expr)
    end
  end
end

--- What nothing has been said of yet.
-- @treturn table `equal`, pairs of terms; `facts`, `{ term =, domain = }`; `tuples`, of `(a, b) IN (...)`
function conditions.sink()
  return { equal = {}, facts = {}, tuples = {} }
end

--- Take in what a condition says where it is true.
-- Domains are `eq` (`source`), `list` (`sources`, and `at`, where its text is), `array` (`param`) and `range` (`low`,
-- `high`, `low_exclusive`, `high_exclusive`).
-- @tparam table env `scope`, `sql`
-- @tparam table sink
-- @tparam table node
function conditions.say(env, sink, node)
  say(env, sink, node)
end

return conditions
