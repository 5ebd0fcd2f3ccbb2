--- What `lunashard rebalance` prints: plans and the states of jobs.
-- @module lunashard.cli.rebalance.view

local json_text = require("lunashard.json_text")
local table_text = require("lunashard.table_text")

local view = {}

local function size(bytes)
  for _, unit in ipairs({ { 2 ^ 30, "GiB" }, { 2 ^ 20, "MiB" }, { 2 ^ 10, "KiB" } }) do
    if bytes >= unit[1] then
      return ("%.1f %s"):format(bytes / unit[1], unit[2])
    end
  end
  return ("%d bytes"):format(bytes)
end

local function whole(number)
  return ("%.0f"):format(number)
end

local function duration(seconds)
  if seconds < 120 then
    return ("%.1f s"):format(seconds)
  elseif seconds < 7200 then
    return ("%.0f min"):format(seconds / 60)
  end
  return ("%.1f h"):format(seconds / 3600)
end

local function milliseconds(seconds)
  return ("%.1f ms"):format(seconds * 1000)
end

-- What an offline plan costs those who read and write.
local function downtime(made)
  if made.strategy ~= "offline" then
    return ""
  end
  return ("offline: a key is closed while its move is copied, for about %s at the most (%s added up over the moves); its "
    .. "statements wait as long as their deadline lets them\n"):format(duration(made.estimated_downtime),
    duration(made.estimated_closed))
end

local function by_way(made)
  local ways, rows = {}, {}
  for _, move in ipairs(made.moves) do
    local name = move.source .. "\0" .. move.destination
    local way = ways[name]
    if not way then
      way = { from = move.source, to = move.destination, moves = 0, buckets = 0, rows = 0, bytes = 0 }
      ways[name], rows[#rows + 1] = way, way
    end
    way.moves, way.buckets = way.moves + 1, way.buckets + #move.buckets
    way.rows, way.bytes = way.rows + move.rows, way.bytes + move.bytes
  end
  for _, way in ipairs(rows) do
    way.rows, way.bytes = whole(way.rows), size(way.bytes)
  end
  return rows
end

local function wave_rows(made)
  local rows = {}
  for i, wave in ipairs(made.waves) do
    rows[i] = { wave = wave.wave, ["of all"] = ("%g %%"):format(wave.share), moves = wave.moves, buckets = wave.buckets,
      rows = whole(wave.rows) }
  end
  return rows
end

--- A plan.
-- @tparam table made from `rebalancer:plan`
-- @treturn string
function view.plan(made)
  if #made.moves == 0 then
    return ("group %s: nothing to move by %s; every bucket is where it should be\n"):format(made.group, made.planner)
  end
  local shards = {}
  for i, one in ipairs(made.shards) do
    shards[i] = { shard = one.shard_id, buckets = one.buckets, rows = whole(one.rows), ["buckets after"] = one.buckets_after,
      ["rows after"] = whole(one.rows_after), receives = size(one.receives) }
  end
  return ("group %s, by %s: %d buckets with %s rows (%s), %.1f %% of %s rows, in %d moves, in about %s\n"):format(made.group,
    made.planner, made.buckets, whole(made.rows), size(made.bytes), made.share * 100, whole(made.total_rows), #made.moves,
    duration(made.estimated_seconds))
    .. downtime(made) .. "\n" .. table_text.render({ "from", "to", "moves", "buckets", "rows", "bytes" }, by_way(made),
      { types = { "text", "text", "int8", "int8", "int8", "text" } })
    .. (made.waves and "\n" .. table_text.render({ "wave", "of all", "moves", "buckets", "rows" }, wave_rows(made),
      { types = { "int8", "text", "int8", "int8", "int8" } }) or "")
    .. "\n" .. table_text.render({ "shard", "buckets", "rows", "buckets after", "rows after", "receives" },
      shards, { types = { "text", "int8", "int8", "int8", "int8", "text" } })
end

local function states(told)
  local parts = {}
  for _, name in ipairs({ "planned", "capturing", "copying", "catchup", "fencing", "fenced", "verified", "merged", "flipped",
    "done", "aborted" }) do
    if told.moves[name] then
      parts[#parts + 1] = ("%d %s"):format(told.moves[name], name)
    end
  end
  return table.concat(parts, ", ")
end

--- A job's state in a line.
-- @tparam table told from `rebalancer:get_job_status`
-- @treturn string
function view.line(told)
  local parts = { ("job %d: %s%s, %.1f %%, %d of %d moves, %s rows"):format(told.job_id, told.status,
    told.interrupted and " (interrupted: nobody runs it)" or "", told.progress_percent, told.moves_done, told.moves_total,
    whole(told.rows_copied)) }
  if told.rate and told.status == "running" then
    parts[#parts + 1] = ("%.0f rows/s"):format(told.rate)
  end
  if told.eta then
    parts[#parts + 1] = duration(told.eta) .. " left"
  end
  if told.last_pause then
    parts[#parts + 1] = "last cutover " .. milliseconds(told.last_pause)
  end
  return table.concat(parts, ", ")
end

local function wave_of(waves)
  local text = ("%d of %d (%g %%), %s"):format(waves.current, waves.total, waves.share, waves.state)
  if waves.soaked then
    text = ("%s for %.0f of %g s"):format(text, waves.soaked, waves.soak)
  end
  local reading = waves.reading
  if reading then
    text = ("%s: error rate %.2f %%, p99 %.0f ms, lag %.1f s"):format(text, reading.error_rate * 100, reading.p99_ms,
      reading.lag_seconds)
  end
  return text
end

--- A job's state.
-- @tparam table told
-- @treturn string
function view.status(told)
  local lines = { view.line(told) }
  local function add(name, text)
    lines[#lines + 1] = ("  %-10s %s"):format(name, text)
  end
  add("group", ("%s, by %s, %s%s"):format(told.group, told.planner, told.strategy, told.rolling_back and ", rolling back" or ""))
  add("rows", ("%s of %s moved"):format(whole(told.total_migrated), whole(told.total_rows)))
  add("moves", states(told))
  if told.waves then
    add("wave", wave_of(told.waves))
  end
  if told.duration_seconds > 0 then
    add("duration", duration(told.duration_seconds))
  end
  if told.last_pause then
    add("pauses", ("last %s, longest %s"):format(milliseconds(told.last_pause), milliseconds(told.longest_pause)))
  end
  if told.downtime_seconds and told.longest_pause then
    add("downtime", ("%s at the most for a key, %s added up over the moves"):format(duration(told.longest_pause),
      duration(told.downtime_seconds)))
  end
  if told.backlog and told.backlog > 0 then
    add("backlog", ("%d changes are yet to be applied"):format(told.backlog))
  end
  for _, move in ipairs(told.active) do
    add("move " .. move.seq, ("%s to %s, %s: %s of %s rows"):format(move.source, move.destination, move.state,
      whole(move.rows_copied), whole(move.rows_estimated)))
  end
  for _, fence in ipairs(told.fences or {}) do
    add("fence", ("move %d on %s has closed its buckets for %.1f s"):format(fence.seq, fence.shard_id, fence.seconds))
  end
  if told.error_message then
    add("error", told.error_message)
  end
  return table.concat(lines, "\n") .. "\n"
end

--- For JSON: without what would be long and says little.
-- @tparam table told from `get_job_status` or `plan`
-- @treturn table
function view.json(told)
  local copy = {}
  for name, value in pairs(told) do
    if name == "active" then
      copy.active = json_text.list()
      for i, move in ipairs(value) do
        copy.active[i] = { seq = move.seq, source = move.source, destination = move.destination, state = move.state,
          rows_copied = move.rows_copied, rows_estimated = move.rows_estimated, buckets = #move.buckets }
      end
    elseif name ~= "plan" and name ~= "options" and name ~= "tables" and name ~= "gradual" and name ~= "giant_limit" then
      copy[name] = value
    end
  end
  if not told.job_id then -- of a job these are numbers by state
    json_text.lists(copy, "moves")
  end
  return json_text.lists(copy, "shards", "giants", "warnings", "fences")
end

return view
