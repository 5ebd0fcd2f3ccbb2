--- Takes a group's measures in rounds and turns them into rows of the table.
local errors = require("lunashard.errors")
local peers = require("peers")
local spread = require("spread")

local rounds = {}

-- Forwards in odd rounds and backwards in even ones, so that nobody always goes first.
local function in_turn(measures, round)
  local i, step = 0, 1
  if round % 2 == 0 then
    i, step = #measures + 1, -1
  end
  return function()
    i = i + step
    return measures[i]
  end
end

local function missing(ctx, group)
  local problems = {}
  for _, measure in ipairs(group.measures) do
    local ok, reason = true, nil
    if measure[3] then
      ok, reason = peers.check(ctx, measure[3])
    end
    problems[measure[1]] = not ok and { reason = reason, missing = true } or nil
  end
  return problems
end

-- figures[measure][round]; problems[measure], where one could not be taken.
local function take(ctx, group, say)
  local figures, problems = {}, missing(ctx, group)
  for round = 1, ctx.rounds do
    for measure in in_turn(group.measures, round) do
      local name = measure[1]
      if not problems[name] then
        say(("%s, round %d of %d: %s"):format(group.name, round, ctx.rounds, name))
        local ok, taken, reason = pcall(measure[2], ctx)
        if errors.is(taken, "CANCELED") then
          error(taken, 0)
        elseif not ok or not taken then
          problems[name] = { reason = tostring(not ok and taken or reason) }
        else
          figures[name] = figures[name] or {}
          figures[name][round] = taken
        end
      end
    end
  end
  return figures, problems
end

local function list(figures, which)
  local values = {}
  for round, taken in ipairs(figures[which[1]]) do
    values[round] = taken[which[2]]
  end
  return values
end

local function row_of(row, figures, problems)
  local made = {
    name = row.name,
    work = row.work,
    against = row.against,
    unit = row.unit,
    target = row.target and row.target.text,
  }
  local problem = problems[row.ours[1]]
  if problem then
    made.failed = problem.reason
    return made
  end
  local ours = list(figures, row.ours)
  made.ours = spread.of(ours)
  problem = row.peer and problems[row.peer[1]]
  if problem then
    made[problem.missing and "peer_missing" or "peer_failed"] = problem.reason
    return made
  elseif row.peer then
    local peer, ratios = list(figures, row.peer), {}
    for round, value in ipairs(ours) do
      ratios[round] = value / peer[round]
    end
    made.peer, made.ratio = spread.of(peer), spread.of(ratios)
  end
  if row.target then
    made.holds = row.target.holds(made)
  end
  return made
end

--- Measure a group. Yields.
-- @tparam table ctx
-- @tparam table group
-- @tparam func say gets lines on the progress
-- @treturn {table,...} rows: `name`, `work`, `against`, `unit`, `target`; `ours`, `peer`, `ratio` (each `median`, `min`,
--   `max`), `holds`; or `failed`, `peer_failed` or `peer_missing` with the reason
-- @treturn table the figures of every measure and round
function rounds.run(ctx, group, say)
  local figures, problems = take(ctx, group, say)
  local rows = {}
  for i, row in ipairs(group.rows) do
    rows[i] = row_of(row, figures, problems)
  end
  return rows, figures
end

return rounds
