--- What a statement of a schema script is like: whether a transaction can hold it, and what it destroys.
-- @module lunashard.schema.traits

local traits = {}

-- These never run inside a transaction.
local OUTSIDE = {
  CreatedbStmt = true, DropdbStmt = true, CreateTableSpaceStmt = true, DropTableSpaceStmt = true, AlterSystemStmt = true,
  CreateSubscriptionStmt = true, DropSubscriptionStmt = true, AlterSubscriptionStmt = true,
}

local WHOLE = { REINDEX_OBJECT_SCHEMA = true, REINDEX_OBJECT_SYSTEM = true, REINDEX_OBJECT_DATABASE = true }

local KINDS = {
  OBJECT_TABLE = "table", OBJECT_SCHEMA = "schema", OBJECT_SEQUENCE = "sequence", OBJECT_MATVIEW = "materialized view",
  OBJECT_TYPE = "type", OBJECT_DOMAIN = "domain", OBJECT_EXTENSION = "extension", OBJECT_FOREIGN_TABLE = "foreign table",
}

-- The names in a node's list of strings, `a.b`.
local function name_of(parts)
  local names = {}
  for i, part in ipairs(parts) do
    names[i] = part.String and part.String.sval or "?"
  end
  return table.concat(names, ".")
end

local function relation_name(relation)
  return (relation.schemaname and relation.schemaname .. "." or "") .. relation.relname
end

local function has_option(list, wanted)
  for _, entry in ipairs(list or {}) do
    if entry.DefElem and entry.DefElem.defname == wanted then
      return true
    end
  end
  return false
end

local function calls_set_config(parsed)
  for _, called in ipairs(parsed.functions) do
    if called.name == "set_config" then
      return true
    end
  end
  return false
end

local function refused(why)
  return nil, why
end

local EXAMINE = {}

function EXAMINE.TransactionStmt()
  return refused("transactions are begun and ended by the run itself: leave BEGIN, COMMIT and ROLLBACK out")
end

function EXAMINE.CopyStmt(stmt)
  if not stmt.filename and not stmt.is_program then
    return refused("COPY from or to the client has no place in a schema script: use router:copy_in, or INSERT")
  end
  return {}
end

-- Of a name made up by the server nobody could tell later whose it is.
function EXAMINE.IndexStmt(stmt)
  if not stmt.concurrent then
    return {}
  elseif not stmt.idxname then
    return refused("give the index of CREATE INDEX CONCURRENTLY a name, so that one whose build failed can be removed")
  end
  return { outside = true, index = { schema = stmt.relation.schemaname, table = stmt.relation.relname, name = stmt.idxname } }
end

function EXAMINE.DropStmt(stmt)
  local kind, names = KINDS[stmt.removeType], {}
  for i, object in ipairs(stmt.objects or {}) do
    local list = object.List and object.List.items or object.TypeName and object.TypeName.names or { object }
    names[i] = name_of(list)
  end
  return { outside = stmt.concurrent, destroys = kind and ("%s %s"):format(kind, table.concat(names, ", ")) or nil }
end

function EXAMINE.ReindexStmt(stmt)
  return { outside = WHOLE[stmt.kind] or has_option(stmt.params, "concurrently") }
end

function EXAMINE.VacuumStmt(stmt)
  return { outside = stmt.is_vacuumcmd }
end

function EXAMINE.ClusterStmt(stmt)
  return { outside = stmt.relation == nil }
end

-- A value that was added to an enum cannot be used in the same transaction.
function EXAMINE.AlterEnumStmt()
  return { ends_step = true }
end

function EXAMINE.TruncateStmt(stmt)
  local names = {}
  for i, relation in ipairs(stmt.relations) do
    names[i] = relation_name(relation.RangeVar)
  end
  return { destroys = "all rows of " .. table.concat(names, ", ") }
end

function EXAMINE.AlterTableStmt(stmt)
  local found = {}
  for _, entry in ipairs(stmt.cmds or {}) do
    local cmd = entry.AlterTableCmd or {}
    local partition = cmd.def and cmd.def.PartitionCmd
    if cmd.subtype == "AT_DropColumn" then
      found.destroys = ("column %s of %s"):format(cmd.name, relation_name(stmt.relation))
    elseif cmd.subtype == "AT_DetachPartition" and partition and partition.concurrent then
      found.outside = true
    end
  end
  return found
end

function EXAMINE.DeleteStmt(stmt)
  return { destroys = not stmt.whereClause and "all rows of " .. relation_name(stmt.relation) or nil }
end

function EXAMINE.UpdateStmt(stmt)
  return { destroys = not stmt.whereClause and "what is in every row of " .. relation_name(stmt.relation) or nil }
end

function EXAMINE.DropOwnedStmt()
  return { destroys = "all that a role owns" }
end

function EXAMINE.VariableSetStmt(stmt)
  return { setting = not stmt.is_local }
end

function EXAMINE.SelectStmt(_, parsed)
  return { setting = calls_set_config(parsed) }
end

--- Look at a statement.
-- @tparam ?table tree its parse tree; nil when it is too long for the parser
-- @tparam ?table parsed what `lunashard.sql.statement.parse` gave
-- @treturn[1] table `transactional`, `ends_step`, `setting`, `destroys`, `index` (of CREATE INDEX CONCURRENTLY: `schema`,
--   `table`, `name`)
-- @treturn[2] nil
-- @treturn[2] string why it cannot be part of a script
function traits.of(tree, parsed)
  local node = tree and next(tree)
  local examine = EXAMINE[node]
  local found, why
  if examine then
    found, why = examine(tree[node], parsed)
    if not found then
      return nil, why
    end
  end
  found = found or {}
  found.transactional = not (OUTSIDE[node] or found.outside)
  found.outside = nil
  found.destroys = node == "DropdbStmt" and "database " .. tree[node].dbname or found.destroys
  return found
end

return traits
