--- The statements that make one database's object what another's is.
-- What would lose rows is marked, and stands in a script as a comment: whoever runs it has to decide that.
-- @module lunashard.schema.mend

local mend = {}

-- The order of a script: what others need comes first; what is removed goes in the opposite order, at the end.
local RANK = { schema = 1, extension = 2, type = 3, domain = 4, sequence = 5, table = 6, column = 7, ["function"] = 8,
  constraint = 9, index = 10, foreign_key = 11, view = 12, trigger = 13, policy = 14, privilege = 15 }
local REMOVAL = 100

local LOSES = { schema = true, extension = true, type = true, domain = true, sequence = true, table = true, column = true }

local function statement(kind, text, more)
  return { rank = RANK[kind], text = text, comment = more and more.comment or false }
end

local function rank_of(object)
  return object.kind == "constraint" and object.type == "f" and "foreign_key" or object.kind
end

local CREATE, DROP, CHANGE = {}, {}, {}

function CREATE.schema(object)
  return "CREATE SCHEMA " .. object.name
end

function CREATE.extension(object)
  return ("CREATE EXTENSION %s VERSION '%s'"):format(object.name, object.def)
end

function CREATE.type(object)
  return ("CREATE TYPE %s AS %s"):format(object.name, object.def)
end

function CREATE.domain(object)
  return ("CREATE DOMAIN %s AS %s"):format(object.name, object.def)
end

function CREATE.sequence(object)
  return ("CREATE SEQUENCE %s %s"):format(object.name, object.def)
end

function CREATE.column(object)
  return ("ALTER TABLE %s ADD COLUMN %s %s"):format(object.parent, object.name, object.def)
end

function CREATE.constraint(object)
  return ("ALTER TABLE %s ADD CONSTRAINT %s %s"):format(object.parent, object.name, object.def)
end

function CREATE.index(object)
  if not object.valid then
    return nil
  end
  return (object.partitioned and object.def or object.def:gsub("^(CREATE %u*%s?INDEX) ", "%1 CONCURRENTLY ", 1))
end

CREATE["function"] = function(object)
  return (object.def:gsub("%s+$", ""))
end

function CREATE.view(object)
  local body = object.def:gsub(";%s*$", "")
  return object.materialized and ("CREATE MATERIALIZED VIEW %s AS%s"):format(object.name, body)
    or ("CREATE OR REPLACE VIEW %s AS%s"):format(object.name, body)
end

function CREATE.trigger(object)
  return object.plain and object.def or nil
end

function CREATE.policy(object)
  return ("CREATE POLICY %s ON %s %s"):format(object.name, object.parent, object.def)
end

function CREATE.privilege(object)
  return ("GRANT %s ON %s%s TO %s%s"):format(object.type, object.sequence and "SEQUENCE " or "", object.parent, object.grantee,
    object.def ~= "" and " " .. object.def or "")
end

function DROP.column(object)
  return ("ALTER TABLE %s DROP COLUMN %s"):format(object.parent, object.name)
end

function DROP.constraint(object)
  return ("ALTER TABLE %s DROP CONSTRAINT %s"):format(object.parent, object.name)
end

function DROP.index(object)
  return ("DROP INDEX %s%s"):format(object.partitioned and "" or "CONCURRENTLY ", object.name)
end

function DROP.view(object)
  return ("DROP %sVIEW %s"):format(object.materialized and "MATERIALIZED " or "", object.name)
end

DROP["function"] = function(object)
  return ("DROP %s %s"):format(object.type == "p" and "PROCEDURE" or "FUNCTION", object.name)
end

function DROP.trigger(object)
  return ("DROP TRIGGER %s ON %s"):format(object.name, object.parent)
end

function DROP.policy(object)
  return ("DROP POLICY %s ON %s"):format(object.name, object.parent)
end

function DROP.privilege(object)
  return ("REVOKE %s ON %s%s FROM %s"):format(object.type, object.sequence and "SEQUENCE " or "", object.parent, object.grantee)
end

local function drop(object)
  local how = DROP[object.kind]
  return how and how(object) or ("DROP %s %s"):format(object.kind:upper(), object.name)
end

-- ---- tables ----------------------------------------------------------------------

local function parts_of(inventory, name)
  local columns, others = {}, {}
  for _, object in ipairs(inventory.list) do
    if object.parent == name then
      table.insert(object.kind == "column" and columns or others, object)
    end
  end
  table.sort(columns, function(a, b)
    return a.number < b.number
  end)
  return columns, others
end

-- What CREATE TABLE cannot say stands behind the comma.
local function create_table(object, inventory)
  local columns, others = parts_of(inventory, object.name)
  local head, tail = object.def:match("^(%u*%s?TABLE)(.*)$")
  local clause, flags = tail:match("^([^,]*)(.*)$")
  if object.def:find("PARTITION", 1, true) then
    clause, flags = tail:gsub(", [RF]%u+ .*$", ""), tail:match(", [RF]%u+ .*$") or ""
  end
  local lines = {}
  for i, column in ipairs(columns) do
    lines[i] = ("  %s %s"):format(column.name, column.def)
  end
  local body = #lines > 0 and " (\n" .. table.concat(lines, ",\n") .. "\n)" or object.partition and "" or " ()"
  local list = { statement("table", object.partition and ("CREATE %s %s%s"):format(head, object.name, clause)
    or ("CREATE %s %s%s%s"):format(head, object.name, body, clause)) }
  for _, flag in ipairs({ "FORCE ROW LEVEL SECURITY", "ROW LEVEL SECURITY" }) do
    if flags:find(", " .. flag, 1, true) then
      list[#list + 1] = statement("policy", ("ALTER TABLE %s %s"):format(object.name,
        flag:find("FORCE", 1, true) and flag or "ENABLE " .. flag))
    end
  end
  for _, other in ipairs(others) do
    for _, one in ipairs(mend.missing(other, inventory)) do
      list[#list + 1] = one
    end
  end
  return list
end

-- ---- what differs ------------------------------------------------------------------

local function replaced(expected, found)
  return {
    { rank = RANK[rank_of(expected)] - 0.5, text = drop(found), comment = false },
    statement(rank_of(expected), CREATE[expected.kind](expected)),
  }
end

function CHANGE.extension(expected)
  return { statement("extension", ("ALTER EXTENSION %s UPDATE TO '%s'"):format(expected.name, expected.def)) }
end

function CHANGE.sequence(expected)
  return { statement("sequence", ("ALTER SEQUENCE %s %s"):format(expected.name, expected.def)) }
end

-- Labels can be added, where they belong, and never be taken away.
function CHANGE.type(expected, found)
  local has, list = {}, {}
  for _, label in ipairs(found.labels) do
    has[label] = true
  end
  for i, label in ipairs(expected.labels) do
    local before = expected.labels[i - 1]
    if not has[label] then
      local literal = "'" .. label:gsub("'", "''") .. "'"
      local place = before and ("AFTER '%s'"):format(before:gsub("'", "''"))
        or ("BEFORE '%s'"):format(found.labels[1]:gsub("'", "''"))
      list[#list + 1] = statement("type", ("ALTER TYPE %s ADD VALUE %s %s"):format(expected.name, literal, place))
    end
  end
  return list
end

function CHANGE.column(expected, found)
  local list, alter = {}, ("ALTER TABLE %s ALTER COLUMN %s "):format(expected.parent, expected.name)
  local function add(text, ...)
    list[#list + 1] = statement("column", alter .. text:format(...))
  end
  if expected.generated ~= found.generated or expected.generated and expected.expression ~= found.expression then
    return list -- there is no statement for it, short of a new column
  end
  local retyped = expected.type ~= found.type or expected.collation ~= found.collation
  if retyped and found.expression then
    add("DROP DEFAULT")
  end
  if retyped then
    add("TYPE %s%s", expected.type, expected.collation and " COLLATE " .. expected.collation or "")
  end
  if expected.identity ~= found.identity then
    add(not expected.identity and "DROP IDENTITY" or found.identity and "SET GENERATED %s" or "ADD GENERATED %s AS IDENTITY",
      expected.identity)
  end
  if expected.expression ~= found.expression or retyped and expected.expression then
    if expected.expression then
      list[#list + 1] = statement("column", alter .. "SET DEFAULT " .. expected.expression)
    elseif not retyped then
      add("DROP DEFAULT")
    end
  end
  if expected.not_null ~= found.not_null then
    add(expected.not_null and "SET NOT NULL" or "DROP NOT NULL")
  end
  return list
end

CHANGE["function"] = function(expected)
  return { statement("function", CREATE["function"](expected)) }
end

function CHANGE.view(expected, found)
  if expected.materialized or found.materialized then
    return replaced(expected, found)
  end
  return { statement("view", CREATE.view(expected)) }
end

function CHANGE.constraint(expected, found)
  return replaced(expected, found)
end

CHANGE.policy, CHANGE.privilege = CHANGE.constraint, CHANGE.constraint

function CHANGE.index(expected, found)
  return CREATE.index(expected) and replaced(expected, found) or {}
end

function CHANGE.trigger(expected, found)
  return CREATE.trigger(expected) and replaced(expected, found) or {}
end

-- ---- entry points ------------------------------------------------------------------

--- What makes an object that is missing.
-- @tparam table object as it should be
-- @tparam table inventory the one that it is in
-- @treturn {table,...} statements: `text`, `rank`, `comment` (true: it would lose something)
function mend.missing(object, inventory)
  if object.kind == "table" then
    return create_table(object, inventory)
  end
  local text = CREATE[object.kind](object)
  return text and { statement(rank_of(object), text) } or {}
end

--- What removes an object that should not be there.
-- @tparam table object
-- @treturn {table,...} statements
function mend.extra(object)
  return { { rank = REMOVAL - RANK[rank_of(object)], text = drop(object), comment = LOSES[object.kind] or false } }
end

--- What makes of an object what it should be.
-- @tparam table expected
-- @tparam table found
-- @treturn {table,...} statements; none when there is no statement for it
function mend.changed(expected, found)
  local how = CHANGE[expected.kind]
  return how and how(expected, found) or {}
end

--- A script of the statements of many differences, in an order that works.
-- @tparam {table,...} differences each with `statements`, `kind`, `name`
-- @treturn string SQL; statements that would lose something are comments
function mend.script(differences)
  local all = {}
  for _, difference in ipairs(differences) do
    for _, one in ipairs(difference.statements) do
      all[#all + 1] = { rank = one.rank, text = one.text, comment = one.comment, at = #all }
    end
    if #difference.statements == 0 then
      all[#all + 1] = { rank = REMOVAL, comment = true, at = #all, text = ("%s %s differs, and no statement mends it; it should "
        .. "be: %s"):format(difference.kind, difference.name, difference.expected or "") }
    end
  end
  table.sort(all, function(a, b)
    return a.rank < b.rank or a.rank == b.rank and a.at < b.at
  end)
  local lines = {}
  for i, one in ipairs(all) do
    lines[i] = one.comment and "-- " .. one.text:gsub("\n", "\n-- ") .. ";\n" or one.text .. ";\n"
  end
  return table.concat(lines)
end

return mend
