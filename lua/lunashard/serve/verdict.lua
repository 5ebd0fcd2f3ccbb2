--- How a cluster is, in one sentence: what is broken first.
-- @module lunashard.serve.verdict

local verdict = {}

local LIST_UP_TO = 3 -- names in a sentence

local function plural(n, noun)
  return ("%d %s%s"):format(n, noun, n == 1 and "" or "s")
end

-- "a", "a and b", "a, b and 3 others"
local function names(list)
  if #list == 1 then
    return list[1]
  end
  local said = {}
  local n = #list <= LIST_UP_TO and #list - 1 or LIST_UP_TO - 1
  for i = 1, n do
    said[i] = list[i]
  end
  local last = #list <= LIST_UP_TO and list[#list] or ("%d others"):format(#list - n)
  return ("%s and %s"):format(table.concat(said, ", "), last)
end

-- "shards a and b"; but not "shard shard1".
local function subject(list, noun)
  if list[1]:lower():sub(1, #noun) == noun:lower() then
    return names(list)
  end
  return ("%s%s %s"):format(noun, #list == 1 and "" or "s", names(list))
end

-- The shards that take no statements, those that take no writes, replicas that are of no use, and what is slow.
local function sort_out(status)
  local found = { down = {}, refusing = {}, replicas = {}, degraded = {}, unknown = {}, crowded = {} }
  local function note(kind, name)
    table.insert(found[kind], name)
  end
  for _, id in ipairs(status.shard_ids) do
    local shard = status.shards[id]
    if shard.health.status == "unchecked" then
      note("unknown", id)
    elseif not shard.health.is_healthy then
      note("down", id)
    elseif shard.write_refusal then
      note("refusing", id)
    elseif shard.health.status == "degraded" then
      note("degraded", id)
    end
    local crowded = false
    for _, endpoint in ipairs(shard.endpoints) do
      local behind = endpoint.fenced or not endpoint.is_healthy and endpoint.status ~= "unchecked"
      if endpoint.endpoint ~= shard.primary and behind then
        note("replicas", endpoint.endpoint)
      end
      local pool = endpoint.pool
      crowded = crowded or pool and pool.waiting > 0 and pool.used >= pool.max_size
    end
    if crowded then
      note("crowded", id)
    end
  end
  return found
end

local function failing_jobs(status)
  local list = {}
  for _, job in ipairs(status.jobs) do
    if job.failures_in_a_row > 0 then
      list[#list + 1] = job.name
    end
  end
  return list
end

local function troubled_plugins(status)
  local list = {}
  for _, plugin in ipairs(status.plugins) do
    if plugin.problem or plugin.state ~= "active" then
      list[#list + 1] = plugin.name or plugin.path
    end
  end
  return list
end

local function lagging(status)
  local list, seen = {}, {}
  for _, alert in ipairs(status.alerts) do
    if alert.kind == "lag" and not seen[alert.shard_id] then
      seen[alert.shard_id] = true
      list[#list + 1] = alert.shard_id
    end
  end
  return list
end

local function bad(found, status)
  if #found.down > 0 then
    local left = status.total_shards - #found.down
    return ("%s %s down; %s."):format(subject(found.down, "Shard"), #found.down == 1 and "is" or "are",
      left == 0 and "no shard answers" or ("%d of %s %s"):format(left, plural(status.total_shards, "shard"),
      left == 1 and "answers" or "answer"))
  elseif #found.refusing > 0 then
    return ("%s %s no writes; all shards can be read."):format(subject(found.refusing, "Shard"),
      #found.refusing == 1 and "takes" or "take")
  end
end

local function warnings(found, status)
  local all = {}
  local function add(list, noun, one, many)
    if #list > 0 then
      all[#all + 1] = (#list > 1 and many or one):format(subject(list, noun))
    end
  end
  add(found.degraded, "shard", "%s is degraded", "%s are degraded")
  add(found.replicas, "replica", "%s is of no use", "%s are of no use")
  add(lagging(status), "shard", "a replica of %s is too far behind to be read", "replicas of %s are too far behind to be read")
  add(found.crowded, "shard", "statements wait for a connection to %s", "statements wait for connections to %s")
  add(troubled_plugins(status), "plug-in", "%s does not serve as written", "%s do not serve as written")
  add(failing_jobs(status), "job", "%s fails", "%s fail")
  add(found.unknown, "shard", "%s is not looked at yet", "%s are not looked at yet")
  return all
end

local function all_well(status)
  local replicas = 0
  for _, id in ipairs(status.shard_ids) do
    replicas = replicas + #status.shards[id].endpoints - 1
  end
  local what = plural(status.total_shards, "shard") .. (replicas > 0 and " and " .. plural(replicas, "replica") or "")
  if status.total_shards + replicas == 1 then
    return "The only shard is healthy."
  end
  return ("All is well: %s, all healthy."):format(what)
end

--- Say it.
-- The sentence holds nothing that changes from second to second, so that it can be read aloud when it changes.
-- @tparam table status as `lunashard.serve.status` reads it
-- @treturn table `level` (`ok`, `warn`, `bad`), `sentence`
function verdict.of(status)
  local found = sort_out(status)
  local sentence = bad(found, status)
  if sentence then
    return { level = "bad", sentence = sentence }
  end
  local all = warnings(found, status)
  if #all > 0 then
    local first = all[1]:gsub("^%l", string.upper)
    return { level = "warn", sentence = ("%s%s."):format(first, #all > 1 and (", and %d more"):format(#all - 1) or "") }
  end
  return { level = "ok", sentence = all_well(status) }
end

return verdict
