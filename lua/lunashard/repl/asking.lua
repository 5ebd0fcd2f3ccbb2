--- Which statements are asked about before they run. Decided from the parse tree, never from the text.
-- @module lunashard.repl.asking

local asking = {}

-- Of the utility statements those that change no definitions and no rows.
local HARMLESS = {
  VacuumStmt = true, CheckPointStmt = true, NotifyStmt = true, VariableShowStmt = true, ExplainStmt = true,
  VariableSetStmt = true, ListenStmt = true, UnlistenStmt = true, PrepareStmt = true, DeallocateStmt = true,
  DeclareCursorStmt = true, FetchStmt = true, ClosePortalStmt = true, LockStmt = true, ConstraintsSetStmt = true,
  DiscardStmt = true,
}

local NAMES = { UpdateStmt = "UPDATE", DeleteStmt = "DELETE" }

-- The first UPDATE or DELETE without WHERE, also inside WITH.
local function find_unbounded(node)
  for key, child in pairs(node) do
    if NAMES[key] and not child.whereClause then
      return NAMES[key], child.relation.relname
    elseif type(child) == "table" then
      local word, name = find_unbounded(child)
      if word then
        return word, name
      end
    end
  end
end

-- EXPLAIN ANALYZE runs what it explains.
local function runs_explained(node)
  for _, option in ipairs(node.options or {}) do
    local name = option.DefElem.defname
    if name == "analyze" or name == "analyse" then
      return true
    end
  end
  return false
end

local function first_node(parsed)
  local name, node = next(parsed.ast[1].stmt)
  return name, node
end

--- Does a statement write: rows or definitions?
-- @tparam table parsed from `lunashard.sql.statement.parse`
-- @treturn boolean
function asking.writes(parsed)
  if parsed.utility == "ExplainStmt" then
    local _, node = first_node(parsed)
    return parsed.modifies and runs_explained(node)
  end
  return parsed.modifies or parsed.into or parsed.utility ~= nil and not HARMLESS[parsed.utility]
end

--- What to ask before a statement runs.
-- @tparam table parsed from `lunashard.sql.statement.parse`
-- @tparam {string,...} shards where it would run
-- @treturn ?string nil when there is nothing to ask
function asking.question(parsed, shards)
  local reasons = {}
  if not asking.writes(parsed) then
    return nil
  elseif parsed.utility == "TruncateStmt" then
    reasons[1] = "removes all rows"
  elseif parsed.utility == "DoStmt" or parsed.utility == "CallStmt" then
    reasons[1] = "runs code that may write"
  elseif parsed.utility and parsed.utility ~= "ExplainStmt" or parsed.into then
    reasons[1] = "changes definitions"
  else
    local word, name = find_unbounded(parsed.ast)
    reasons[1] = word and ("%s has no WHERE: every row of %s"):format(word, name)
  end
  if #shards > 1 then
    reasons[#reasons + 1] = ("it writes on %d shards (%s), each for itself"):format(#shards, table.concat(shards, ", "))
  end
  return #reasons > 0 and table.concat(reasons, "; ") or nil
end

return asking
