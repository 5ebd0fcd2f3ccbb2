--- Comparing the rows of a move on both sides.
-- A look that fails is a failure, never "no rows".
-- @module lunashard.rebalancer.verify
-- @local

local copy = require("lunashard.rebalancer.copy")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local task = require("lunashard.task")

local verify = {}

local function ask(one, texts, deadline)
  local list = {}
  for i, text in ipairs(texts) do
    local found, err = one:execute(text, nil, { deadline = deadline })
    if not found then
      return nil, err
    end
    list[i] = found.rows[1]
  end
  return list
end

--- The error for rows that differ.
-- @tparam table one the table
-- @string where which of the looks
-- @tparam table expected `rows`, `checksum`
-- @tparam table found
-- @treturn lunashard.error
function verify.difference(one, where, expected, found)
  return errors.new("INVALID", { gives_up = true, keeps_evidence = true, message =
    ("table %s: %s there are %d rows (checksum %s) where %d (%s) were expected"):format(one.name, where, found.rows,
    found.checksum, expected.rows, expected.checksum) })
end

--- Count and hash the rows of all tables on both sides at once. Yields.
-- @tparam table context
-- @tparam table sides
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam number deadline
-- @treturn[1] {table,...} `rows` and `checksum` of each table
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with `gives_up` when they differ
function verify.run(context, sides, row, tables, deadline)
  local here, there = {}, {}
  for i, one in ipairs(tables) do
    here[i] = names.checksum(("(SELECT %s AS h %s) AS m"):format(names.hash("t", one.columns),
      copy.listed(context, row, one)))
    there[i] = names.checksum(("(SELECT %s AS h FROM %s AS t) AS m"):format(names.hash("t", one.columns),
      names.staging(row, one.n)))
  end
  local looks, err = task.gather({
    function()
      return { ask(sides.source, here, deadline) }
    end,
    function()
      return { ask(sides.destination, there, deadline) }
    end,
  })
  local expected, found
  if looks then
    expected, err = looks[1][1], looks[1][2]
    found, err = looks[2][1], err or looks[2][2]
  end
  if not expected or not found then
    return nil, err
  end
  for i, one in ipairs(tables) do
    if expected[i].checksum ~= found[i].checksum then
      return nil, verify.difference(one, ("staged on %s"):format(row.destination), expected[i], found[i])
    end
  end
  return expected
end

return verify
