--- What became of a run on each shard, and the exit code that follows from it.
-- @module lunashard.script.summary

local errors = require("lunashard.errors")

local summary = {}

local Summary = {}
Summary.__index = Summary

--- The words for a shard, in the order in which they are told.
-- @table STATES
summary.STATES = { "ok", "changed", "failed", "unreachable", "skipped" }

local KNOWN = {}
for _, state in ipairs(summary.STATES) do
  KNOWN[state] = true
end

--- An empty summary.
-- @treturn Summary
function summary.new()
  return setmetatable({ shards = {}, by_id = {} }, Summary)
end

local UNREACHABLE = { SHARD_DOWN = true, AUTH = true, POOL_EXHAUSTED = true }

--- The word for an error: `unreachable` when there was no talking to the server at all.
-- @param err
-- @treturn string
function summary.state_of(err)
  return errors.is(err) and UNREACHABLE[err.code] and "unreachable" or "failed"
end

--- Note how a shard fared. The worse of two words about one shard stays.
-- @string shard_id
-- @string state one of `STATES`
-- @param[opt] detail a text, or a table of what there is to say
-- @param[opt] err
-- @treturn table the entry
function Summary:add(shard_id, state, detail, err)
  if not KNOWN[state] then
    error(("summary: %s: expected one of %s, got %s"):format(shard_id, table.concat(summary.STATES, ", "),
      tostring(state)), 2)
  end
  local entry = self.by_id[shard_id]
  if not entry then
    entry = { shard_id = shard_id, state = state }
    self.by_id[shard_id] = entry
    self.shards[#self.shards + 1] = entry
  end
  local failed = entry.state == "failed" or entry.state == "unreachable"
  if not failed and (state ~= "ok" or entry.state == "skipped") then
    entry.state = state
  end
  entry.detail = detail ~= nil and detail or entry.detail
  entry.error = entry.error or err
  return entry
end

--- Bring the shards into the cluster's order.
-- @tparam {table,...} shards each with `shard_id`
function Summary:sort(shards)
  local place = {}
  for i, shard in ipairs(shards) do
    place[shard.shard_id] = i
  end
  table.sort(self.shards, function(a, b)
    return (place[a.shard_id] or 0) < (place[b.shard_id] or 0)
  end)
end

--- How many shards for each word.
-- @treturn table with every word of `STATES`
function Summary:counts()
  local counts = {}
  for _, state in ipairs(summary.STATES) do
    counts[state] = 0
  end
  for _, entry in ipairs(self.shards) do
    counts[entry.state] = counts[entry.state] + 1
  end
  return counts
end

--- The exit code: 0, 4 when some of the shards failed, 1 when none did well.
-- @treturn number
function Summary:exit_code()
  local counts = self:counts()
  if counts.failed + counts.unreachable == 0 then
    return 0
  end
  return counts.ok + counts.changed > 0 and 4 or 1
end

--- For people: `2 shards ok, 1 unreachable`.
-- @treturn string
function Summary:text()
  local counts, parts = self:counts(), {}
  for _, state in ipairs(summary.STATES) do
    local n = counts[state]
    if n > 0 then
      parts[#parts + 1] = ("%d%s %s"):format(n, #parts == 0 and (n == 1 and " shard" or " shards") or "", state)
    end
  end
  return table.concat(parts, ", ")
end

--- A line for each shard that did not do well.
-- @treturn {string,...}
function Summary:problems()
  local lines = {}
  for _, entry in ipairs(self.shards) do
    if entry.error ~= nil then
      local err = entry.error
      lines[#lines + 1] = ("%s %s: %s%s"):format(entry.shard_id, entry.state, tostring(err),
        errors.is(err) and err.hint and "; " .. err.hint or "")
    elseif not entry.is_told and (entry.state == "failed" or entry.state == "skipped") then
      lines[#lines + 1] = ("%s %s%s"):format(entry.shard_id, entry.state,
        type(entry.detail) == "string" and ": " .. entry.detail or "")
    end
  end
  return lines
end

return summary
