--- What stands in a job's way, as it is told.
-- @module lunashard.rebalancer.preflight.problems
-- @local

local errors = require("lunashard.errors")

local problems = {}

--- A problem as a line.
-- @tparam table problem `shard_id`, `table`, `message`
-- @treturn string
function problems.line(problem)
  return problem.shard_id .. ": " .. (problem.table and problem.table .. " " or "") .. problem.message
end

--- The error that tells all of them.
-- @tparam {table,...} list at least one
-- @treturn lunashard.error `INVALID` with `problems`
function problems.refusal(list)
  local first = list[1]
  return errors.new("INVALID", {
    message = ("%s%s"):format(problems.line(first), #list > 1 and (" (and %d more)"):format(#list - 1) or ""),
    shard_id = first.shard_id,
    problems = list,
  })
end

return problems
