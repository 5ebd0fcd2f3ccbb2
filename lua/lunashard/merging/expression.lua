--- Expressions of the parse tree: what is in them, and which are the same.
-- @module lunashard.merging.expression

local scan = require("lunashard.sql.scan")

local expression = {}

local function set(words)
  local members = {}
  for word in words:gmatch("%S+") do
    members[word] = true
  end
  return members
end

local AGGREGATES = set([[
  any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp every
  json_agg json_object_agg jsonb_agg jsonb_object_agg max min mode percentile_cont percentile_disc range_agg
  range_intersect_agg regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy
  stddev stddev_pop stddev_samp string_agg sum var_pop var_samp variance xmlagg
]])

-- Functions that everybody uses and that are no aggregates: nobody needs to be asked about them.
local PLAIN = set([[
  abs age ascii btrim ceil ceiling char_length chr clock_timestamp concat concat_ws current_setting date_bin date_part
  date_trunc div encode exp extract floor format generate_series greatest initcap json_build_object jsonb_build_object
  left length ln log lower lpad ltrim md5 mod now nullif octet_length pg_sleep position power random regexp_replace
  repeat replace reverse right round row_number rpad rtrim sign split_part sqrt strpos substr substring timezone
  to_char to_date to_json to_jsonb to_number to_timestamp translate trim trunc unnest upper width_bucket
]])

--- Visit every node of a tree, outer ones first.
-- @param tree
-- @tparam func visit given the kind, such as `FuncCall`, and the node; true when it wants nothing of what is inside
function expression.walk(tree, visit)
  for key, child in pairs(tree) do
    if type(child) == "table" then
      local is_node = type(key) == "string" and key:find("^%u")
      if not (is_node and visit(key, child)) then
        expression.walk(child, visit)
      end
    end
  end
end

--- The last part of a dotted name.
-- @tparam {table,...} parts
-- @treturn string
function expression.last_name(parts)
  local last = parts[#parts]
  return last.String and last.String.sval or "*"
end

--- Does a call aggregate rows? As far as its text tells: user's functions are for the catalog to know.
-- @tparam table call a `FuncCall`
-- @tparam ?table user_aggregates name -> true
-- @treturn boolean
function expression.is_aggregate(call, user_aggregates)
  if call.over then
    return false
  end
  local name = expression.last_name(call.funcname)
  return AGGREGATES[name] or call.agg_star or call.agg_distinct or call.agg_filter or call.agg_order
    or call.agg_within_group or (user_aggregates and user_aggregates[name]) or false
end

--- May a function of this name be an aggregate that a user has made?
-- @string name
-- @treturn boolean
function expression.is_unknown_function(name)
  return not AGGREGATES[name] and not PLAIN[name]
end

--- What an expression holds.
-- @param tree
-- @tparam ?table user_aggregates
-- @treturn table lists `aggregates` (the outermost), `windows` (calls with OVER), `columns` (outside of aggregates),
--   `subqueries` (wherever they are) and `grouping` (calls of GROUPING)
function expression.contents(tree, user_aggregates)
  local found = { aggregates = {}, windows = {}, columns = {}, subqueries = {}, grouping = {} }
  local function note_subqueries(kind, node)
    if kind == "SubLink" then
      found.subqueries[#found.subqueries + 1] = node
      return true
    end
  end
  expression.walk({ tree }, function(kind, node)
    if kind == "FuncCall" then
      if expression.is_aggregate(node, user_aggregates) then
        found.aggregates[#found.aggregates + 1] = node
        expression.walk(node, note_subqueries)
        return true
      elseif node.over then
        found.windows[#found.windows + 1] = node
      end
    elseif kind == "ColumnRef" then
      found.columns[#found.columns + 1] = node
      return true
    elseif kind == "GroupingFunc" then
      found.grouping[#found.grouping + 1] = node
    else
      return note_subqueries(kind, node)
    end
  end)
  return found
end

-- Of another value on each shard, or at each call: nothing can be found equal by these.
local UNSTEADY = set([[
  now random clock_timestamp statement_timestamp transaction_timestamp timeofday gen_random_uuid
]])
local SYSTEM_COLUMNS = set("tableoid ctid xmin xmax cmin cmax")

--- What in an expression may differ between shards for equal rows.
-- @param tree
-- @treturn ?string its name
function expression.unsteady(tree)
  local found
  expression.walk({ tree }, function(kind, node)
    local name = kind == "FuncCall" and expression.last_name(node.funcname)
      or kind == "ColumnRef" and expression.last_name(node.fields)
    if name and (kind == "FuncCall" and UNSTEADY or SYSTEM_COLUMNS)[name] then
      found = name
    elseif kind == "SQLValueFunction" then
      found = "the current time or user"
    end
  end)
  return found
end

-- The digits of an integer constant, which the tree does not have for those that are not above 0.
local function integer_text(constant, sql, tokens)
  local value = constant.ival.ival
  if value then
    return tostring(value)
  end
  local i = scan.at(tokens, constant.location + 1)
  local text = i and tokens[i].text or "?"
  if text == "-" and tokens[i + 1] then
    text = "-" .. tokens[i + 1].text
  end
  return sql and text
end

--- The value of an integer constant.
-- @tparam table constant an `A_Const` with `ival`
-- @string sql
-- @tparam {table,...} tokens
-- @treturn ?number
function expression.integer(constant, sql, tokens)
  return tonumber(integer_text(constant, sql, tokens))
end

local function write(tree, out, parsed)
  if type(tree) ~= "table" then
    out[#out + 1] = type(tree) .. ":" .. tostring(tree)
    return
  elseif tree.ival and tree.location then
    out[#out + 1] = "int:" .. integer_text(tree, parsed.sql, parsed.tokens)
    return
  end
  local keys = {}
  for key in pairs(tree) do
    if key ~= "location" then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, function(a, b)
    return tostring(a) < tostring(b)
  end)
  out[#out + 1] = "{"
  for _, key in ipairs(keys) do
    local child = tree[key]
    out[#out + 1] = tostring(key) .. "="
    if key == "ColumnRef" and parsed.single and #child.fields > 1 then
      child = { fields = { child.fields[#child.fields] } } -- one table: its name in front says nothing
    elseif key == "ColumnRef" and #child.fields == 1 and child.fields[1].String then
      local owner = parsed.owner_of and parsed.owner_of(child.fields[1].String.sval)
      child = owner and { fields = { { String = { sval = owner } }, child.fields[1] } } or child
    end
    write(child, out, parsed)
  end
  out[#out + 1] = "}"
end

--- A text that two expressions share exactly when they are the same, wherever they stand.
-- @param tree
-- @tparam table parsed `sql`, `tokens`; `single` when there is but one table in FROM; `owner_of(column)`, the only
--   table that has a column of this name
-- @treturn string
function expression.canonical(tree, parsed)
  local out = {}
  write(tree, out, parsed)
  return table.concat(out, " ")
end

local VALUE_FUNCTIONS = {
  SVFOP_CURRENT_DATE = "current_date", SVFOP_CURRENT_TIME = "current_time", SVFOP_CURRENT_TIME_N = "current_time",
  SVFOP_CURRENT_TIMESTAMP = "current_timestamp", SVFOP_CURRENT_TIMESTAMP_N = "current_timestamp",
  SVFOP_LOCALTIME = "localtime", SVFOP_LOCALTIME_N = "localtime", SVFOP_LOCALTIMESTAMP = "localtimestamp",
  SVFOP_LOCALTIMESTAMP_N = "localtimestamp", SVFOP_CURRENT_ROLE = "current_role", SVFOP_CURRENT_USER = "current_user",
  SVFOP_USER = "user", SVFOP_SESSION_USER = "session_user", SVFOP_CURRENT_CATALOG = "current_catalog",
  SVFOP_CURRENT_SCHEMA = "current_schema",
}

local figure

-- How PostgreSQL calls a column that has no alias, by the kind of its expression; true for a name that may give way to
-- that of a type.
local NAMES = {
  ColumnRef = function(node)
    return expression.last_name(node.fields)
  end,
  FuncCall = function(node)
    return expression.last_name(node.funcname)
  end,
  A_Indirection = function(node)
    for i = #node.indirection, 1, -1 do
      if node.indirection[i].String then
        return node.indirection[i].String.sval
      end
    end
    return figure(node.arg)
  end,
  TypeCast = function(node)
    local name, weak = figure(node.arg)
    if name and not weak then
      return name
    end
    return expression.last_name(node.typeName.names), true
  end,
  CollateClause = function(node)
    return figure(node.arg)
  end,
  CaseExpr = function(node)
    local name, weak = nil, nil
    if node.defresult then
      name, weak = figure(node.defresult)
    end
    if name and not weak then
      return name
    end
    return "case", true
  end,
  A_Expr = function(node)
    return node.kind == "AEXPR_NULLIF" and "nullif" or nil
  end,
  SQLValueFunction = function(node)
    return VALUE_FUNCTIONS[node.op]
  end,
  MinMaxExpr = function(node)
    return node.op == "IS_LEAST" and "least" or "greatest"
  end,
  SubLink = function(node)
    if node.subLinkType == "EXISTS_SUBLINK" then
      return "exists"
    elseif node.subLinkType == "ARRAY_SUBLINK" then
      return "array"
    elseif node.subLinkType == "EXPR_SUBLINK" then
      local target = node.subselect.SelectStmt and node.subselect.SelectStmt.targetList
      target = target and target[1].ResTarget
      return target and (target.name or figure(target.val))
    end
  end,
}

local CONSTANT_NAMES = { A_ArrayExpr = "array", RowExpr = "row", CoalesceExpr = "coalesce", GroupingFunc = "grouping" }

function figure(tree)
  local kind, node = next(tree)
  if CONSTANT_NAMES[kind] then
    return CONSTANT_NAMES[kind]
  elseif NAMES[kind] then
    return NAMES[kind](node)
  end
end

--- The name of a column of the result, as the server gives it.
-- @tparam table target a `ResTarget`
-- @treturn string `*` for all columns
function expression.output_name(target)
  return target.name or (figure(target.val)) or "?column?"
end

return expression
