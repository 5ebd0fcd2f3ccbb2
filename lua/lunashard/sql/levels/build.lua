--- From a parse tree to its levels: one for each SELECT, VALUES, arm of a UNION, INSERT, UPDATE, DELETE and MERGE.
-- A level has the items of its FROM as a tree of joins, filters (what its conditions say, and of which items rows are
-- lost where they are not true), what it gives, and the levels inside its expressions.
-- @module lunashard.sql.levels.build

local conditions = require("lunashard.sql.levels.conditions")
local errors = require("lunashard.errors")
local names = require("lunashard.sql.levels.names")
local source = require("lunashard.sql.levels.source")

local build = {}

-- Of levels, joins and expressions within each other; far from where Lua's stack ends.
local MAX_DEPTH = 900

local Builder = {}
Builder.__index = Builder

local function no_names()
  return { items = {}, merged = {} }
end

local function append(list, more)
  for _, one in ipairs(more) do
    list[#list + 1] = one
  end
  return list
end

function Builder:deeper()
  self.depth = self.depth + 1
  if self.depth > MAX_DEPTH then
    error(errors.new("INVALID", { message = "the statement is nested too deeply" }), 0)
  end
end

function Builder:level(kind, node)
  local level = { kind = kind, node = node, filters = {}, within = {}, outputs = {}, leaves = {}, trees = {}, calls = {} }
  self.levels[#self.levels + 1] = level
  return level
end

local function add_filter(level, sink, targets)
  local filter = { equal = sink.equal, facts = sink.facts, tuples = sink.tuples, targets = {}, level = level }
  for _, item in ipairs(targets) do
    filter.targets[item] = true
  end
  level.filters[#level.filters + 1] = filter
  return filter
end

-- ---- expressions ----

-- Build the levels inside an expression, and note what else matters of it.
function Builder:visit(node, env)
  if node.subselect then
    self:sublink(node, env)
    return
  elseif node.over then
    env.level.has_window = true
  elseif node.content and node.kind then
    env.level.has_grouping_sets = true
  end
  if node.funcname then
    self.calls[#self.calls + 1] = node
    env.level.calls[#env.level.calls + 1] = node
  end
  self:deeper()
  for key, child in pairs(node) do
    if type(child) == "table" and key ~= "ColumnRef" then
      self:visit(child, env)
    end
  end
  self.depth = self.depth - 1
end

function Builder:visit_all(node, env, ...)
  for i = 1, select("#", ...) do
    local part = node[(select(i, ...))]
    if part then
      self:visit(part, env)
    end
  end
end

function Builder:sublink(link, env)
  if link.testexpr then
    self:visit(link.testexpr, env)
  end
  local level = self:query(link.subselect, env)
  env.level.within[#env.level.within + 1] = { level = level }
  return level
end

-- `a IN (SELECT b ...)` where it must be true: rows of both sides meet only where they are equal.
function Builder:semi_join(link, env, sink)
  local op = link.operName
  if op and (#op > 1 or op[1].String.sval ~= "=") then
    self:sublink(link, env)
    return
  end
  local level = self:sublink(link, env)
  local item = names.item("sub", { level = level, pushable = true, outputs = function()
    return level.outputs
  end })
  env.level.within[#env.level.within].item = item
  local tested = link.testexpr.RowExpr and link.testexpr.RowExpr.args or { link.testexpr }
  for i, node in ipairs(tested) do
    local term = node.ColumnRef and names.resolve(env.scope, node.ColumnRef.fields)
    local inner = names.output_at(level.outputs, i)
    if term and inner then
      item.terms[i] = { item = item, inner = inner, domains = {} }
      sink.equal[#sink.equal + 1] = { term, item.terms[i] }
    end
  end
  return item
end

-- The parts that are AND-ed.
local function conjuncts(node, list)
  if node.BoolExpr and node.BoolExpr.boolop == "AND_EXPR" then
    for _, arg in ipairs(node.BoolExpr.args) do
      conjuncts(arg, list)
    end
  else
    list[#list + 1] = node
  end
  return list
end

-- A condition: what it says goes into one filter, which items without a match are lost by.
function Builder:condition(node, env, targets)
  local sink, semi = conditions.sink(), {}
  for _, part in ipairs(node and conjuncts(node, {}) or {}) do
    local link = part.SubLink
    if link and link.subLinkType == "ANY_SUBLINK" then
      semi[#semi + 1] = self:semi_join(link, env, sink)
    else
      conditions.say(env, sink, part)
      self:visit(part, env)
    end
  end
  return add_filter(env.level, sink, append(semi, targets))
end

-- ---- WITH ----

local function new_alias(alias)
  if not alias then
    return nil
  end
  local renamed
  if alias.colnames then
    renamed = {}
    for i, one in ipairs(alias.colnames) do
      renamed[i] = one.String.sval
    end
  end
  return alias.aliasname, renamed
end

function Builder:build_cte(cte)
  cte.building = true
  local level = self:query(cte.query, cte.env, cte)
  cte.level, cte.building = level, false
end

function Builder:with(clause, env)
  if not clause then
    return env
  end
  local ctes = setmetatable({}, { __index = env.ctes })
  local inner = { level = env.level, scope = env.scope, ctes = ctes }
  local list = {}
  for i, node in ipairs(clause.ctes) do
    local one = node.CommonTableExpr
    local _, renamed = new_alias({ colnames = one.aliascolnames })
    list[i] = { name = one.ctename, query = one.ctequery, renamed = renamed, uses = 0, env = inner }
    if clause.recursive then
      ctes[one.ctename] = list[i]
    end
  end
  for _, cte in ipairs(list) do
    if not cte.level then
      self:build_cte(cte)
    end
    ctes[cte.name] = cte -- without RECURSIVE only those after it know it
    self.ctes[#self.ctes + 1] = cte
  end
  return inner
end

-- ---- queries ----

local function output_name(target)
  if target.name then
    return target.name
  end
  local ref = target.val.ColumnRef
  local last = ref and ref.fields[#ref.fields]
  return last and last.String and last.String.sval or nil
end

-- What a target list gives.
function Builder:outputs(list, env)
  local outputs = {}
  for i, node in ipairs(list or {}) do
    local target = node.ResTarget
    local fields = target.val.ColumnRef and target.val.ColumnRef.fields
    if fields and fields[#fields].A_Star then
      outputs[i] = { star = self:star(fields, env) }
    else
      local term = fields and names.resolve(env.scope, fields)
      if not fields then
        local read = source.read(target.val, self.sql)
        term = read and names.constant(read)
      end
      outputs[i] = { name = output_name(target), term = term or nil }
    end
  end
  return outputs
end

function Builder:star(fields, env)
  local ns, item = env.scope.ns, nil
  if #fields > 1 then
    local relation = fields[#fields - 1].String.sval
    local schema = #fields > 2 and fields[#fields - 2].String.sval or nil
    item = names.relation(ns, schema, relation)
    ns = { items = { item }, merged = {} }
  end
  return function(name)
    if #fields > 1 and not item then
      return "unknown"
    end
    return names.unqualified(ns, name)
  end
end

local function is_plain_distinct(clause)
  return next(clause[1]) == nil
end

-- May only rows with certain values of what it gives be asked for from the start?
local function takes_filters(node, level)
  return not (node.limitCount or node.limitOffset or node.lockingClause or node.windowClause or level.has_window
    or level.has_grouping_sets or node.distinctClause and not is_plain_distinct(node.distinctClause))
end

local function group_terms(node, level, env)
  if not node.groupClause then
    return nil
  end
  local terms = {}
  for _, one in ipairs(node.groupClause) do
    local position = one.A_Const and one.A_Const.ival and one.A_Const.ival.ival
    local term = one.ColumnRef and names.resolve(env.scope, one.ColumnRef.fields)
      or position and names.output_at(level.outputs, position)
    if term then
      terms[term] = true
    end
  end
  return terms
end

local function new_scope(env)
  return { ns = no_names(), parent = env.scope }
end

function Builder:select(node, env)
  local level = self:level("select", node)
  local inner = { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
  level.trees = self:from_list(node.fromClause, inner)
  level.where = self:condition(node.whereClause, inner, level.leaves)
  self:visit_all(node, inner, "targetList", "groupClause", "havingClause", "windowClause", "sortClause", "limitCount",
    "limitOffset", "distinctClause")
  level.outputs = self:outputs(node.targetList, inner)
  level.groups = group_terms(node, level, inner)
  level.takes_filters = takes_filters(node, level)
  return level
end

function Builder:values(node, env)
  local level = self:level("values", node)
  local inner = { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
  local columns = #node.valuesLists[1].List.items
  for i = 1, columns do
    local sources, ids = {}, {}
    for _, row in ipairs(node.valuesLists) do
      local item = row.List.items[i]
      local read = sources and item and source.read(item, self.sql)
      if read and not read.null then
        sources[#sources + 1], ids[#ids + 1] = read, read.id
      else
        sources = nil
      end
    end
    local term = { domains = {} }
    if sources then
      term.domains[1] = #sources == 1 and { kind = "eq", source = sources[1], id = sources[1].id }
        or { kind = "list", sources = sources, id = "(" .. table.concat(ids, ",") .. ")" }
    end
    level.outputs[i] = { name = "column" .. i, term = term }
  end
  self:visit_all(node, inner, "valuesLists", "sortClause", "limitCount", "limitOffset")
  level.takes_filters = takes_filters(node, level)
  return level
end

function Builder:set_operation(node, env, cte)
  local level = self:level("union", node)
  local arms = { level = level, scope = env.scope, ctes = env.ctes }
  level.left = self:query({ SelectStmt = node.larg }, arms)
  if cte then
    cte.base, cte.base_level = level.left.outputs, level.left
  end
  level.right = self:query({ SelectStmt = node.rarg }, arms)
  level.recursive = cte and cte.recursive
  self:visit_all(node, { level = level, scope = env.scope, ctes = env.ctes }, "sortClause", "limitCount", "limitOffset")
  for i, entry in ipairs(level.left.outputs) do
    if entry.star then
      level.outputs[i] = { star = function(name)
        return (entry.star(name)) == "lacks" and "lacks" or "unknown"
      end }
    else
      local one, other = entry.term, names.output_at(level.right.outputs, i)
      level.outputs[i] = { name = entry.name, term = names.output_at(level.left.outputs, i) and one and other
        and { arms = { one, other }, level = level, domains = {} } or nil }
    end
  end
  level.takes_filters = takes_filters(node, level)
  return level
end

local STATEMENTS = {}

--- A statement of any of the kinds that have levels.
-- @tparam table stmt `{ SelectStmt = ... }` and so on
-- @tparam table env `scope`, `ctes`, `level`
-- @tparam ?table cte what it is the query of
-- @treturn table level
function Builder:query(stmt, env, cte)
  self:deeper()
  local kind, node = next(stmt)
  env = self:with(node.withClause, env)
  local level
  if kind ~= "SelectStmt" then
    level = STATEMENTS[kind](self, node, env)
  elseif node.op ~= "SETOP_NONE" then
    level = self:set_operation(node, env, cte)
  elseif node.valuesLists then
    level = self:values(node, env)
  else
    level = self:select(node, env)
  end
  self.depth = self.depth - 1
  return level
end

--- Build the levels of a statement.
-- @string sql
-- @tparam table stmt its parse tree
-- @tparam Tables tables
-- @treturn table the builder: `top` (level), `levels`, `instances` (items that are tables with a shard key),
--   `references`, `unknown` and `system` (lists of names of other tables), `ctes`, `calls`, `writes`
function build.run(sql, stmt, tables)
  local self = setmetatable({
    sql = sql, tables = tables, depth = 0, levels = {}, instances = {}, references = {}, unknown = {}, system = {},
    ctes = {}, calls = {}, writes = {}, sets = {},
  }, Builder)
  self.top = self:query(stmt, { ctes = {}, sql = sql })
  return self
end

-- For the parts of the class in other files: `from` and `writes`.
build.Builder, build.STATEMENTS = Builder, STATEMENTS
build.add_filter, build.new_scope, build.append, build.no_names = add_filter, new_scope, append, no_names
build.new_alias = new_alias

return build
