--- Where a move can be struck: before and after each of its commits, by the state that it is in.
-- The names are those that movers call `at` with; `spec.moves.every_spec` compares this list with a move.
-- @module spec.moves.points

local points = {}

-- What is committed in a state, in this order. `saved` is the move's own line in the catalog; the rest are transactions,
-- whose `at` is the side that they are on. What a move does twice is struck the first time, unless `nth` says more.
local COMMITS = {
  planned = {
    { "adopting", at = "source" }, { "mending", at = "source" }, { "planned.destination", at = "destination" },
    { "planned.source", at = "source" }, { "planned", saved = true },
  },
  capturing = {
    { "capturing.triggers", at = "source" }, { "capturing.keys", at = "source" }, { "capturing", at = "source" },
    { "capturing", saved = true },
  },
  copying = { { "copying", at = "destination" }, { "copying", saved = true } },
  catchup = { { "catchup", at = "destination" }, { "catchup.source", at = "source" }, { "catchup", saved = true } },
  fencing = { { "fencing", at = "source" }, { "fencing", saved = true } },
  fenced = { { "fenced", saved = true } },
  verified = { { "verified", at = "destination" }, { "verified", saved = true } },
  merged = { { "merged", at = "catalog" } },
  flipped = { { "flipped", at = "source" }, { "flipped", saved = true } },
  done = {
    { "done.destination", at = "destination" }, { "done.triggers", at = "source" }, { "done.capture", at = "source" },
    { "done.source", at = "source" }, { "flipped", saved = true, nth = 2 },
  },
}

-- An offline move closes its buckets first and copies then; it has no more states than these, and the same commits in the others.
local WHILE_CLOSED = { { "copying", at = "destination" }, { "fenced", saved = true } }

-- What giving up commits of a move that was `verified` and not merged yet.
local GIVING_UP = {
  { "aborting.destination", at = "destination" }, { "aborting", at = "source" }, { "verified", at = "catalog" },
  { "verified", saved = true }, { "done.destination", at = "destination" }, { "done.triggers", at = "source" },
  { "done.capture", at = "source" }, { "done.source", at = "source" }, { "verified", saved = true, nth = 2 },
}

--- The states, in their order; `done` is what a move does before it says so.
points.STATES = { "planned", "capturing", "copying", "catchup", "fencing", "fenced", "verified", "merged", "flipped", "done" }

--- Those of an offline move.
points.OFFLINE_STATES = { "planned", "capturing", "fencing", "fenced", "verified", "merged", "flipped", "done" }

local function name_of(commit, when)
  return ("%s:%s-%s"):format(commit[1], when, commit.saved and "saved" or "commit")
end

local function point(state, commit, when)
  return { state = state, name = name_of(commit, when), when = when, nth = commit.nth or 1,
    at = commit.saved and "catalog" or commit.at }
end

local function pair(state, commit)
  return { before = point(state, commit, "before"), after = point(state, commit, "after") }
end

--- The commits of a state.
-- @string state
-- @string[opt] strategy of the job
-- @treturn {table,...} each `before` and `after`: points, with `name`, `nth` (which time), `when`, `at` (`source`,
--   `destination`, `catalog`) and `state`
function points.commits(state, strategy)
  local list = {}
  for i, commit in ipairs(strategy == "offline" and state == "fenced" and WHILE_CLOSED or COMMITS[state]) do
    list[i] = pair(state, commit)
  end
  return list
end

--- The commits of giving a verified move up.
-- @treturn {table,...} as from `commits`
function points.giving_up()
  local list = {}
  for i, commit in ipairs(GIVING_UP) do
    list[i] = pair("verified", commit)
  end
  return list
end

--- The commit of a state that matters most.
-- @string state
-- @string[opt] strategy of the job
-- @treturn table as in `commits`
function points.main(state, strategy)
  local MAIN = { planned = 4, flipped = 1, done = 4 }
  return points.commits(state, strategy)[MAIN[state] or 1]
end

return points
