--- Which rows a query needs, and whether a shard has all that belong together.
-- A query over sharded tables is local when the rows that FROM and WHERE give over all data are those of the shards put
-- together: then each shard can be asked on its own. Joins are local by equal shard keys, or with tables that are
-- the same everywhere.
-- @module lunashard.merging.relations

local expression = require("lunashard.merging.expression")
local level_module = require("lunashard.merging.level")
local statement = require("lunashard.sql.statement")

local relations = {}

local derive, read_level

-- Functions that may stand in FROM beside sharded tables: they read nothing but their arguments.
local TABLE_FUNCTIONS = {}
for name in ([[
  generate_series generate_subscripts unnest json_array_elements json_array_elements_text json_each json_each_text
  json_object_keys json_populate_record json_populate_recordset json_to_record json_to_recordset jsonb_array_elements
  jsonb_array_elements_text jsonb_each jsonb_each_text jsonb_object_keys jsonb_path_query jsonb_populate_record
  jsonb_populate_recordset jsonb_to_record jsonb_to_recordset regexp_matches regexp_split_to_table string_to_table
]]):gmatch("%S+") do
  TABLE_FUNCTIONS[name] = true
end

local function display(range)
  return range.schemaname and range.schemaname .. "." .. range.relname or range.relname
end

-- What the catalog says of a relation that the cluster file does not declare; a table until it is known.
local function look_up(ctx, range)
  local key = display(range)
  local fact = ctx.facts.relations[key]
  if fact == nil then
    ctx.missing.relations[key] = { schema = range.schemaname, name = range.relname }
  end
  return fact or {}
end

-- Views are what their queries are.
local function view_entry(ctx, range, fact)
  local found = statement.parse(fact.definition)
  if not found or found.statements ~= 1 or found.kind ~= "select" then
    return nil, ("the query of view %s cannot be read"):format(display(range))
  end
  ctx.note_functions(found)
  local entry, reason = derive(ctx, {}, found.ast[1].stmt.SelectStmt)
  if not entry then
    return nil, ("view %s: %s"):format(display(range), reason)
  end
  return entry
end

local function table_entry(ctx, range)
  local known = ctx.tables:find(range.schemaname, range.relname)
  if known and known.reference then
    ctx.reference = true
    return { columns = look_up(ctx, range).columns }
  elseif known and known.system then
    ctx.sharded = true
    return { sharded = true, system = true, keys = {}, n_keys = 0 }
  end
  local fact = look_up(ctx, range)
  if fact.definition and not (known and known.table) then -- one that is declared is what it is declared as
    return view_entry(ctx, range, fact)
  end
  ctx.sharded = true
  return {
    sharded = true,
    table = true,
    columns = fact.columns,
    keys = known and known.index or {},
    n_keys = known and #known.columns or 0,
    type_id = known and known.type_id,
  }
end

local FROM = {}

function FROM.RangeVar(ctx, level, range)
  local cte = not range.schemaname and level.env[range.relname]
  local entry, reason
  if cte then
    if cte.reason then
      return nil, ("WITH %s: %s"):format(range.relname, cte.reason)
    end
    entry = setmetatable({}, { __index = cte })
  else
    entry, reason = table_entry(ctx, range)
    if not entry then
      return nil, reason
    end
  end
  return { level:add(entry, range.alias and range.alias.aliasname or range.relname, range.alias) }
end

function FROM.RangeSubselect(ctx, level, range)
  local stmt = range.subquery.SelectStmt
  local alias = range.alias and range.alias.aliasname or "a subquery"
  if range.lateral then
    local ok, reason = relations.check_subquery(ctx, level, { subLinkType = "EXPR_SUBLINK", subselect = range.subquery })
    if not ok then
      return nil, ("LATERAL %s: %s"):format(alias, reason)
    end
    return { level:add({}, alias, range.alias) }
  end
  local entry, reason = derive(ctx, level.env, stmt)
  if not entry then
    return nil, ("%s in FROM: %s"):format(alias, reason)
  end
  return { level:add(entry, alias, range.alias) }
end

function FROM.RangeFunction(ctx, level, range)
  local problem
  expression.walk(range.functions, function(kind, node)
    local name = kind == "FuncCall" and expression.last_name(node.funcname)
    if name and name:find("^pg_") then
      ctx.sharded = true -- it tells of its server
    elseif name and not TABLE_FUNCTIONS[name] and expression.is_unknown_function(name) then
      problem = problem or ("what function %s in FROM reads is not known"):format(name)
    end
    return kind == "FuncCall"
  end)
  local ok, reason = relations.check_subqueries(ctx, level, range.functions)
  if problem or not ok then
    return nil, problem or reason
  end
  return { level:add({}, range.alias and range.alias.aliasname or "a function", range.alias) }
end

function FROM.RangeTableFunc(ctx, level, range)
  local ok, reason = relations.check_subqueries(ctx, level, range)
  if not ok then
    return nil, reason
  end
  return { level:add({}, range.alias and range.alias.aliasname or "a function", range.alias) }
end

function FROM.RangeTableSample(ctx, level, range)
  local kind, node = next(range.relation)
  return FROM[kind](ctx, level, node)
end

local function has_sharded(entries)
  for _, entry in ipairs(entries) do
    if entry.sharded then
      return true
    end
  end
  return false
end

local function append(to, list)
  for _, one in ipairs(list) do
    to[#to + 1] = one
  end
  return to
end

local function set_nullable(entries)
  for _, entry in ipairs(entries) do
    entry.nullable = true
  end
end

local OUTER = "an outer join with %s: rows without a match would be found missing on every shard"

-- A side that keeps its rows without a match must be sharded when the other is, and matched by the key.
local function check_outer(level, join, left, right)
  local keeps_left = join.jointype == "JOIN_LEFT" or join.jointype == "JOIN_FULL"
  local keeps_right = join.jointype == "JOIN_RIGHT" or join.jointype == "JOIN_FULL"
  local left_sharded, right_sharded = has_sharded(left), has_sharded(right)
  if left_sharded and right_sharded then
    if not level:is_linked(left, right) then
      return nil, OUTER:format("a condition that does not compare the shard keys")
    end
  elseif keeps_left and right_sharded or keeps_right and left_sharded then
    return nil, OUTER:format("all rows of a table that is the same on every shard")
  end
  if keeps_left then
    set_nullable(right)
  end
  if keeps_right then
    set_nullable(left)
  end
  return true
end

function FROM.JoinExpr(ctx, level, join)
  local sides = {}
  for i, side in ipairs({ join.larg, join.rarg }) do
    local kind, node = next(side)
    local entries, reason = FROM[kind](ctx, level, node)
    if not entries then
      return nil, reason
    end
    sides[i] = entries
  end
  local left, right = sides[1], sides[2]
  if join.alias and (has_sharded(left) or has_sharded(right)) then
    return nil, "a join with an alias of its own hides the shard keys"
  end
  local how = { type = join.jointype, left = left, right = right }
  for _, column in ipairs(join.usingClause or {}) do
    level:link_using(how, column.String.sval)
  end
  if join.quals then
    local ok, reason = relations.check_condition(ctx, level, join.quals, how)
    if not ok then
      return nil, reason
    end
  end
  if join.jointype ~= "JOIN_INNER" then
    local ok, reason = check_outer(level, join, left, right)
    if not ok then
      return nil, reason
    end
  end
  return append(append({}, left), right)
end

-- Does a query name tables whose rows differ from shard to shard?
local function touches_sharded(ctx, env, stmt)
  local inner, found = {}, false
  expression.walk({ SelectStmt = stmt }, function(kind, node)
    if kind == "CommonTableExpr" then
      inner[node.ctename] = true
    end
  end)
  expression.walk({ SelectStmt = stmt }, function(kind, node)
    if kind == "RangeVar" then
      local cte = not node.schemaname and env[node.relname]
      if cte then
        found = found or cte.sharded or cte.reason ~= nil
      elseif node.schemaname or not inner[node.relname] then
        local known = ctx.tables:find(node.schemaname, node.relname)
        if known and known.reference then
          ctx.reference = true
        else
          found = true
        end
      end
    end
  end)
  return found
end

-- `key IN (SELECT key FROM ...)`: each shard has all that its own keys can be found in.
local function is_key_list(ctx, level, link)
  local ref = link.subLinkType == "ANY_SUBLINK" and link.testexpr and link.testexpr.ColumnRef
  local entry, index = nil, nil
  if ref and (link.operName == nil or expression.last_name(link.operName) == "=") then
    entry, index = level:key_of(ref)
  end
  if not entry or entry.n_keys ~= 1 or index ~= 1 then
    return false
  end
  local derived = derive(ctx, level.env, link.subselect.SelectStmt)
  return derived ~= nil and derived.sharded and derived.first_key == 1 and derived.n_keys == 1
    and derived.type_id == entry.type_id
end

--- Is a subquery local to the row that it is evaluated for?
-- @tparam table ctx
-- @tparam table level around it
-- @tparam table link the `SubLink`
-- @tparam[opt] boolean is_condition must it be true for a row to count?
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string why not
function relations.check_subquery(ctx, level, link, is_condition)
  local stmt = link.subselect.SelectStmt
  if not touches_sharded(ctx, level.env, stmt) then
    return true
  elseif stmt.op == "SETOP_NONE" then
    local inner, reason = read_level(ctx, level.env, stmt, level)
    if not inner then
      return nil, reason
    elseif inner.sharded and inner:is_correlated() then
      return relations.check_clauses(ctx, inner, stmt)
    end
  end
  if is_condition and is_key_list(ctx, level, link) then
    return true
  end
  return nil, "a subquery needs rows of other shards: compare the shard keys inside of it"
end

--- Check every subquery in an expression.
-- @tparam table ctx
-- @tparam table level
-- @param tree
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string why not
function relations.check_subqueries(ctx, level, tree)
  local problem
  expression.walk({ tree }, function(kind, node)
    if kind == "SubLink" and not problem then
      local ok, reason = relations.check_subquery(ctx, level, node)
      problem = not ok and reason or nil
      if not problem and node.testexpr then
        ok, reason = relations.check_subqueries(ctx, level, node.testexpr)
        problem = not ok and reason or nil
      end
      return true
    end
  end)
  if problem then
    return nil, problem
  end
  return true
end

--- Check every subquery of a query that is not in FROM or WHERE.
-- @tparam table ctx
-- @tparam table level
-- @tparam table stmt a `SelectStmt`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string why not
function relations.check_clauses(ctx, level, stmt)
  return relations.check_subqueries(ctx, level, {
    stmt.targetList or {}, stmt.groupClause or {}, stmt.havingClause or {}, stmt.windowClause or {},
    stmt.distinctClause or {}, stmt.sortClause or {}, stmt.limitCount or {}, stmt.limitOffset or {},
  })
end

--- Take in a condition that every row fulfils: which keys it says are equal.
-- @tparam table ctx
-- @tparam table level
-- @tparam table node
-- @tparam ?table join whose condition it is; see `Level:link`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string why a subquery in it is not local
function relations.check_condition(ctx, level, node, join)
  local bool, expr = node.BoolExpr, node.A_Expr
  if bool and bool.boolop == "AND_EXPR" then
    for _, part in ipairs(bool.args) do
      local ok, reason = relations.check_condition(ctx, level, part, join)
      if not ok then
        return nil, reason
      end
    end
    return true
  elseif expr and expr.kind == "AEXPR_OP" and #expr.name == 1 and expression.last_name(expr.name) == "=" and expr.lexpr
    and expr.lexpr.ColumnRef and expr.rexpr.ColumnRef then
    level:link(expr.lexpr.ColumnRef, expr.rexpr.ColumnRef, join)
    return true
  elseif node.SubLink then
    return relations.check_subquery(ctx, level, node.SubLink, true)
  end
  return relations.check_subqueries(ctx, level, node)
end

local function read_with(ctx, env, with)
  local inner = setmetatable({}, { __index = env })
  for _, cte in ipairs(with and with.ctes or {}) do
    local node = cte.CommonTableExpr
    local stmt = node.ctequery.SelectStmt
    inner[node.ctename] = with.recursive and {} or nil -- it may name itself
    if stmt and not touches_sharded(ctx, inner, stmt) then
      inner[node.ctename] = {}
    elseif with.recursive or not stmt then
      inner[node.ctename] = { reason = "RECURSIVE over tables whose rows are spread" }
    else
      local entry, reason = derive(ctx, inner, stmt)
      inner[node.ctename] = entry or { reason = reason }
    end
  end
  return inner
end

--- The tables of one query level.
-- @tparam table ctx
-- @tparam table env names of WITH in scope
-- @tparam table stmt a `SelectStmt` without set operation
-- @tparam ?table outer the level around it, for what it is correlated with
-- @treturn[1] table level
-- @treturn[2] nil
-- @treturn[2] string why it is not local
function relations.level(ctx, env, stmt, outer)
  local level = level_module.new(read_with(ctx, env, stmt.withClause), outer)
  for _, item in ipairs(stmt.fromClause or {}) do
    local kind, node = next(item)
    local entries, reason = FROM[kind](ctx, level, node)
    if not entries then
      return nil, reason
    end
  end
  if stmt.whereClause then
    local ok, reason = relations.check_condition(ctx, level, stmt.whereClause)
    if not ok then
      return nil, reason
    end
  end
  level.sharded = has_sharded(level.entries)
  local ok, reason = level:check_connected()
  if not ok then
    return nil, reason
  end
  return level
end

read_level = relations.level

local function set_operation(ctx, env, stmt)
  local left, reason = derive(ctx, env, stmt.larg)
  local right
  if left then
    right, reason = derive(ctx, env, stmt.rarg)
  end
  if not right then
    return nil, reason
  elseif not left.sharded and not right.sharded then
    return {}
  elseif not left.sharded or not right.sharded then
    return nil, "one part of a UNION is the same on every shard: its rows would come once from each"
  elseif stmt.op ~= "SETOP_UNION" then
    return nil, "INTERSECT and EXCEPT compare rows of different shards"
  elseif left.removes_duplicates and stmt.all or right.removes_duplicates then
    return nil, "a UNION without ALL inside of another compares rows of different shards"
  end
  return { sharded = true, keys = {}, n_keys = 0, removes_duplicates = not stmt.all }
end

--- What a query is as a table in FROM.
-- @tparam table ctx
-- @tparam table env
-- @tparam table stmt a `SelectStmt`
-- @tparam[opt] boolean is_branch of a set operation at the top
-- @treturn[1] table entry: `sharded`, `keys` (column -> number), `n_keys`, `type_id`, `first_key`
-- @treturn[2] nil
-- @treturn[2] string why its rows are not those of the shards put together
function relations.derive(ctx, env, stmt, is_branch)
  if stmt.op ~= "SETOP_NONE" then
    local inner = read_with(ctx, env, stmt.withClause)
    local entry, reason = set_operation(ctx, inner, stmt)
    if entry and entry.sharded and not is_branch then
      if stmt.limitCount or stmt.limitOffset then
        return nil, "LIMIT inside of the statement picks rows of all shards"
      elseif entry.removes_duplicates then
        return nil, "a UNION without ALL compares rows of different shards"
      end
    end
    return entry, reason
  elseif stmt.valuesLists then
    if touches_sharded(ctx, env, stmt) then
      return nil, "a subquery in VALUES needs rows of all shards"
    end
    return {}
  end
  local level, reason = relations.level(ctx, env, stmt)
  if not level then
    return nil, reason
  end
  local ok
  ok, reason = relations.check_clauses(ctx, level, stmt)
  if not ok then
    return nil, reason
  elseif not level.sharded then
    return {}
  elseif stmt.limitCount or stmt.limitOffset then
    return nil, "LIMIT inside of the statement picks rows of all shards"
  end
  local shape = level:shape(ctx, stmt)
  reason = shape.problem
  if reason then
    return nil, reason
  end
  return level:outputs(stmt)
end

derive = relations.derive

return relations
