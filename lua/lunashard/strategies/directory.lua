--- Directory strategy: each key's shard is looked up.
-- In `entries` (key -> shard_id), then by `lookup(key)` -> shard_id | nil, err, which may yield, or in a
-- table: `table = "tenant_directory", on = "shard1", key_column = "tenant_id", shard_column = "shard_id"`.
-- A key that none of them knows lives on `default_shard`, or is `NO_SHARD`; a lookup that fails is that
-- failure, never the default. Lookups are cached: `ttl` (60 seconds), `negative_ttl` (5) for keys that
-- were not found, at most `max_entries` (100000); `strategy:invalidate(key)` forgets one. Tasks that ask for
-- the same key at the same time share one lookup.
-- @module lunashard.strategies.directory

local errors = require("lunashard.errors")
local placement = require("lunashard.strategy.placement")
local task = require("lunashard.task")
local ttl_cache = require("lunashard.cache.ttl")

local directory = {
  api = 1,
  kind = "strategy",
  name = "directory",
  options = {
    "entries", "lookup", "table", "on", "key_column", "shard_column", "ttl", "negative_ttl", "max_entries",
    "default_shard",
  },
}

local function fail(text, ...)
  error("strategy directory: " .. text:format(...), 0)
end

local function number_option(options, name, default, least)
  local value = options[name] == nil and default or options[name]
  if type(value) ~= "number" or value ~= value or value < least then
    fail("%s must be a number, %g or more", name, least)
  end
  return value
end

local function check_key_type(key_type)
  if type(key_type) == "table" then
    fail("the key must be one column, but key_type has %d types", #key_type)
  end
end

local function parse_entries(entries, key_type, shards)
  local parsed = {}
  for key, shard_id in pairs(entries) do
    local index, err = placement.index(key_type, key)
    if index == nil then
      fail("entries: %s", (err.message:gsub("^routing key", "key")))
    end
    placement.check_shard("strategy directory: entries", shard_id, shards)
    parsed[index] = shard_id
  end
  return parsed
end

-- "schema.name" or { "schema", "name" }, quoted.
local function quote_table(name)
  local parts = {}
  if type(name) == "table" then
    for i, part in ipairs(name) do
      parts[i] = placement.quote_ident(part)
    end
  else
    for part in (name .. "."):gmatch("([^.]*)%.") do
      parts[#parts + 1] = placement.quote_ident(part)
    end
  end
  return table.concat(parts, ".")
end

local function table_query(options, shards)
  for _, name in ipairs({ "on", "key_column", "shard_column" }) do
    if type(options[name]) ~= "string" or options[name] == "" then
      fail("table needs the options on, key_column and shard_column; %s is missing", name)
    end
  end
  placement.check_shard("strategy directory: on", options.on, shards)
  return ("SELECT DISTINCT %s::text AS shard_id FROM %s WHERE %s = $1 LIMIT 2"):format(
    placement.quote_ident(options.shard_column), quote_table(options.table), placement.quote_ident(options.key_column))
end

local function query_lookup(state, sql, on)
  return function(key)
    if not state.execute then
      return nil, errors.new("INVALID", {
        message = "the directory's table cannot be asked before the manager is initialized",
      })
    end
    local result, err = state.execute(on, sql, { key })
    if not result then
      return nil, err
    elseif #result.rows > 1 then
      return nil, errors.new("INVALID", {
        message = ("the directory has several shards for key %s"):format(tostring(key)),
      })
    end
    return result.rows[1] and result.rows[1].shard_id
  end
end

local function check_source(options)
  if options.lookup ~= nil and type(options.lookup) ~= "function" then
    fail("lookup must be a function")
  elseif options.lookup ~= nil and options.table ~= nil then
    fail("give lookup or table, not both")
  elseif options.entries == nil and options.lookup == nil and options.table == nil then
    fail("give entries, lookup or table")
  elseif type(options.entries or {}) ~= "table" then
    fail("entries must be a table of key -> shard_id")
  elseif options.table ~= nil and type(options.table) ~= "string" and type(options.table) ~= "table" then
    fail('table must be a name, or { "schema", "name" }')
  end
end

--- Check the options.
-- @tparam table options see above
-- @tparam {table,...} shards
-- @treturn table state
function directory.new(options, shards)
  check_source(options)
  check_key_type(options.key_type)
  if options.default_shard ~= nil then
    placement.check_shard("strategy directory: default_shard", options.default_shard, shards)
  end
  local state = {
    key_type = options.key_type,
    shards = shards,
    entries = parse_entries(options.entries or {}, options.key_type, shards),
    default = options.default_shard,
    ttl = number_option(options, "ttl", 60, 0),
    negative_ttl = number_option(options, "negative_ttl", 5, 0),
    cache = ttl_cache.new(number_option(options, "max_entries", 100000, 1), task.now),
    flights = {}, -- lookups under way, by index
  }
  state.lookup = options.lookup
  if options.table then
    state.lookup = query_lookup(state, table_query(options, shards), options.on)
  end
  return state
end

-- What the lookup says, checked: true and the shard_id (nil when not found), or nil, err.
local function ask(state, key)
  local ok, shard_id, err = pcall(state.lookup, key)
  if not ok then
    if errors.is(shard_id, "CANCELED") then
      error(shard_id, 0)
    end
    return nil, errors.wrap(shard_id, {
      code = "PLUGIN_FAILED",
      message = "directory lookup failed: " .. tostring(shard_id),
    })
  elseif shard_id == nil then
    if err == nil then
      return true, nil
    end
    return nil, errors.is(err) and err or errors.new("PLUGIN_FAILED", {
      message = "directory lookup failed: " .. tostring(err),
      cause = err,
    })
  end
  local known
  known, err = pcall(placement.check_shard, "directory entry of key " .. tostring(key), shard_id, state.shards)
  if not known then
    return nil, errors.new("INVALID", { message = err })
  end
  return true, shard_id
end

--- Go on with what another one has looked up; it is made for the same options and shards.
-- @tparam table state
-- @tparam table old its state
function directory.inherit(state, old)
  state.cache, state.flights = old.cache, old.flights
end

-- Run the lookup for everyone who waits. Whatever happens, also a cancel of this task, they are woken.
local function fly(state, index, key)
  local flight = { landed = task.event() }
  state.flights[index] = flight
  local ok, found, shard_id = pcall(ask, state, key)
  flight.done, flight.found, flight.shard_id = ok, found, shard_id
  if state.flights[index] == flight then -- an invalidation in the meantime took it out
    state.flights[index] = nil
    if ok and found then
      state.cache:set(index, shard_id, shard_id and state.ttl or state.negative_ttl)
    end
  end
  flight.landed:notify()
  if not ok then
    error(found, 0)
  end
  return found, shard_id
end

-- true and the shard_id or nil, or nil and an error.
local function resolve(state, index, key)
  if state.entries[index] or not state.lookup then
    return true, state.entries[index]
  end
  while true do
    local cached, shard_id = state.cache:get(index)
    if cached then
      return true, shard_id
    end
    local flight = state.flights[index]
    if not flight then
      return fly(state, index, key)
    end
    flight.landed:wait()
    if flight.done then
      return flight.found, flight.shard_id
    end
    -- The task that asked was cancelled: ask again.
  end
end

local function find(state, index, key)
  local found, shard_id = resolve(state, index, key)
  if not found then
    return nil, shard_id
  end
  shard_id = shard_id or state.default
  if shard_id then
    return shard_id
  end
  return nil, errors.new("NO_SHARD", { message = ("the directory has no entry for key %s"):format(index) })
end

--- Where a key lives. Yields when it has to be looked up.
-- @tparam table state
-- @param key
-- @treturn[1] string shard_id
-- @treturn[1] number|string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `NO_SHARD`, `INVALID`, `PLUGIN_FAILED`, or the lookup's own
function directory.route(state, key)
  local index, canonical = placement.index(state.key_type, key)
  if index == nil then
    return nil, canonical
  end
  local shard_id, err = find(state, index, canonical)
  if shard_id == nil then
    return nil, err
  end
  return shard_id, index
end

--- The bucket of a key is the key itself, an int8 beyond 2^53 as its digits.
-- @tparam table state
-- @param key
-- @treturn[1] number|string
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY` or `INVALID`
function directory.bucket(state, key)
  local index, err = placement.index(state.key_type, key)
  if index == nil then
    return nil, err
  end
  return index
end

--- The shard of a bucket. Yields when it has to be looked up.
-- @tparam table state
-- @tparam number|string bucket
-- @treturn[1] string shard_id
-- @treturn[2] nil
-- @treturn[2] lunashard.error as of `route`
function directory.place(state, bucket)
  local shard_id, err = directory.route(state, bucket)
  if shard_id == nil then
    return nil, err
  end
  return shard_id
end

--- Take the way to query shards that a directory table needs.
-- @tparam table state
-- @tparam function execute `execute(shard_id, sql, params)` -> result | nil, err
function directory.attach(state, execute)
  state.execute = execute
end

--- Forget what was looked up; lookups under way are not stored.
-- @tparam table state
-- @param[opt] key everything when absent
function directory.invalidate(state, key)
  if key == nil then
    state.cache:clear()
    state.flights = {}
    return
  end
  local index, err = placement.index(state.key_type, key)
  if index == nil then
    error("invalidate: " .. err.message, 3)
  end
  state.cache:remove(index)
  state.flights[index] = nil
end

return directory
