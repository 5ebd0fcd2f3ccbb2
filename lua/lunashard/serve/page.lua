--- The page of `lunashard serve`: one file that asks nothing of others, with everything on it when it arrives.
-- Without a script it is a page of tables; with it, /events keeps it up to date.
-- @module lunashard.serve.page

local cjson = require("cjson.safe")
local html = require("lunashard.serve.page.html")
local lists = require("lunashard.serve.page.lists")
local overview = require("lunashard.serve.page.overview")
local rebalance = require("lunashard.serve.page.rebalance")
local script = require("lunashard.serve.page.script")
local shards = require("lunashard.serve.page.shards")
local style = require("lunashard.serve.page.style")

local page = {}

local fill, raw = html.fill, html.raw

local SIGNS = { ok = "", warn = "▲ ", bad = "✕ " }

local function icon(level)
  local colour = ({ ok = "1a7f4e", warn = "c98a1b", bad = "c02f3f" })[level]
  local shape = ({ ok = "%3Ccircle cx='8' cy='8' r='7'/%3E", warn = "%3Cpath d='M8 1 16 15H0z'/%3E",
    bad = "%3Cpath d='M5 0h6l5 5v6l-5 5H5l-5-5V5z'/%3E" })[level]
  return ("data:image/svg+xml,%%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='%%23%s'%%3E%s%%3C/svg%%3E")
    :format(colour, shape)
end

local function title(status)
  return ("%s%s"):format(SIGNS[status.verdict.level], status.name or status.file)
end

-- A panel around what may be wider than the window; nothing around nothing.
local function panel(class, heading, content, box)
  return content and fill('<section class="panel flush %s"><h2>%s</h2><div class="scroll %s" tabindex="0" role="region" '
    .. 'aria-label="%s">%s</div></section>', class, heading, box, heading, content) or html.join({})
end

-- Two panels side by side, one of which has all the room when the other has nothing.
local function pair(heading, content, other_heading, other)
  local class = content and other and "half" or ""
  return panel(class, heading, content).text, panel(class, other_heading, other).text
end

--- The parts of the page that change.
-- @tparam table status as `lunashard.serve.status` reads it
-- @treturn table id of an element -> what it holds, as HTML; and `title` and `icon` of the window
function page.parts(status)
  local keys, buckets = pair("Keys", shards.keys(status), "Hot buckets", lists.buckets(status))
  local plugins, jobs = pair("Plug-ins", lists.plugins(status), "Jobs", lists.jobs(status))
  return {
    title = title(status),
    icon = icon(status.verdict.level),
    verdict = overview.verdict(status).text,
    alerts = overview.alerts(status).text,
    charts = overview.charts(status).text,
    numbers = overview.numbers(status).text,
    rebalance = panel("", "Rebalancing", rebalance.of(status)).text,
    shards = panel("", "Shards", shards.table(status)).text,
    keys = keys,
    buckets = buckets,
    statements = panel("", "Statements that take the time", lists.statements(status)).text,
    slow = panel("", "Slow statements, the latest", lists.slow(status)).text,
    plugins = plugins,
    jobs = jobs,
    events = panel("", "Events", lists.events(status), "events-box").text,
    runtime = lists.runtime(status).text,
  }
end

local SLOTS = { "alerts", "rebalance", "charts", "shards", "keys", "buckets", "statements", "slow", "plugins", "jobs", "events" }

--- The whole page.
-- @tparam table status as `lunashard.serve.status` reads it
-- @treturn string HTML
function page.render(status)
  local parts, slots = page.parts(status), {}
  for i, id in ipairs(SLOTS) do
    slots[i] = fill('<div class="slot" id="%s">%s</div>', id, raw(parts[id]))
  end
  return fill([[<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<title>%s</title>
<link rel="icon" href="%s">
<style>%s</style>
</head>
<body>
<header><h1><bdi>%s</bdi></h1><span class="quiet"><bdi>%s</bdi></span>
<span class="live" id="live" role="status"><i></i><span>as of %s</span></span></header>
<main>
<div class="slot" id="verdict" role="status" aria-live="polite">%s</div>
%s
<details><summary>The charts as a table</summary><div class="panel"><div class="scroll" tabindex="0" role="region"
 aria-label="The charts as a table" id="numbers">%s</div></div></details>
</main>
<footer><div id="runtime">%s</div>
<nav aria-label="More"><a href="/status">status as JSON</a><a href="/metrics">metrics</a></nav></footer>
<script>%s</script>
</body>
</html>
]], parts.title, raw(html.escape(parts.icon)), raw(style), status.name or "Cluster without a name",
    status.environment and ("%s, %s"):format(status.environment, status.file) or status.file,
    os.date("%H:%M:%S", status.time), raw(parts.verdict), slots, raw(parts.numbers), raw(parts.runtime), raw(script)).text
end

local Feed = {}
Feed.__index = Feed

--- What keeps pages up to date.
-- @treturn Feed
function page.feed()
  return setmetatable({ sent = {} }, Feed)
end

--- The parts that have changed since the last call.
-- @tparam table status
-- @tparam boolean all give all of them, as somebody has seen none yet
-- @treturn ?string JSON: id -> HTML; nil when nothing has changed
function Feed:changes(status, all)
  local changed = {}
  for id, text in pairs(page.parts(status)) do
    if all or self.sent[id] ~= text then
      self.sent[id], changed[id] = text, text
    end
  end
  return next(changed) ~= nil and assert(cjson.encode(changed)) or nil
end

return page
