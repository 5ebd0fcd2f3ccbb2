--- The items of FROM and their joins.
-- @module lunashard.sql.levels.from

local build = require("lunashard.sql.levels.build")
local conditions = require("lunashard.sql.levels.conditions")
local names = require("lunashard.sql.levels.names")

local Builder = build.Builder

-- A leaf of the tree of joins.
local function leaf(item, nullable)
  item.nullable = nullable
  return { items = { item }, merged = {} }, { item }, { item = item }
end

function Builder:note_table(schema, name, entry)
  local list = not entry and self.unknown or entry.system and self.system or entry.reference and self.references
  if list then
    list[#list + 1] = { schema = schema, name = name, table = entry and entry.table }
  end
end

-- A table, whatever it is to us.
function Builder:table_item(range, env)
  local entry = self.tables:find(range.schemaname, range.relname)
  local alias, renamed = build.new_alias(range.alias)
  local key = entry and entry.columns and entry or nil
  local item = names.item("table", {
    alias = alias, renamed = renamed, schema = range.schemaname, relname = range.relname, entry = entry, key = key,
    home = env.level,
  })
  if key then
    self.instances[#self.instances + 1] = item
  else
    self:note_table(range.schemaname, range.relname, entry)
  end
  return item
end

function Builder:cte_item(cte, range)
  local alias, renamed = build.new_alias(range.alias)
  cte.uses = cte.uses + 1
  if cte.building then -- what it gives is told by the arm that does not refer to it
    cte.recursive = true
  elseif not cte.level then
    self:build_cte(cte) -- WITH RECURSIVE names it before it comes
  end
  local outputs = cte.building and (cte.base or { {} }) or cte.level.outputs
  return names.item("sub", {
    alias = alias or range.relname, renamed = renamed or cte.renamed, cte = cte, level = cte.level,
    assumed = cte.building, outputs = function()
      return outputs
    end,
  })
end

local FROM = {}

function FROM.RangeVar(self, range, env, nullable)
  local cte = not range.schemaname and env.ctes[range.relname]
  return leaf(cte and self:cte_item(cte, range) or self:table_item(range, env), nullable)
end

function FROM.RangeTableSample(self, sample, env, nullable)
  self:visit_all(sample, env, "args", "repeatable")
  return self:from(sample.relation, env, nullable)
end

function FROM.RangeSubselect(self, range, env, nullable)
  local scope = range.lateral and env.scope or env.outer_scope
  local level = self:query(range.subquery, { level = env.level, scope = scope, ctes = env.ctes })
  local alias, renamed = build.new_alias(range.alias)
  return leaf(names.item("sub", {
    alias = alias, renamed = renamed, level = level, pushable = true, outputs = function()
      return level.outputs
    end,
  }), nullable)
end

-- unnest($1::bigint[]) AS k(id) gives the values of an array.
function FROM.RangeFunction(self, range, env, nullable)
  self:visit_all(range, env, "functions")
  local alias, renamed = build.new_alias(range.alias)
  local item = names.item("function", { alias = alias })
  local call = #range.functions == 1 and not range.ordinality and not range.coldeflist
    and range.functions[1].List.items[1].FuncCall
  if call then
    item.alias = alias or call.funcname[#call.funcname].String.sval
    local is_unnest = #call.funcname == 1 and call.funcname[1].String.sval == "unnest" and #(call.args or {}) == 1
    local domain = is_unnest and conditions.array(call.args[1], self.sql)
    if domain and alias then
      item.only = renamed and renamed[1] or alias
      item.terms[item.only] = { item = item, name = item.only, domains = { domain } }
    end
  end
  return leaf(item, nullable)
end

function FROM.RangeTableFunc(self, range, env, nullable)
  self:visit(range, env)
  return leaf(names.item("function", { alias = range.alias and range.alias.aliasname }), nullable)
end

-- The one column that a full join makes of two is either, but rows of both sides are in it only where they are equal
-- to it.
local function merge_columns(kind, left, right)
  if kind == "JOIN_FULL" then
    return { parts = { left, right }, domains = {} }
  end
  return kind == "JOIN_RIGHT" and right or left
end

local function key_names(leaves, into)
  for _, item in ipairs(leaves) do
    for _, column in ipairs(item.key and not item.renamed and item.key.columns or {}) do
      into[column] = true
    end
    if item.kind == "sub" then
      for _, entry in ipairs(item.outputs()) do
        if entry.name then
          into[entry.name] = true
        end
      end
    end
  end
end

local function natural_names(left, right)
  local found = {}
  key_names(left.leaves, found)
  key_names(right.leaves, found)
  return found
end

local function merge_names(join, ns, sink, left, right)
  local using = {}
  if join.usingClause then
    for _, one in ipairs(join.usingClause) do
      using[one.String.sval] = true
    end
  else
    using = natural_names(left, right)
  end
  for name in pairs(using) do
    local a_state, a = names.unqualified(left.ns, name)
    local b_state, b = names.unqualified(right.ns, name)
    if a and b then
      sink.equal[#sink.equal + 1] = { a, b }
      ns.merged[name] = merge_columns(join.jointype, a, b)
    elseif join.usingClause or a_state ~= "lacks" and b_state ~= "lacks" then
      ns.merged[name] = names.UNKNOWN -- of a type that may be neither's
    end
  end
end

local function using_names(join, merged)
  local own = {}
  for _, one in ipairs(join.usingClause or {}) do
    own[one.String.sval] = merged[one.String.sval]
  end
  return own
end

function FROM.JoinExpr(self, join, env, nullable)
  local kind = join.jointype
  local left, right = {}, {}
  left.ns, left.leaves, left.tree = self:from(join.larg, env, nullable or kind == "JOIN_RIGHT" or kind == "JOIN_FULL")
  local beside = { ns = left.ns, parent = env.scope }
  right.ns, right.leaves, right.tree = self:from(join.rarg,
    { level = env.level, scope = beside, outer_scope = env.outer_scope, ctes = env.ctes, sql = env.sql },
    nullable or kind == "JOIN_LEFT" or kind == "JOIN_FULL")
  local ns = build.no_names()
  build.append(build.append(ns.items, left.ns.items), right.ns.items)
  for _, side in ipairs({ left, right }) do
    for name, term in pairs(side.ns.merged) do
      ns.merged[name] = ns.merged[name] and names.UNKNOWN or term
    end
  end
  local leaves = build.append(build.append({}, left.leaves), right.leaves)
  local targets = kind == "JOIN_INNER" and leaves or kind == "JOIN_LEFT" and right.leaves
    or kind == "JOIN_RIGHT" and left.leaves or {}
  local filter = self:condition(join.quals,
    { level = env.level, scope = { ns = ns, parent = env.outer_scope }, ctes = env.ctes, sql = self.sql }, targets)
  if join.usingClause or join.isNatural then
    merge_names(join, ns, filter, left, right)
  end
  if join.join_using_alias then
    ns.items[#ns.items + 1] = names.item("using", {
      alias = join.join_using_alias.aliasname, merged = using_names(join, ns.merged),
    })
  end
  if join.alias then
    local alias, renamed = build.new_alias(join.alias)
    ns = { items = { names.item("join", { alias = alias, renamed = renamed, within = ns }) }, merged = {} }
  end
  return ns, leaves, { join = kind, left = left.tree, right = right.tree, filter = filter }
end

--- One item of FROM, or a tree of joins.
-- @treturn table its names
-- @treturn table a list of the items at its leaves
-- @treturn table the tree: `{ item = }` or `{ join =, left =, right =, filter = }`
function Builder:from(node, env, nullable)
  self:deeper()
  local kind, inner = next(node)
  local ns, leaves, tree = FROM[kind](self, inner, env, nullable or false)
  for _, item in ipairs(leaves) do
    item.home = env.level
  end
  self.depth = self.depth - 1
  return ns, leaves, tree
end

-- The list after FROM or USING into a scope whose names grow as it is read.
function Builder:from_list(list, env)
  local trees = {}
  for _, node in ipairs(list or {}) do
    local ns, leaves, tree = self:from(node, env, false)
    build.append(env.scope.ns.items, ns.items)
    for name, term in pairs(ns.merged) do
      env.scope.ns.merged[name] = env.scope.ns.merged[name] and names.UNKNOWN or term -- ambiguous
    end
    build.append(env.level.leaves, leaves)
    trees[#trees + 1] = tree
  end
  return trees
end

return {}
