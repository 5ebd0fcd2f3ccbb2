-- A mover is struck before and after each of its commits; another one completes the job, cancels it, or brings back what it
-- has moved. Writers work all the while, and everything is compared with what they were told.
-- `make test` has one case for each state and outcome, with another kind of fault in turn; `make test-moves` has all.
local points = require("spec.moves.points")
local strike = require("spec.moves.strike")
local worlds = require("spec.moves.world")

local OUTCOMES = { "resume", "cancel", "rollback" }
local SAID = { resume = "completed", cancel = "cancelled", rollback = "brought back" }

describe("a move that is struck", function()
  local world

  setup(function()
    world = worlds.open()
  end)

  teardown(function()
    world:close()
  end)

  after_each(function()
    world:clean_up()
  end)

  -- What the job is in the end, and whose the buckets are then.
  local function settle(outcome, id)
    local committed, status = world:is_committed(), world:status(id)
    local operator = world.operator
    if outcome == "rollback" then
      assert(operator:rollback_job(id))
      return "rolled_back", world.source
    elseif status == "completed" then -- the mover has helped itself
      assert.is_nil((operator[outcome .. "_job"](operator, id)))
      return "completed", world.destination
    end
    assert(operator[outcome .. "_job"](operator, id))
    if outcome == "cancel" then
      return "cancelled", committed and world.destination or world.source
    end
    return "completed", world.destination
  end

  local function try(kind, point, outcome, strategy)
    world:begin()
    local id = world:new_job(1, strategy)
    local wake = strike.run(kind, world, id, point, outcome ~= "resume")
    local status, owner = settle(outcome, id)
    if wake then
      wake()
    end
    assert.equal(status, world:status(id))
    assert.same({}, world:check(owner))
  end

  local function declare(kind, point, outcome, tag, strategy)
    it(("by %s at %s%s%s is %s%s"):format(kind, point.name, point.nth > 1 and (" for the %d. time"):format(point.nth) or "",
      strategy and (", %s,"):format(strategy) or "", SAID[outcome], tag), function()
      try(kind, point, outcome, strategy)
    end)
  end

  -- Which kind a state is struck with before a certain outcome, when there is one case for each.
  local short = {}
  for i, state in ipairs(points.STATES) do
    for j, outcome in ipairs(OUTCOMES) do
      local commit, kind = points.main(state), strike.KINDS[(i + j * 2) % #strike.KINDS + 1]
      local point = (kind:find("lost") or (i + j) % 2 == 0) and commit.before or commit.after
      declare(kind, point, outcome, "")
      short[kind .. point.name .. point.nth .. outcome] = true
    end
  end

  -- An offline move in each of its states; `make test` has it struck with its buckets closed, before each outcome.
  for i, state in ipairs(points.OFFLINE_STATES) do
    for j, outcome in ipairs(OUTCOMES) do
      for k, kind in ipairs(strike.KINDS) do
        local commit = points.main(state, "offline")
        local point = (kind:find("lost") or (i + j) % 2 == 0) and commit.before or commit.after
        declare(kind, point, outcome, state == "fenced" and k == j * 2 - 1 and "" or " #long", "offline")
      end
    end
  end

  -- It is cancelled, and that fails at a point in its turn.
  local function declare_giving_up(point, outcome, tag)
    it(("and given up, which fails at %s%s, is %s%s"):format(point.name, point.nth > 1 and " for the 2. time" or "",
      SAID[outcome], tag), function()
      world:begin()
      local id = world:new_job()
      strike.run("error", world, id, points.main("verified").before)
      strike.fail("cancel_job", world, id, point)
      local status, owner = settle(outcome, id)
      assert.equal(status, world:status(id))
      assert.same({}, world:check(owner))
    end)
  end

  for i, commit in ipairs(points.giving_up()) do
    for j, outcome in ipairs(OUTCOMES) do
      declare_giving_up(commit.before, outcome, i == j * 3 - 1 and "" or " #long")
      declare_giving_up(commit.after, outcome, " #long")
    end
  end

  for _, state in ipairs(points.STATES) do
    for _, commit in ipairs(points.commits(state)) do
      for _, kind in ipairs(strike.KINDS) do
        for _, point in ipairs(kind:find("lost") and { commit.before } or { commit.before, commit.after }) do
          for _, outcome in ipairs(OUTCOMES) do
            if not short[kind .. point.name .. point.nth .. outcome] then
              declare(kind, point, outcome, " #long")
            end
          end
        end
      end
    end
  end
end)
