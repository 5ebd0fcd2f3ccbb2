--- A router with a cache of results in front of it.
-- What the guide's CachedShardRouter does, with bounds: entries expire after `ttl` seconds, the
-- ones used longest ago make room, concurrent misses of one statement run it once, and a result
-- that was on its way while its key was invalidated is not kept.
--
-- Only reads are kept, and errors never. A write through `execute` invalidates its routing key,
-- or everything when it has none; writes that go another way are the program's to announce.
-- A statement whose answer depends on more than its parameters (`now()`, `random()`,
-- `current_user`) belongs on the router itself.
-- @module lunashard.cache

local cache_key = require("lunashard.cache.key")
local errors = require("lunashard.errors")
local options = require("lunashard.options")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")
local ttl_cache = require("lunashard.cache.ttl")

local cache = {}

local Cache = {}
Cache.__index = Cache
Cache.__name = "lunashard.cache"

local OPTIONS = { router = "table", ttl = "seconds", max_entries = "count", max_bytes = "count", now = "function" }

-- A leader that ran out of its own time, or was cancelled, says nothing about the statement.
local OWN_FAILURES = { TIMEOUT = true, CANCELED = true }

local function add_to(index, name, entry)
  if name ~= nil then
    index[name] = index[name] or {}
    index[name][entry] = true
  end
end

local function take_from(index, name, entry)
  if name ~= nil then
    index[name][entry] = nil
    if next(index[name]) == nil then
      index[name] = nil
    end
  end
end

local function reset(self)
  self.by_tag, self.by_sql, self.flights, self.bytes = {}, {}, {}, 0
  self.store:clear()
end

--- Create a cached router. Raises for an option that is unknown or wrong.
-- @tparam table given `router`; `ttl` seconds [60]; `max_entries` [10000]; `max_bytes`, about, of all
--   results together [no bound]; `now`, a clock in seconds
-- @treturn Cache
function cache.new(given)
  given = options.check(given, OPTIONS, "cache")
  if given.router == nil then
    error("cache: router is missing", 2)
  elseif given.max_entries == 0 then
    error("cache: option max_entries: expected 1 or more, got 0", 2)
  end
  local self = setmetatable({
    router = given.router,
    ttl = given.ttl or 60,
    max_entries = given.max_entries or 10000,
    max_bytes = given.max_bytes or math.huge,
    hits = 0,
    misses = 0,
    coalesced = 0,
    evictions = 0,
    invalidations = 0,
  }, Cache)
  self.store = ttl_cache.new(self.max_entries, given.now or task.now, function(entry)
    self.bytes = self.bytes - entry.bytes
    take_from(self.by_tag, entry.tag, entry)
    take_from(self.by_sql, entry.sql, entry)
  end)
  reset(self)
  return self
end

-- About what a result holds: strings by their length, all else by the size of a slot.
local function size_of(result)
  local bytes = 200
  for _, row in ipairs(result.rows) do
    bytes = bytes + 40
    for _, value in pairs(row) do
      bytes = bytes + 40 + (type(value) == "string" and #value or type(value) == "table" and #value * 16 or 0)
    end
  end
  return bytes
end

-- Every caller gets rows of its own, so that none can change another's.
local function copy_of(result, cached)
  local copy, rows = {}, {}
  for name, value in pairs(result) do
    copy[name] = value
  end
  for i, row in ipairs(result.rows) do
    local fields = {}
    for name, value in pairs(row) do
      fields[name] = value
    end
    rows[i] = fields
  end
  copy.rows, copy.cached = rows, cached
  return copy
end

local function keep(self, flight, result, ttl)
  local entry = { key = flight.key, tag = flight.tag, sql = flight.sql, bytes = size_of(result), result = result }
  if entry.bytes > self.max_bytes then
    return
  end
  self.store:remove(entry.key)
  while self.store.size >= self.max_entries or self.bytes + entry.bytes > self.max_bytes do
    self.store:evict()
    self.evictions = self.evictions + 1
  end
  self.store:set(entry.key, entry, ttl)
  self.bytes = self.bytes + entry.bytes
  add_to(self.by_tag, entry.tag, entry)
  add_to(self.by_sql, entry.sql, entry)
end

local function land(self, flight)
  if self.flights[flight.key] == flight then
    self.flights[flight.key] = nil
  end
  flight.landed = true
  flight.event:notify()
end

-- Run the statement for everybody who asks meanwhile.
local function lead(self, flight, params, opts, ttl)
  self.flights[flight.key] = flight
  self.misses = self.misses + 1
  local ok, result, err = pcall(self.router.execute, self.router, flight.sql, params, opts)
  -- The caller may change its rows before the others have taken theirs.
  flight.result = ok and result and copy_of(result) or nil
  flight.err = ok and err or result
  if flight.result and self.flights[flight.key] == flight then
    keep(self, flight, flight.result, ttl)
  end
  land(self, flight)
  if not ok then
    error(result, 0)
  end
  return result, err
end

-- Wait for the one who runs it. Gives nothing when that one's failure was its own.
local function follow(self, flight, deadline, timeout)
  self.coalesced = self.coalesced + 1
  while not flight.landed do
    if not flight.event:wait(deadline) then
      return nil, errors.new("TIMEOUT", {
        message = ("timed out after %gs, waiting for the same statement of another task"):format(timeout),
      })
    end
  end
  if flight.result then
    return copy_of(flight.result, true)
  elseif errors.is(flight.err) and not OWN_FAILURES[flight.err.code] then
    return nil, flight.err
  end
end

local function write(self, sql, params, opts)
  local ok, result, err = pcall(self.router.execute, self.router, sql, params, opts)
  -- Also after an error: it may have been committed all the same.
  if opts.routing_key ~= nil then
    self:invalidate(opts.routing_key)
  else
    self:invalidate_all()
  end
  if not ok then
    error(result, 0)
  end
  return result, err
end

-- Our own option, and those that are the router's.
local function split_options(self, opts)
  if opts ~= nil and type(opts) ~= "table" then
    error("execute: options must be a table, got " .. options.describe(opts), 3)
  end
  local ttl, passed = self.ttl, {}
  for name, value in pairs(opts or {}) do
    passed[name] = value
  end
  if passed.ttl ~= nil then
    ttl, passed.ttl = passed.ttl, nil
    if type(ttl) ~= "number" or ttl ~= ttl or ttl < 0 then
      error("execute: option ttl: expected seconds, 0 or more, got " .. options.describe(ttl), 3)
    end
  end
  return ttl, passed
end

--- Run a statement, or give what it gave before. Yields.
-- As `router:execute`, and returns what that returns; rows are the caller's own,
-- though decoded JSON and arrays in them are shared and must not be changed.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts those of `execute`; and `ttl` seconds for this result, 0 to run it without the cache
-- @treturn[1] table result, with `cached = true` when this call did not run it
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Cache:execute(sql, params, opts)
  routing.check_arguments("execute", sql, params)
  local ttl, passed = split_options(self, opts)
  local kind = statement.classify(sql)
  if kind == "write" then
    return write(self, sql, params, passed)
  end
  local key = kind == "read" and ttl > 0 and cache_key.of(sql, params, passed)
  if not key then
    return self.router:execute(sql, params, passed)
  end
  local timeout = passed.timeout or self.router.query_timeout
  local deadline = task.deadline(timeout)
  while true do
    local found, entry = self.store:get(key)
    if found then
      self.hits = self.hits + 1
      return copy_of(entry.result, true)
    end
    local flight = self.flights[key]
    if not flight then
      flight = { key = key, sql = sql, tag = cache_key.tag(passed.routing_key), event = task.event() }
      return lead(self, flight, params, passed, ttl)
    end
    local result, err = follow(self, flight, deadline, timeout)
    if result or err then
      return result, err
    end
  end
end

-- Remove entries, and see to it that what is on its way is not kept.
local function drop(self, index, name, field)
  for entry in pairs(index[name] or {}) do
    self.store:remove(entry.key)
    self.invalidations = self.invalidations + 1
  end
  for key, flight in pairs(self.flights) do
    if flight[field] == name then
      self.flights[key] = nil
    end
  end
end

--- Forget all results of a routing key, in whatever form it was given: 42, 42LL and "42" are one.
-- @param routing_key
function Cache:invalidate(routing_key)
  if routing_key == nil then
    error("cache: invalidate: expected a routing key; invalidate_all forgets everything", 2)
  end
  drop(self, self.by_tag, cache_key.tag(routing_key), "tag")
  -- Results that no key was given for may hold rows of this one.
  drop(self, self.by_tag, cache_key.NO_TAG, "tag")
end

--- Forget all results of a statement, whatever its parameters.
-- @string sql the same text as was executed
function Cache:invalidate_statement(sql)
  drop(self, self.by_sql, sql, "sql")
end

--- Forget everything.
function Cache:invalidate_all()
  self.invalidations = self.invalidations + self.store.size
  reset(self)
end

--- What the cache has done so far.
-- @treturn table `hits`, `misses`, `coalesced` (calls that waited for another's run), `evictions`,
--   `invalidations`, `size` (entries), `bytes` (about), `hit_rate` (0 to 1; 0 before the first call)
function Cache:get_statistics()
  local served = self.hits + self.coalesced
  local calls = served + self.misses
  return {
    hits = self.hits,
    misses = self.misses,
    coalesced = self.coalesced,
    evictions = self.evictions,
    invalidations = self.invalidations,
    size = self.store.size,
    bytes = self.bytes,
    hit_rate = calls > 0 and served / calls or 0,
  }
end

return cache
