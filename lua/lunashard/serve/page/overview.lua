--- The upper part of the page: how the cluster is, in one sentence, and the charts of the last minutes.
-- @module lunashard.serve.page.overview

local chart = require("lunashard.serve.page.chart")
local html = require("lunashard.serve.page.html")
local icons = require("lunashard.serve.page.icons")
local words = require("lunashard.serve.page.words")

local overview = {}

local fill = html.fill

local ALERT_LEVELS = { health = "bad", writes = "bad" }

-- ---- what is broken -------------------------------------------------------------------

--- The sentence.
-- @tparam table status
-- @treturn Fragment
function overview.verdict(status)
  return fill('<div class="verdict %s">%s<p>%s</p></div>', status.verdict.level, icons.of(status.verdict.level),
    status.verdict.sentence)
end

local function alert_row(level, where, message)
  return fill('<li>%s<b>%s</b><span>%s</span></li>', icons.of(level), where, message)
end

--- All that is wrong, one line for each; nothing when nothing is.
-- @tparam table status
-- @treturn Fragment
function overview.alerts(status)
  local rows = {}
  for _, alert in ipairs(status.alerts) do
    local is_bad = ALERT_LEVELS[alert.kind] and status.verdict.level == "bad"
    rows[#rows + 1] = alert_row(is_bad and "bad" or "warn", alert.shard_id or alert.kind, alert.message)
  end
  for _, job in ipairs(status.jobs) do
    if job.failures_in_a_row > 0 then
      rows[#rows + 1] = alert_row("warn", job.name, ("%s in a row: %s"):format(words.of(job.failures_in_a_row, "failure"),
        job.error or "unknown"))
    end
  end
  return #rows > 0 and fill('<ul class="alerts">%s</ul>', rows) or html.join({})
end

-- ---- charts ---------------------------------------------------------------------------

local function latest(values)
  local value = values[#values]
  return type(value) == "number" and value or nil
end

local function key(series, say)
  local rows = {}
  for i, one in ipairs(series) do
    local value = latest(one.values)
    rows[i] = fill('<div><dt><svg class="key" viewBox="0 0 14 4" aria-hidden="true"><path class="line %s" d="M0 2H14"/></svg>%s'
      .. '</dt><dd>%s</dd></div>', one.class, one.name, value and say(value) or "–")
  end
  return fill("<dl>%s</dl>", rows)
end

local function spoken(series, say)
  local parts = {}
  for i, one in ipairs(series) do
    local value = latest(one.values)
    parts[i] = ("%s %s"):format(one.name, value and say(value) or "none")
  end
  return table.concat(parts, ", ")
end

local function panel(title, history, series, say, least)
  local lists = {}
  for i, one in ipairs(series) do
    lists[i] = one.values
  end
  local top = chart.ceiling(chart.max(lists), least)
  return fill('<section class="panel chart"><h2>%s</h2>%s<div class="frame"><span class="top">%s</span>%s</div>'
    .. '<div class="axis"><span>%s ago</span><span>now</span></div></section>',
    title, key(series, say), say(top),
    chart.lines({
      series = series,
      width = history.seconds,
      top = top,
      label = ("%s over the last %s; now %s"):format(title, words.duration(history.seconds), spoken(series, say)),
    }),
    words.duration(history.seconds))
end

local function per_second(value)
  return words.number(value) .. "/s"
end

--- Throughput, latency and connections of the last minutes; nothing when nobody looked.
-- @tparam table status
-- @treturn Fragment
function overview.charts(status)
  local history = status.history
  if not history then
    return html.join({})
  end
  return html.join({
    panel("Statements", history, {
      { name = "all", class = "a", values = history.throughput, filled = true },
      { name = "failed", class = "e", values = history.errors },
    }, per_second, 10),
    panel("Latency", history, {
      { name = "p99", class = "c", values = history.p99 },
      { name = "p95", class = "b", values = history.p95 },
      { name = "p50", class = "a", values = history.p50, filled = true },
    }, words.latency, 0.001),
    panel("Connections", history, {
      { name = "open", class = "b", values = history.size },
      { name = "in use", class = "a", values = history.used, filled = true },
      { name = "waiting", class = "e", values = history.waiting },
    }, words.number, 5),
  })
end

-- ---- the same as a table --------------------------------------------------------------

local STEP = 30 -- seconds between its rows

local function cell(values, index, say)
  local value = values[index]
  return fill("<td>%s</td>", type(value) == "number" and say(value) or "–")
end

--- What the charts show, in numbers, for those who cannot see them.
-- @tparam table status
-- @treturn Fragment
function overview.numbers(status)
  local history = status.history
  if not history or #history.throughput == 0 then
    return html.join({})
  end
  local rows = {}
  for index = #history.throughput, 1, -STEP do
    local age = #history.throughput - index
    rows[#rows + 1] = fill('<tr><th scope="row">%s</th>%s%s%s%s%s%s%s%s</tr>',
      age == 0 and "now" or words.duration(age) .. " ago",
      cell(history.throughput, index, per_second), cell(history.errors, index, per_second),
      cell(history.p50, index, words.latency), cell(history.p95, index, words.latency),
      cell(history.p99, index, words.latency), cell(history.used, index, words.number),
      cell(history.size, index, words.number), cell(history.waiting, index, words.number))
  end
  return fill('<table class="numeric"><thead><tr><th scope="col">when</th><th scope="col">statements</th>'
    .. '<th scope="col">failed</th><th scope="col">p50</th><th scope="col">p95</th><th scope="col">p99</th>'
    .. '<th scope="col">in use</th><th scope="col">open</th><th scope="col">waiting</th></tr></thead>'
    .. "<tbody>%s</tbody></table>", rows)
end

return overview
