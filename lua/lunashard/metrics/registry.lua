--- Counters, gauges and histograms that scripts define.
-- What a script asks for is bounded: so many metrics, so many series of each. A series beyond that is not kept; how
-- often that happened is a metric itself, and is warned of once.
-- @module lunashard.metrics.registry

local errors = require("lunashard.errors")
local options = require("lunashard.options")
local text = require("lunashard.metrics.text")
local warn = require("lunashard.warn")

local registry = {}

local MAX_METRICS = 500
local MAX_SERIES = 100 -- of a metric that says nothing else
local MOST_SERIES = 10000 -- that it may say
local MAX_LABELS = 10
local MAX_BUCKETS = 50
local DEFAULT_BUCKETS = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }

local metrics, names = {}, {} -- by name; names in the order in which they came
local dropped = {} -- name -> samples without a series

--- What a definition may say.
-- @table OPTIONS
registry.OPTIONS = { name = "string", help = "string", labels = "table", max_series = "count", buckets = "table" }

local OURS = { "^shard_", "^shards_", "^lunashard_", "^process_", "^keys_per_shard$" }
local SUFFIXES = { "_bucket$", "_count$", "_sum$" }

local describe = options.describe

local function name_problem(kind, name)
  if type(name) ~= "string" then
    return "option name: expected a text such as \"app_checks_total\", got " .. describe(name)
  elseif not name:find("^[%a_:][%w_:]*$") or #name > 128 then
    return ("option name: expected letters, digits and _ (at most 128), beginning with a letter, got %q"):format(
      name:sub(1, 128))
  end
  for _, pattern in ipairs(OURS) do
    if name:find(pattern) then
      return ("option name: %q is a name of our own; begin it with the name of your program"):format(name)
    end
  end
  for _, pattern in ipairs(SUFFIXES) do
    if name:find(pattern) then
      return ("option name: %q ends like a part of a histogram"):format(name)
    end
  end
  if kind == "counter" and not name:find("_total$") then
    return ("option name: the name of a counter ends in _total: %q"):format(name .. "_total")
  elseif kind ~= "counter" and name:find("_total$") then
    return ("option name: %q ends in _total, which is for counters"):format(name)
  end
end

local function labels_problem(kind, labels)
  if #labels > MAX_LABELS then
    return ("option labels: expected at most %d, got %d"):format(MAX_LABELS, #labels)
  end
  local seen = {}
  for i, label in ipairs(labels) do
    if type(label) ~= "string" or not label:find("^[%a_][%w_]*$") or label:find("^__") or #label > 128 then
      return ("option labels[%d]: expected letters, digits and _, beginning with a letter, got %s"):format(i,
        describe(label))
    elseif seen[label] then
      return ("option labels[%d]: %q is there twice"):format(i, label)
    elseif kind == "histogram" and label == "le" then
      return ("option labels[%d]: le is the histogram's own"):format(i)
    end
    seen[label] = true
  end
end

local function buckets_problem(kind, buckets)
  if kind ~= "histogram" then
    return "option buckets: only a histogram has them"
  elseif #buckets == 0 or #buckets > MAX_BUCKETS then
    return ("option buckets: expected 1 to %d bounds, got %d"):format(MAX_BUCKETS, #buckets)
  end
  for i, bound in ipairs(buckets) do
    if type(bound) ~= "number" or bound ~= bound or math.abs(bound) == math.huge or (i > 1 and bound <= buckets[i - 1]) then
      return ("option buckets[%d]: expected numbers, each larger than the one before, got %s"):format(i, describe(bound))
    end
  end
end

local function problem_of(kind, given)
  local problem = name_problem(kind, given.name)
  if problem then
    return problem
  elseif type(given.help) ~= "string" or given.help == "" then
    return "option help: missing; expected a sentence about what is counted"
  elseif given.max_series and (given.max_series < 1 or given.max_series > MOST_SERIES) then
    return ("option max_series: expected 1 to %d, got %d"):format(MOST_SERIES, given.max_series)
  end
  return labels_problem(kind, given.labels or {}) or given.buckets and buckets_problem(kind, given.buckets) or nil
end

-- ---- metrics ------------------------------------------------------------------------

local function key_of(self, labels, what)
  local wanted = self.labels
  labels = labels or {}
  if type(labels) ~= "table" then
    error(("%s %s: expected a table of labels, got %s"):format(self.name, what, describe(labels)), 4)
  end
  local values, n = {}, 0
  for i, name in ipairs(wanted) do
    local value = labels[name]
    if value == nil then
      error(("%s %s: the label %q is missing"):format(self.name, what, name), 4)
    end
    values[i] = text.value(value)
  end
  for _ in pairs(labels) do
    n = n + 1
  end
  if n > #wanted then
    for name in pairs(labels) do
      if not self.is_label[name] then
        local near = errors.nearest(tostring(name), wanted)
        error(("%s %s: unknown label %s%s"):format(self.name, what, describe(name),
          near and ("; did you mean %q?"):format(near) or ""), 4)
      end
    end
  end
  return table.concat(values, "\0"), values
end

local function new_series(self, values)
  local series = { labels = text.label_list(self.labels, values), value = 0 }
  if self.buckets then
    series.counts, series.count = {}, 0
    for i = 1, #self.buckets do
      series.counts[i] = 0
    end
  end
  return series
end

local function series_of(self, labels, what)
  local key, values = key_of(self, labels, what)
  local series = self.series[key]
  if series then
    return series
  elseif #self.order >= self.max_series then
    if not dropped[self.name] then
      warn.emit(("metric %s has %d series already: others are not kept (max_series)"):format(self.name, self.max_series))
    end
    dropped[self.name] = (dropped[self.name] or 0) + 1
    return nil
  end
  series = new_series(self, values)
  self.series[key], self.order[#self.order + 1] = series, series
  return series
end

local function check_number(self, value, what, least)
  if type(value) ~= "number" or value ~= value or least and value < least or math.abs(value) == math.huge then
    error(("%s %s: expected a number%s, got %s"):format(self.name, what, least and " not below 0" or "",
      describe(value)), 3)
  end
end

local Counter, Gauge, Histogram = {}, {}, {}
for _, class in ipairs({ Counter, Gauge, Histogram }) do
  class.__index, class.__name = class, "lunashard.metric"
  function class:__tostring()
    return ("lunashard.metric(%s %s)"):format(self.kind, self.name)
  end
end

--- Count up. Raises for a wrong number or wrong labels.
-- @number[opt] n not below 0 [1]
-- @tparam[opt] table labels name -> value; all that the metric has
-- @treturn boolean false when there are too many series
function Counter:add(n, labels)
  n = n == nil and 1 or n
  check_number(self, n, "add", 0)
  local series = series_of(self, labels, "add")
  if series then
    series.value = series.value + n
  end
  return series ~= nil
end

--- Set to a value. Raises as `Counter:add` does.
-- @number value
-- @tparam[opt] table labels
-- @treturn boolean false when there are too many series
function Gauge:set(value, labels)
  check_number(self, value, "set")
  local series = series_of(self, labels, "set")
  if series then
    series.value = value
  end
  return series ~= nil
end

--- Change by so much. Raises as `Counter:add` does.
-- @number n
-- @tparam[opt] table labels
-- @treturn boolean false when there are too many series
function Gauge:add(n, labels)
  check_number(self, n, "add")
  local series = series_of(self, labels, "add")
  if series then
    series.value = series.value + n
  end
  return series ~= nil
end

--- Count one value. Raises as `Counter:add` does.
-- @number value
-- @tparam[opt] table labels
-- @treturn boolean false when there are too many series
function Histogram:observe(value, labels)
  check_number(self, value, "observe")
  local series = series_of(self, labels, "observe")
  if series then
    local i = 1
    while self.buckets[i] and value > self.buckets[i] do
      i = i + 1
    end
    if self.buckets[i] then
      series.counts[i] = series.counts[i] + 1
    end
    series.count, series.value = series.count + 1, series.value + value
  end
  return series ~= nil
end

local CLASSES = { counter = Counter, gauge = Gauge, histogram = Histogram }

local function same_lists(a, b)
  if #a ~= #b then
    return false
  end
  for i = 1, #a do
    if a[i] ~= b[i] then
      return false
    end
  end
  return true
end

local function copy(list)
  return { unpack(list) }
end

--- Define a metric, or find it again: a script that is run anew goes on counting.
-- Raises for what is wrong, and when the name is that of a metric of another kind, with other labels or buckets.
-- @string kind `counter`, `gauge` or `histogram`
-- @tparam table given see `lunashard.metrics`; its options are known
-- @treturn Metric
function registry.define(kind, given)
  local what = "lunashard.metrics." .. kind
  local problem = problem_of(kind, given)
  if problem then
    error(("%s: %s"):format(what, problem), 3)
  end
  local labels = copy(given.labels or {})
  local buckets = kind == "histogram" and copy(given.buckets or DEFAULT_BUCKETS) or nil
  local known = metrics[given.name]
  if known then
    if known.kind ~= kind or not same_lists(known.labels, labels) or buckets and not same_lists(known.buckets, buckets) then
      error(("%s: %s is a %s with other labels or buckets already"):format(what, given.name, known.kind), 3)
    end
    return known
  elseif #names >= MAX_METRICS then
    error(("%s: there are %d metrics already"):format(what, MAX_METRICS), 3)
  end
  local is_label = {}
  for _, label in ipairs(labels) do
    is_label[label] = true
  end
  local self = setmetatable({
    kind = kind,
    name = given.name,
    help = given.help,
    labels = labels,
    is_label = is_label,
    buckets = buckets,
    max_series = given.max_series or MAX_SERIES,
    series = {},
    order = {},
  }, CLASSES[kind])
  metrics[self.name], names[#names + 1] = self, self.name
  if #labels == 0 then
    series_of(self, nil, what) -- there from the start, at 0
  end
  return self
end

--- Forget everything that was defined. For specs.
-- @local
function registry.clear()
  metrics, names, dropped = {}, {}, {}
end

local function write_histogram(out, metric)
  local bounds = {}
  for i, bound in ipairs(metric.buckets) do
    bounds[i] = tostring(bound)
  end
  for _, series in ipairs(metric.order) do
    local counts, seen = {}, 0
    for i, n in ipairs(series.counts) do
      seen = seen + n
      counts[i] = seen
    end
    out:histogram(series.labels, bounds, counts, series.count, series.value)
  end
end

--- Write all of them.
-- @tparam Writer out
function registry.write(out)
  for _, name in ipairs(names) do
    local metric = metrics[name]
    out:family(name, metric.kind, metric.help)
    if metric.buckets then
      write_histogram(out, metric)
    else
      for _, series in ipairs(metric.order) do
        out:sample(series.labels, series.value)
      end
    end
  end
  out:family("lunashard_metric_samples_dropped_total", "counter",
    "Samples of metrics that had max_series series already.")
  for _, name in ipairs(names) do
    if dropped[name] then
      out:sample(text.labels("metric", name), dropped[name])
    end
  end
end

return registry
