--- The lower part of the page: what takes the time, plug-ins, jobs, events, the runtime itself.
-- @module lunashard.serve.page.lists

local chart = require("lunashard.serve.page.chart")
local html = require("lunashard.serve.page.html")
local icons = require("lunashard.serve.page.icons")
local words = require("lunashard.serve.page.words")

local lists = {}

local fill = html.fill

local PLUGIN_LEVELS = { active = "ok", tripped = "bad", failed = "bad", failing = "warn", missing = "warn" }
local OUTCOME_LEVELS = { ok = "ok", failed = "bad", timeout = "bad", cancelled = "warn" }
local DAY = 86400

local function clock(time, now)
  return fill('<time datetime="%s">%s</time>', os.date("!%Y-%m-%dT%H:%M:%SZ", time),
    os.date(now - time < DAY and "%H:%M:%S" or "%d %b %H:%M", time))
end

--- Plug-ins and their generations; nil when there are none.
-- @tparam table status
-- @treturn ?Fragment
function lists.plugins(status)
  local rows = {}
  for i, plugin in ipairs(status.plugins) do
    local level = plugin.problem and plugin.state == "active" and "warn" or PLUGIN_LEVELS[plugin.state] or "warn"
    rows[i] = fill('<tr><th scope="row"><bdi>%s</bdi>%s</th><td class="minor">%s</td><td>%s</td><td class="num">%s</td>'
      .. '<td class="num">%s</td></tr>',
      plugin.name or plugin.path, plugin.trusted and fill(" <small>trusted</small>") or nil, plugin.kind or "–",
      icons.state(level, plugin.problem and plugin.state == "active" and "older version" or plugin.state),
      plugin.generation or "–", plugin.failures or "–")
  end
  return #rows > 0 and fill('<table><thead><tr><th scope="col">Plug-in</th><th scope="col" class="minor">Kind</th>'
    .. '<th scope="col">State</th><th scope="col" class="num">Generation</th><th scope="col" class="num">Failures</th>'
    .. "</tr></thead><tbody>%s</tbody></table>", rows) or nil
end

local function job_state(job)
  if job.state == "running" then
    return icons.state("idle", "running")
  elseif not job.outcome then
    return icons.state("idle", "not run yet")
  end
  return icons.state(OUTCOME_LEVELS[job.outcome] or "warn", job.outcome)
end

--- Background jobs; nil when there are none.
-- @tparam table status
-- @treturn ?Fragment
function lists.jobs(status)
  local rows = {}
  for i, job in ipairs(status.jobs) do
    rows[i] = fill('<tr><th scope="row"><bdi>%s</bdi></th><td>%s</td><td class="num minor">%s</td>'
      .. '<td class="num">%s</td><td class="num">%s</td><td class="num">%s</td></tr>',
      job.name, job_state(job), words.duration(job.every),
      job.last_duration and words.latency(job.last_duration) or "–", job.runs, job.failures)
  end
  return #rows > 0 and fill('<table><thead><tr><th scope="col">Job</th><th scope="col">State</th>'
    .. '<th scope="col" class="num minor">Every</th><th scope="col" class="num">Took</th><th scope="col" class="num">Runs</th>'
    .. '<th scope="col" class="num">Failures</th></tr></thead>'
    .. "<tbody>%s</tbody></table>", rows) or nil
end

local LONGEST = 500 -- bytes of a statement

-- Two lines of it; all that is kept is shown when it is pointed at.
local function code(statement)
  if #statement > LONGEST then
    statement = statement:sub(1, LONGEST):gsub("[\192-\255][\128-\191]*$", "") .. "…"
  end
  return fill('<div class="code" title="%s">%s</div>', statement, statement)
end

--- The statements that took most of the time; nil when nobody counts them, or there were none.
-- @tparam table status
-- @treturn ?Fragment
function lists.statements(status)
  local rows = {}
  for i, one in ipairs(status.top_statements or {}) do
    rows[i] = fill('<tr><td class="wide">%s</td><td class="num">%s</td><td class="num minor">%s</td>'
      .. '<td class="num minor">%s</td><td class="num">%s</td></tr>', code(one.statement), words.percent(one.share),
      words.number(one.count), words.latency(one.average_ms / 1000), words.latency(one.longest_ms / 1000))
  end
  return #rows > 0 and fill('<table class="statements"><thead><tr><th scope="col">Statement</th>'
    .. '<th scope="col" class="num">Of all time</th><th scope="col" class="num minor">Times</th>'
    .. '<th scope="col" class="num minor">Average</th><th scope="col" class="num">Longest</th></tr></thead>'
    .. "<tbody>%s</tbody></table>", rows) or nil
end

local SLOW = 10

--- The latest that were slow; nil when none was.
-- @tparam table status
-- @treturn ?Fragment
function lists.slow(status)
  local all, rows = status.slow_statements or {}, {}
  for i = #all, math.max(#all - SLOW + 1, 1), -1 do
    local one = all[i]
    rows[#rows + 1] = fill('<tr><td class="when">%s</td><td class="wide">%s%s</td><td><bdi>%s</bdi></td>'
      .. '<td class="num minor">%s</td><td class="num">%s</td></tr>', clock(one.at, status.time), code(one.statement),
      one.error and fill('<b>%s</b>', one.error) or nil, one.shard_id, one.bucket or "–", words.latency(one.duration))
  end
  return #rows > 0 and fill('<table class="events"><thead><tr><th scope="col">Time</th><th scope="col">Statement</th>'
    .. '<th scope="col">Shard</th><th scope="col" class="num minor">Bucket</th><th scope="col" class="num">Took</th></tr>'
    .. "</thead><tbody>%s</tbody></table>", rows) or nil
end

--- The buckets that got most statements; nil when nobody counts them, or there were none.
-- @tparam table status
-- @treturn ?Fragment
function lists.buckets(status)
  local most, rows = 0, {}
  for _, one in ipairs(status.top_buckets or {}) do
    if one.bucket then -- and not all that were too many to be counted each
      most = math.max(most, one.count)
      rows[#rows + 1] = fill('<tr><th scope="row">%s%s</th><td><bdi>%s</bdi></td><td class="wide">%s</td>'
        .. '<td class="num">%s</td></tr>', one.bucket, one.table and fill(" <small><bdi>%s</bdi></small>", one.table) or nil,
        one.shard_id, chart.bar(one.count / most, "keys"), words.number(one.count))
    end
  end
  return #rows > 0 and fill('<table class="bars"><thead><tr><th scope="col">Bucket</th><th scope="col">Shard</th>'
    .. '<th scope="col" class="wide"></th><th scope="col" class="num">Statements</th></tr></thead><tbody>%s</tbody></table>',
    rows) or nil
end

local EVENT_LEVELS = { healthy = "ok", ok = "ok", degraded = "warn", recovering = "warn", unhealthy = "bad",
  failed = "warn" }

--- What happened lately, the latest first.
-- @tparam table status
-- @treturn ?Fragment
function lists.events(status)
  if not status.events then
    return nil
  elseif #status.events == 0 then
    return fill('<p class="quiet">Nothing has happened since the start.</p>')
  end
  local rows = {}
  for i, event in ipairs(status.events) do
    rows[i] = fill('<tr><td class="when">%s</td><td class="sign">%s</td><td class="kind">%s</td><td class="wide">%s%s</td></tr>',
      clock(event.time, status.time), icons.of(EVENT_LEVELS[event.to] or "idle"), event.kind, event.message,
      event.times > 1 and fill(" <small>%s times in a row</small>", event.times) or nil)
  end
  return fill('<table class="events"><thead class="unseen"><tr><th scope="col">Time</th><th scope="col">Sign</th>'
    .. '<th scope="col">Kind</th><th scope="col">What happened</th></tr></thead><tbody>%s</tbody></table>', rows)
end

--- The process itself, in one line.
-- @tparam table status
-- @treturn Fragment
function lists.runtime(status)
  local runtime = status.runtime
  local parts = {
    fill("<span>lunashard %s</span>", status.version),
    status.uptime and fill("<span>up %s</span>", words.duration(status.uptime)) or nil,
  }
  parts[#parts + 1] = fill("<span>%s of Lua memory</span>", words.bytes(runtime.lua_memory_bytes))
  parts[#parts + 1] = fill("<span>%s</span>", words.of(runtime.tasks, "task"))
  parts[#parts + 1] = fill("<span>%s%s</span>", words.of(runtime.stalls, "stall"), runtime.stalls > 0
    and (", the longest %s"):format(words.latency(runtime.longest_stall)) or "")
  return html.join(parts)
end

return lists
