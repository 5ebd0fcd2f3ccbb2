--- A job in waves: a small part first, then a while in which the shards have to stay well, then a larger part.
-- The waves of a job lie in its options, so that whoever resumes it goes on with the wave that it was at:
--
-- - `shares`: what has moved after each wave, in percent; `list`: the numbers of each wave's moves; `passed`: waves that are over
-- - `soak`: seconds after each wave; `gate`: `error_rate`, `p99_ms`, `lag_seconds` that must not be exceeded meanwhile
-- - `reverse`: a wave that is not borne is moved back; `reversing`: the numbers of the moves that do that
-- - `state`: `moving`, `soaking`, `reversing`; `soaked`: seconds; `reading`: what was measured; `verdict`: why it was paused
--
-- Pure; `lunashard.rebalancer.gradual` does the work.
-- @module lunashard.rebalancer.waves

local errors = require("lunashard.errors")
local plan = require("lunashard.rebalancer.plan")

local waves = {}

--- For jobs that do not say otherwise.
-- @table DEFAULTS
waves.DEFAULTS = { waves = { 1, 5, 25, 100 }, soak = 60, gate = { error_rate = 0.01, p99_ms = 1000, lag_seconds = 30 } }

local UNITS = { error_rate = "%.2f %%", p99_ms = "%.0f ms", lag_seconds = "%.1f s" }
local LABELS = { error_rate = "error rate", p99_ms = "p99", lag_seconds = "replica lag" }
local GATES = { "error_rate", "p99_ms", "lag_seconds" }

local function check_shares(shares)
  local last = 0
  if type(shares) ~= "table" or #shares == 0 then
    return nil, "waves: expected a list of percentages such as { 1, 5, 25, 100 }"
  end
  for i, share in ipairs(shares) do
    if type(share) ~= "number" or share ~= share or share <= last or share > 100 then
      return nil, ("waves[%d]: expected a percentage above %g, up to 100, got %s"):format(i, last, tostring(share))
    end
    last = share
  end
  return last == 100 or nil, "waves: the last one must be 100 (percent)"
end

local function check_gate(gate)
  for name, limit in pairs(type(gate) == "table" and gate or {}) do
    if not UNITS[name] then
      local near = errors.nearest(tostring(name), UNITS)
      return nil, ("gate: unknown limit %s%s"):format(tostring(name), near and ("; did you mean %q?"):format(near)
        or "; there are error_rate, p99_ms, lag_seconds")
    elseif limit ~= false and (type(limit) ~= "number" or limit ~= limit or limit < 0) then
      return nil, ("gate: %s: expected a number, 0 or more, or false, got %s"):format(name, tostring(limit))
    end
  end
  return type(gate) == "table" or nil, "gate: expected limits such as { error_rate = 0.01, p99_ms = 250 }"
end

--- The waves that a caller asks for.
-- @tparam table given `strategy`, `waves`, `soak`, `gate`, `reverse`: see `Rebalancer:create_rebalance_job`
-- @treturn[1] ?table nil for a job without waves
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function waves.wanted(given)
  if given.strategy ~= "gradual" then
    for _, name in ipairs({ "waves", "soak", "gate", "reverse" }) do
      if given[name] ~= nil then
        return nil, ("%s goes with strategy = \"gradual\""):format(name)
      end
    end
    return nil
  end
  local wanted = { shares = given.waves or waves.DEFAULTS.waves, soak = given.soak or waves.DEFAULTS.soak, gate = {},
    reverse = given.reverse or false, passed = 0, state = "moving" }
  local ok, problem = check_shares(wanted.shares)
  if ok then
    ok, problem = check_gate(given.gate or {})
  end
  if ok and (type(wanted.soak) ~= "number" or wanted.soak ~= wanted.soak or wanted.soak < 0) then
    ok, problem = nil, ("soak: expected seconds, 0 or more, got %s"):format(tostring(wanted.soak))
  end
  if not ok then
    return nil, problem
  end
  for name, limit in pairs(waves.DEFAULTS.gate) do
    wanted.gate[name] = limit
  end
  for name, limit in pairs(given.gate or {}) do
    wanted.gate[name] = limit or nil
  end
  return wanted
end

--- Divide assignments: of every pair of shards each wave takes its share, and the first one a bucket at least.
-- @tparam {table,...} assignments
-- @tparam {number,...} shares percent, up to 100
-- @treturn {table,...} a list of assignments for each wave that has any
function waves.split(assignments, shares)
  local pairs_of, order = {}, {}
  for _, one in ipairs(assignments) do
    local name = one.bucket.owner .. "\0" .. one.destination
    local list = pairs_of[name]
    if not list then
      list = { rows = 0 }
      pairs_of[name], order[#order + 1] = list, list
    end
    list[#list + 1] = one
    list.rows = list.rows + one.bucket.rows + 1
  end
  local all = {}
  for i in ipairs(shares) do
    all[i] = {}
  end
  for _, list in ipairs(order) do
    local seen, wave, begun = 0, 1, false
    for _, one in ipairs(list) do
      -- What would lead beyond a wave's share belongs to the next one.
      seen = seen + one.bucket.rows + 1
      while begun and wave < #shares and seen > list.rows * shares[wave] / 100 do
        wave, begun = wave + 1, false
      end
      table.insert(all[wave], one)
      begun = true
    end
  end
  local filled = {}
  for _, list in ipairs(all) do
    filled[#filled + 1] = #list > 0 and list or nil
  end
  return filled
end

local function in_words(name, value)
  return UNITS[name]:format(name == "error_rate" and value * 100 or value)
end

--- Does a gate close?
-- @tparam table gate
-- @tparam table reading from `Pulse:reading`
-- @treturn ?string why
function waves.verdict(gate, reading)
  for _, name in ipairs(GATES) do
    local limit = gate[name]
    if limit and reading[name] > limit then
      return ("the %s of %s is %s, and the gate is %s"):format(LABELS[name], reading.where[name] or "a shard",
        in_words(name, reading[name]), in_words(name, limit))
    end
  end
end

--- The gates of a job, in words. Pure.
-- @tparam table told from `describe`
-- @treturn {table,...} each `label`, `limit`; `reading`: what was measured last, if anything was; `is_closed`
function waves.gates(told)
  local list = {}
  for _, name in ipairs(GATES) do
    local limit, reading = told.gate[name], told.reading and told.reading[name]
    if limit then
      list[#list + 1] = { label = LABELS[name], limit = in_words(name, limit), reading = reading and in_words(name, reading),
        is_closed = reading ~= nil and reading > limit }
    end
  end
  return list
end

--- The moves that undo a wave, and those that do it again. Pure.
-- @tparam {table,...} moves of the job
-- @tparam {number,...} seqs of the wave
-- @treturn {table,...} back
-- @treturn {table,...} again
function waves.turn(moves, seqs)
  local chosen, done, last = {}, {}, 0
  for _, seq in ipairs(seqs) do
    chosen[seq] = true
  end
  for _, move in ipairs(moves) do
    last = math.max(last, move.seq)
    if chosen[move.seq] and move.state == "done" then
      done[#done + 1] = { source = move.source, destination = move.destination, buckets = move.buckets,
        rows = move.rows_copied, bytes = move.bytes }
    end
  end
  local back, again = plan.reverse(done, last), {}
  for i, move in ipairs(done) do
    again[i] = { seq = last + #back + i, source = move.source, destination = move.destination, buckets = move.buckets,
      rows = move.rows, bytes = move.bytes }
  end
  return back, again
end

--- Waves for `get_job_status`. Pure.
-- @tparam table row from `job.read`
-- @treturn ?table `current`, `total`, `share`, `state`, `soak`, `soaked`, `reading`, `verdict`, `gate`
function waves.describe(row)
  local all = row.options.waves
  if not all then
    return nil
  end
  local current = math.min(all.passed + 1, #all.list)
  local state = all.passed >= #all.list and "passed" or all.state
  return { current = current, total = #all.list, passed = all.passed, share = all.shares[current], state = state,
    soak = all.soak, soaked = state == "soaking" and all.soaked or nil, reading = all.reading, verdict = all.verdict,
    gate = all.gate, reverse = all.reverse }
end

return waves
