--- Sequences of a group's tables: those of the destination must not give numbers that came with the rows.
-- @module lunashard.rebalancer.sequences
-- @local

local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")

local sequences = {}

local RAISE = "SELECT setval(%s::regclass, %s, %s) FROM %s WHERE last_value %s %s"

-- The sequences of both sides, in pairs.
local function pairs_of(tables, others)
  local list = {}
  for i, one in ipairs(tables) do
    for j, sequence in ipairs(one.sequences) do
      local other = others[i].sequences[j]
      list[#list + 1] = other and { from = sequence, into = other } or nil
    end
  end
  return list
end

--- Move the destination's sequences on to where the source's are, unless they are there. Yields.
-- @tparam table sides
-- @tparam {table,...} tables of the source
-- @tparam {table,...} others those of the destination, in the same order
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function sequences.raise(sides, tables, others)
  local list, questions = pairs_of(tables, others), {}
  if #list == 0 then
    return true
  end
  for i, pair in ipairs(list) do
    questions[i] = ("SELECT %d AS i, last_value::text AS value, is_called FROM %s"):format(i, pair.from.name)
  end
  local found, err = sides.source:execute(table.concat(questions, " UNION ALL "), nil, { deadline = session.soon() })
  if not found then
    return nil, err
  end
  local texts = {}
  for _, at in ipairs(found.rows) do
    local into = list[at.i].into
    if at.is_called then
      texts[#texts + 1] = RAISE:format(names.literal(into.name), at.value, at.is_called, into.name,
        into.rises and "<" or ">", at.value)
    end
  end
  if #texts == 0 then
    return true
  end
  return sides.destination:execute(table.concat(texts, "; "), nil, { simple = true, deadline = session.soon() })
end

return sequences
