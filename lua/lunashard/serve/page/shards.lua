--- The table of shards and their endpoints, and where the keys lie.
-- @module lunashard.serve.page.shards

local chart = require("lunashard.serve.page.chart")
local html = require("lunashard.serve.page.html")
local icons = require("lunashard.serve.page.icons")
local words = require("lunashard.serve.page.words")

local shards = {}

local fill = html.fill

local MINUTE = 60
local LEVELS = { healthy = "ok", degraded = "warn", recovering = "warn", unhealthy = "bad", unchecked = "idle" }
local STATES = { unhealthy = "down", unchecked = "not looked at yet" }

-- ---- one endpoint ---------------------------------------------------------------------

local function health(endpoint)
  local text = STATES[endpoint.status] or endpoint.status
  if endpoint.fenced then
    return icons.state("warn", "fenced")
  elseif endpoint.failing_for and not endpoint.is_healthy then
    text = html.fill('%s <small>%s</small>', text, words.duration(endpoint.failing_for))
  end
  return icons.state(LEVELS[endpoint.status] or "warn", text)
end

local function role(endpoint)
  if endpoint.role == endpoint.configured_role then
    return endpoint.role
  end
  return fill('%s <small>was %s</small>', endpoint.role, endpoint.configured_role)
end

local function lag(endpoint)
  if endpoint.role == "primary" or not endpoint.is_healthy then
    return "–"
  elseif endpoint.lag_seconds then
    return endpoint.lag_seconds < 0.001 and "0 s" or words.latency(endpoint.lag_seconds)
  end
  return endpoint.lag_bytes and words.bytes(endpoint.lag_bytes) or "unknown"
end

local function probe(endpoint)
  local ms = endpoint.average_latency_ms
  return ms and ms > 0 and endpoint.is_healthy and words.latency(ms / 1000) or "–"
end

local function pool(endpoint)
  local stats = endpoint.pool
  if not stats then
    return "–"
  end
  local share = stats.max_size > 0 and stats.used / stats.max_size or 0
  local level = stats.waiting > 0 and "warn" or "ok"
  return fill('<span class="pool">%s<span class="of">%s<small> of %s</small></span>%s</span>', chart.bar(share, level),
    stats.used, stats.max_size,
    stats.waiting > 0 and fill('<b class="waiting">+%s waiting</b>', stats.waiting) or nil)
end

local function last(values)
  return values and values[#values]
end

local function traffic(status, shard_id)
  local seen = status.history and status.history.shards[shard_id]
  local rate = seen and seen.rate or {}
  return fill('<span class="traffic">%s<span>%s<small>/s</small></span></span>', chart.lines({
    series = { { values = rate, class = "a", filled = true } },
    width = MINUTE,
    top = chart.ceiling(chart.max({ rate }), 1),
    class = "spark",
    label = "statements a second in the last minute",
  }), words.number(last(rate) or 0))
end

-- The primary first, as failovers may have moved it.
local function in_order(shard)
  local list = {}
  for _, endpoint in ipairs(shard.endpoints) do
    if endpoint.endpoint == shard.primary then
      table.insert(list, 1, endpoint)
    else
      list[#list + 1] = endpoint
    end
  end
  return list
end

local function rows_of(status, shard)
  local list, n = {}, #shard.endpoints
  local failed = status.statistics.errors_by_shard[shard.shard_id] or 0
  local seen = status.history and status.history.shards[shard.shard_id]
  local p95 = seen and type(seen.p95) == "number" and words.latency(seen.p95) or "–"
  for i, endpoint in ipairs(in_order(shard)) do
    local first = i == 1
    list[i] = fill('<tr class="%s">%s<td class="endpoint"><bdi>%s</bdi></td><td class="role">%s</td>'
      .. '<td class="health">%s</td><td class="num lag%s">%s</td><td class="num probe">%s</td><td class="pools">%s</td>%s</tr>',
      first and "first" or "more",
      first and fill('<th scope="rowgroup" rowspan="%s"><bdi>%s</bdi>%s</th>', n, shard.shard_id,
        shard.region and fill("<small><bdi>%s</bdi></small>", shard.region) or nil) or nil,
      endpoint.endpoint, role(endpoint), health(endpoint), endpoint.role == "primary" and " none" or nil, lag(endpoint),
      probe(endpoint), pool(endpoint),
      first and fill('<td class="num rate" rowspan="%s">%s</td><td class="num p95" rowspan="%s">%s</td>'
        .. '<td class="num failed" rowspan="%s">%s</td>', n, traffic(status, shard.shard_id), n, p95, n,
        words.number(failed)) or nil)
  end
  return fill("<tbody>%s</tbody>", list)
end

--- Each shard with its endpoints: role, health, lag, use of the pool, statements.
-- @tparam table status
-- @treturn Fragment
function shards.table(status)
  local groups = {}
  for i, id in ipairs(status.shard_ids) do
    groups[i] = rows_of(status, status.shards[id])
  end
  return fill('<table class="shards"><thead><tr><th scope="col">Shard</th><th scope="col">Endpoint</th>'
    .. '<th scope="col" class="role">Role</th><th scope="col">Health</th><th scope="col" class="num lag">Lag</th>'
    .. '<th scope="col" class="num probe">Answers in</th><th scope="col" class="pools">Connections</th>'
    .. '<th scope="col" class="num rate">Statements</th><th scope="col" class="num p95">p95</th>'
    .. '<th scope="col" class="num failed">Failed</th></tr></thead>%s</table>',
    groups)
end

-- ---- keys -----------------------------------------------------------------------------

local function shares(status)
  local keys, weights, total, weight, known = status.keys.shards, {}, 0, 0, {}
  for _, id in ipairs(status.shard_ids) do
    if keys[id] then
      known[#known + 1] = id
      weights[id] = status.shards[id].weight or 1
      total, weight = total + keys[id], weight + weights[id]
    end
  end
  for id, own in pairs(weights) do
    weights[id] = weight > 0 and total * own / weight or 0
  end
  return known, weights, total
end

local function deviation(n, expected)
  if expected == 0 then
    return "–"
  end
  local percent = (n / expected - 1) * 100
  return math.abs(percent) < 0.05 and "±0.0 %" or (("%+.1f %%"):format(percent):gsub("^%-", "−"))
end

--- How many keys each shard has, and how far that is from its share by weight; nothing while nobody has counted.
-- @tparam table status
-- @treturn ?Fragment
function shards.keys(status)
  if not status.keys then
    return nil
  end
  local known, expected, total = shares(status)
  local most, rows = 0, {}
  for _, id in ipairs(known) do
    most = math.max(most, status.keys.shards[id], expected[id])
  end
  for i, id in ipairs(known) do
    local n = status.keys.shards[id]
    rows[i] = fill('<tr><th scope="row"><bdi>%s</bdi></th><td class="wide"><span class="bar keys" aria-hidden="true">'
      .. '<i style="width:%s%"></i><u style="left:%s%"></u></span></td><td class="num">%s</td><td class="num">%s</td></tr>',
      id, ("%.1f"):format(most > 0 and 100 * n / most or 0), ("%.1f"):format(most > 0 and 100 * expected[id] / most or 0),
      words.count(n), deviation(n, expected[id]))
  end
  return fill('<table class="bars"><thead><tr><th scope="col">Shard</th><th scope="col" class="wide">'
    .. '<span class="quiet">%s in all; the mark is its share by weight</span></th><th scope="col" class="num">Keys</th>'
    .. '<th scope="col" class="num">Off by</th></tr></thead><tbody>%s</tbody></table>', words.count(total), rows)
end

return shards
