--- The part of the page about rows that move between shards.
-- @module lunashard.serve.page.rebalance

local chart = require("lunashard.serve.page.chart")
local html = require("lunashard.serve.page.html")
local icons = require("lunashard.serve.page.icons")
local waves = require("lunashard.rebalancer.waves")
local words = require("lunashard.serve.page.words")

local rebalance = {}

local fill = html.fill

local SHOWN_FOR = 3600 -- seconds after its end

local LEVELS = { pending = "idle", running = "busy", paused = "warn", completed = "ok", failed = "bad", cancelled = "warn",
  rolled_back = "ok" }

local STATUS = { rolled_back = "rolled back" }

local function state(told)
  if told.interrupted then
    return icons.state("bad", "interrupted: nobody runs it")
  end
  local text = STATUS[told.status] or told.status
  if told.status == "running" and told.rolling_back then
    text = "rolling back"
  end
  return icons.state(LEVELS[told.status] or "warn", text)
end

local function fact(name, value)
  return fill("<div><dt>%s</dt><dd>%s</dd></div>", name, value)
end

local function facts(told)
  local list = {}
  local function add(name, value)
    list[#list + 1] = fact(name, value)
  end
  add("rows", ("%s of %s"):format(words.count(told.rows_copied), words.count(told.total_rows)))
  add("moves", ("%d of %d"):format(told.moves_done, told.moves_total))
  if told.rate then
    add("rate", words.number(told.rate) .. " rows/s")
  end
  if told.eta then
    add("left", words.duration(told.eta))
  elseif told.duration_seconds > 0 then
    add("took", words.duration(told.duration_seconds))
  end
  if told.last_pause then
    add("last cutover", words.latency(told.last_pause))
    add("longest", words.latency(told.longest_pause))
  end
  if told.open then
    add("backlog", words.count(told.backlog or 0))
  end
  return fill('<dl class="facts">%s</dl>', list)
end

local WAVE_STATES = { reversing = "moving back" }

-- Which wave a gradual job is at, what that does, and its gates.
local function wave_facts(told)
  local at = told.waves
  if not at or told.rolling_back then
    return nil
  end
  local doing = WAVE_STATES[at.state] or at.state
  if at.soaked then
    doing = ("%s, %.0f of %g s"):format(doing, at.soaked, at.soak)
  end
  local list = { fact("wave", ("%d of %d, up to %g %%"):format(at.current, at.total, at.share)), fact("it is", doing) }
  for _, gate in ipairs(waves.gates(at)) do
    local text = gate.limit .. " allowed"
    if gate.reading then
      text = gate.reading .. (gate.is_closed and ", only " or ", ") .. text
    end
    list[#list + 1] = fact(gate.label, gate.is_closed and fill('<span class="waiting">%s</span>', text) or text)
  end
  return fill('<dl class="facts">%s</dl>', list)
end

-- Why the job does not go on.
local function wrong(told)
  local at = told.waves
  return told.error_message or told.open and at and at.state ~= "moving" and at.verdict or nil
end

local function fence_of(told, seq)
  for _, fence in ipairs(told.fences or {}) do
    if fence.seq == seq then
      return fill(" <b>closed for %s</b>", words.latency(fence.seconds))
    end
  end
end

local function moves(told)
  local rows = {}
  for i, move in ipairs(told.active) do
    rows[i] = fill('<tr><th scope="row">%s</th><td><bdi>%s</bdi> → <bdi>%s</bdi></td><td>%s%s</td><td class="num minor">%s</td>'
      .. '<td class="wide">%s</td><td class="num">%s</td></tr>', move.seq, move.source, move.destination, move.state,
      fence_of(told, move.seq), words.count(move.buckets),
      chart.bar(move.rows_copied / math.max(move.rows_estimated, move.rows_copied, 1), "keys"), words.count(move.rows_copied))
  end
  return #rows > 0 and fill('<table class="bars"><thead><tr><th scope="col">Move</th><th scope="col">From, to</th>'
    .. '<th scope="col">State</th><th scope="col" class="num minor">Buckets</th><th scope="col" class="wide"></th>'
    .. '<th scope="col" class="num">Rows</th></tr></thead><tbody>%s</tbody></table>', rows) or nil
end

--- The latest job while it is open, and for an hour after its end; nil otherwise.
-- @tparam table status as `lunashard.serve.status` reads it
-- @treturn ?Fragment
function rebalance.of(status)
  local told = status.rebalance
  if not told or not told.open and status.time - (told.finished_at or 0) > SHOWN_FOR then
    return nil
  end
  return fill('<div class="job"><p>%s<span class="quiet">job %s, group <bdi>%s</bdi>, by %s</span></p>%s'
    .. '<p>%s<b>%s</b></p>%s%s</div>%s', state(told), told.job_id, told.group, told.planner, facts(told),
    chart.bar(told.progress_percent / 100, "keys"), words.percent(told.progress_percent / 100), wave_facts(told),
    wrong(told) and fill('<p class="wrong">%s</p>', wrong(told)) or nil, moves(told))
end

return rebalance
