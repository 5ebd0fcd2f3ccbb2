--- Foreign keys that lead from a table back to itself by way of others.
-- No order of the tables suits them: rows could neither arrive nor leave one table after the other, unless one of the keys
-- waits for the end of the transaction.
-- @module lunashard.rebalancer.preflight.circle
-- @local

local statement = require("lunashard.router.statement")

local circle = {}

-- Depth first; `path` has the keys that led to the table.
local function visit(tables, name, path, state)
  state[name] = "open"
  for _, key in ipairs(tables[name] and tables[name].refers or {}) do
    path[#path + 1] = { table = name, key = key.name, to = key.to }
    if state[key.to] == "open" then
      local first = #path
      while path[first].table ~= key.to do
        first = first - 1
      end
      return { unpack(path, first) }
    end
    local found = not state[key.to] and visit(tables, key.to, path, state)
    if found then
      return found
    end
    path[#path] = nil
  end
  state[name] = "closed"
end

--- Look for one. Pure.
-- @tparam table tables name -> facts of a table, with `refers`: a list of `name` (the foreign key's) and `to`, of those keys that
--   cannot wait
-- @tparam {string,...} names of the tables
-- @treturn ?{table,...} the keys of a circle, each `table`, `key`, `to`; nil when there is none
function circle.find(tables, names)
  local state = {}
  for _, name in ipairs(names) do
    local found = not state[name] and visit(tables, name, {}, state)
    if found then
      return found
    end
  end
end

--- What is wrong with it, and what to do.
-- @tparam {table,...} found from `find`
-- @treturn string
function circle.message(found)
  local parts = {}
  for i, one in ipairs(found) do
    parts[i] = ("%s of %s to %s"):format(one.key, one.table, one.to)
  end
  return ("has foreign keys that go round in a circle: %s; one of them has to wait for the end of a transaction, and to do "
    .. "nothing ON DELETE: ALTER TABLE %s ALTER CONSTRAINT %s DEFERRABLE"):format(table.concat(parts, ", "),
    statement.quote_table(found[1].table), statement.quote_ident(found[1].key))
end

return circle
