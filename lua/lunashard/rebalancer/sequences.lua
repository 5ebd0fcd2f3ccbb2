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

--- Where the source's sequences are. Queries as `fence.close` takes them.
-- @tparam {table,...} tables of the source
-- @tparam {table,...} others those of the destination, in the same order
-- @treturn {string,...}
function sequences.questions(tables, others)
  local list = {}
  for i, pair in ipairs(pairs_of(tables, others)) do
    list[i] = ("SELECT %d AS i, ARRAY[last_value::text, is_called::text] AS key, NULL::text AS line, NULL::bigint AS h FROM %s")
      :format(-i, pair.from.name)
  end
  return list
end

--- Statements that move the destination's sequences on to there, unless they are beyond. Pure.
-- @tparam {table,...} tables of the source
-- @tparam {table,...} others those of the destination, in the same order
-- @tparam {table,...} rows answers to the questions; others are passed over
-- @treturn {string,...}
function sequences.raising(tables, others, rows)
  local list, texts = pairs_of(tables, others), {}
  for _, at in ipairs(rows) do
    local pair = list[-at.i]
    if pair and at.key[2] == "true" then
      local value, into = at.key[1], pair.into
      texts[#texts + 1] = RAISE:format(names.literal(into.name), value, "true", into.name, into.rises and "<" or ">", value)
    end
  end
  return texts
end

--- Move the destination's sequences on to where the source's are. Yields.
-- @tparam table sides
-- @tparam {table,...} tables of the source
-- @tparam {table,...} others those of the destination, in the same order
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function sequences.raise(sides, tables, others)
  local questions = sequences.questions(tables, others)
  if #questions == 0 then
    return true
  end
  local found, err = sides.source:execute(table.concat(questions, " UNION ALL "), nil, { deadline = session.soon() })
  if not found then
    return nil, err
  end
  local texts = sequences.raising(tables, others, found.rows)
  if #texts == 0 then
    return true
  end
  found, err = sides.destination:execute(table.concat(texts, "; "), nil, { simple = true, deadline = session.soon() })
  return found and true, err
end

return sequences
