--- Metrics for Prometheus: those of a cluster, and those that scripts define.
-- What is counted is counted anyway, where it happens; `render` only reads it. Scripts define theirs with a name that is
-- not one of ours (`shard_...`, `lunashard_...`, `process_...`), a sentence of help and, if any, labels:
--
--     local checks = lunashard.metrics.counter { name = "app_checks_total", help = "Checks by outcome.",
--                                                labels = { "outcome" } }
--     checks:add(1, { outcome = "ok" })
--
-- Their labels take few values: after `max_series` [100] series the others are dropped, which is counted.
-- @module lunashard.metrics

local options = require("lunashard.options")
local rebalance = require("lunashard.metrics.rebalance")
local registry = require("lunashard.metrics.registry")
local runtime = require("lunashard.metrics.runtime")
local service = require("lunashard.metrics.service")
local shards = require("lunashard.metrics.shards")
local text = require("lunashard.metrics.text")

local metrics = {}

--- Define a counter, which only grows, or find it again. Raises for what is wrong.
-- @tparam table given `name`, which ends in `_total`; `help`; `labels`: list of names; `max_series` [100]
-- @treturn Counter with `add(n, labels)`
function metrics.counter(given)
  options.check(given or {}, registry.OPTIONS, "lunashard.metrics.counter")
  local metric = registry.define("counter", given or {})
  return metric
end

--- Define a gauge, which goes up and down, or find it again. Raises for what is wrong.
-- @tparam table given as for `counter`; its `name` does not end in `_total`
-- @treturn Gauge with `set(value, labels)` and `add(n, labels)`
function metrics.gauge(given)
  options.check(given or {}, registry.OPTIONS, "lunashard.metrics.gauge")
  local metric = registry.define("gauge", given or {})
  return metric
end

--- Define a histogram, or find it again. Raises for what is wrong.
-- @tparam table given as for `gauge`, and `buckets`: list of bounds, growing [0.001 to 10, for seconds]
-- @treturn Histogram with `observe(value, labels)`
function metrics.histogram(given)
  options.check(given or {}, registry.OPTIONS, "lunashard.metrics.histogram")
  local metric = registry.define("histogram", given or {})
  return metric
end

--- Everything, as Prometheus reads it. Does not yield and asks no server.
-- @tparam[opt] table cluster from `lunashard.open`, or any table with `manager` and `router`; without it only what the
--   process and its scripts count
-- @treturn string
function metrics.render(cluster)
  local out = text.writer()
  if cluster then
    shards.write(out, cluster.manager, cluster.router)
  end
  runtime.write(out)
  if cluster then
    service.write(out, cluster)
    rebalance.write(out, cluster.manager)
  end
  registry.write(out)
  return out:text()
end

return metrics
