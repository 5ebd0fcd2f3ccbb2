--- What a statement is, by PostgreSQL's own parser.
-- One walk over the parse tree finds what a statement names and does. Nothing here asks a server: whether a name is
-- a table or a view, or a function harmless, is for `lunashard.sql.sharing` to find out.
-- @module lunashard.sql.statement

local cjson = require("cjson.safe")
local core = require("lunashard.core.sql")
local errors = require("lunashard.errors")

local statement = {}

-- Not the shared instance: its limit of 1000 levels is 500 terms of `a + b + c ...`.
local json = cjson.new()
json.decode_max_depth(4000)

local KINDS = {
  SelectStmt = "select", InsertStmt = "insert", UpdateStmt = "update", DeleteStmt = "delete", MergeStmt = "merge",
}

local walk

-- Add a name once, in a list of `{ schema =, name = }`.
local function add(list, schema, name)
  local key = (schema or "") .. "\0" .. name
  if not list[key] then
    local entry = { schema = schema, name = name }
    list[key], list[#list + 1] = entry, entry
  end
end

-- Names come as lists of strings, `pg_catalog.int4` as two; what is before the schema is the database.
local function add_name(list, parts)
  local name, schema = parts[#parts], parts[#parts - 1]
  add(list, schema and schema.String and schema.String.sval, name.String.sval)
end

local function add_table(found, scope, range)
  local schema, name = range.schemaname, range.relname
  if schema or not (scope and scope[name]) then
    add(found.tables, schema, name)
  end
end

local function add_operators(found, ...)
  for i = 1, select("#", ...) do
    add(found.operators, nil, (select(i, ...)))
  end
end

-- `a.b` is also a way to write the function call `b(a)`.
local function add_attribute(found, parts)
  for _, part in ipairs(parts) do
    if part.String then
      add(found.attributes, nil, part.String.sval)
    end
  end
end

-- What stands in a tree under a certain name: of a node, or of a field that tells the kind of the object it is in.
-- Each takes the object, what was found so far and the names of WITH in scope; true when it has looked inside.
local MARKS = {}

function MARKS.relname(_, found, scope, range)
  add_table(found, scope, range)
end

function MARKS.funcname(parts, found)
  add_name(found.functions, parts)
end

function MARKS.A_Expr(expr, found)
  if expr.kind:find("BETWEEN", 1, true) then
    add_operators(found, "<", "<=", ">", ">=")
  else
    add_name(found.operators, expr.name)
  end
end

function MARKS.SubLink(link, found)
  if link.operName then
    add_name(found.operators, link.operName)
  elseif link.testexpr then
    add_operators(found, "=") -- a IN (SELECT ...)
  end
end

function MARKS.useOp(parts, found)
  add_name(found.operators, parts)
end

function MARKS.CaseExpr(expr, found)
  if expr.arg then
    add_operators(found, "=")
  end
end

function MARKS.JoinExpr(join, found)
  if join.usingClause or join.isNatural then
    add_operators(found, "=")
  end
end

function MARKS.ColumnRef(ref, found)
  if ref.fields[2] then
    add_attribute(found, { unpack(ref.fields, 2) })
  end
  return true
end

function MARKS.indirection(parts, found)
  add_attribute(found, parts)
end

function MARKS.ParamRef(ref, found)
  found.parameters = math.max(found.parameters, ref.number or 0)
end

function MARKS.names(parts, found)
  local schema = parts[#parts - 1]
  if schema and schema.String then
    add_name(found.types, parts)
  end
end

function MARKS.RangeTableSample(_, found)
  found.sample = true
end

function MARKS.CurrentOfExpr(_, found)
  found.cursor = true
end

-- The tables that it names are the aliases of others.
function MARKS.lockingClause(_, found)
  found.locking = true
  return true
end

function MARKS.intoClause(_, found)
  found.into = true
  return true
end

-- A target is never a name of WITH.
local function modify(node, found, scope)
  found.modifies = true
  add(found.targets, node.relation.schemaname, node.relation.relname)
  add_table(found, nil, node.relation)
  walk(node, found, scope, "relation")
  return true
end

MARKS.InsertStmt, MARKS.UpdateStmt, MARKS.DeleteStmt, MARKS.MergeStmt = modify, modify, modify, modify

-- A query in WITH sees the names before it, or with RECURSIVE all of them, itself included.
local function enter_with(with, found, scope)
  local inner = setmetatable({}, { __index = scope })
  if with.recursive then
    for _, cte in ipairs(with.ctes) do
      inner[cte.CommonTableExpr.ctename] = true
    end
  end
  for _, cte in ipairs(with.ctes) do
    walk(cte.CommonTableExpr, found, inner)
    inner[cte.CommonTableExpr.ctename] = true
  end
  return inner
end

function walk(node, found, scope, passed_over)
  if node.withClause then
    scope = enter_with(node.withClause, found, scope)
  end
  for key, child in pairs(node) do
    if key ~= passed_over and key ~= "withClause" then
      local mark = MARKS[key]
      local done = mark and mark(child, found, scope, node)
      if not done and type(child) == "table" then
        walk(child, found, scope)
      end
    end
  end
end

local function decode(text)
  local tree, err = core.parse(text)
  if not tree then
    return nil, err
  end
  tree, err = json.decode(tree)
  if not tree then
    return nil, errors.new("INVALID", { message = "the statement is nested too deeply: " .. err })
  end
  return tree
end

local Statement = {}

-- The tree of the text that was analysed last: who asks for one mostly does so at once.
local latest, latest_tree

function Statement.__index(found, name)
  if name == "ast" then
    found.ast = (found == latest and latest_tree or assert(decode(found.sql))).stmts
    return found.ast
  end
end

local function analyse(text)
  local tree, err = decode(text)
  if not tree then
    return nil, err
  end
  local found = setmetatable({
    sql = text, statements = #tree.stmts, kind = "empty", parameters = 0, locking = false, modifies = false,
    into = false, sample = false, cursor = false,
    tables = {}, targets = {}, functions = {}, operators = {}, attributes = {}, types = {},
  }, Statement)
  for i, entry in ipairs(tree.stmts) do
    if i == 1 then
      local node = next(entry.stmt)
      found.kind = KINDS[node] or "utility"
      found.utility = not KINDS[node] and node or nil
    end
    walk(entry.stmt, found)
  end
  latest, latest_tree = found, tree
  return found
end

-- Programs run the same texts again and again; long ones are not worth keeping. Two generations: what was used
-- since the older one was dropped is kept.
local CACHE_ENTRIES, CACHE_TEXT = 1024, 8192
local young, old, n_young = {}, {}, 0

--- Analyse a text. Results are cached by text and shared: not to be changed.
-- Names are as PostgreSQL folds them. Lists of names hold `{ schema =, name = }` without doubles, in no order, `schema`
-- nil where the text has none.
-- @string text
-- @treturn[1] table `sql`; `statements`, how many it holds; of the first one `kind` (`select insert update delete merge
--   utility empty`; `select` for VALUES and TABLE too) and for `utility` its node, such as `CreateStmt`; of all of them
--   `tables` (no names of WITH), `targets` (those of them that are written), `functions`, `operators`, `attributes`
--   (the `b` of `a.b`, which may call a function), `types` (those with a schema), `parameters` (the highest `$n`) and,
--   as booleans, `modifies` (it has an INSERT, UPDATE, DELETE or MERGE, also inside WITH), `locking` (FOR UPDATE,
--   SHARE, ...), `into` (SELECT INTO), `sample` (TABLESAMPLE), `cursor` (WHERE CURRENT OF); and `ast`, the list of the
--   parse trees, made when it is first read. An integer constant in it that is not above 0 has no value.
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL` with `sqlstate` 42601 and `position`; `INVALID` for a NUL byte, more than 32 KiB,
--   or about 2000 levels of nesting
function statement.parse(text)
  local found = young[text]
  if found then
    return found
  elseif type(text) ~= "string" then
    error("sql.parse: a statement must be a string, got " .. type(text), 2)
  end
  local err
  found = old[text]
  if not found then
    found, err = analyse(text)
    if not found then
      return nil, err
    end
  end
  if #text <= CACHE_TEXT then
    if n_young >= CACHE_ENTRIES then
      young, old, n_young = {}, young, 0
    end
    young[text], n_young = found, n_young + 1
  end
  return found
end

return statement
