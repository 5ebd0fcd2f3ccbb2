--- Large results row by row, with memory that stays flat.
-- Every shard is asked at once and then read as its rows are wanted; what is not
-- yet wanted waits on the servers. A stream holds one connection a shard until its end,
-- its `close`, or the end of its task.
-- @module lunashard.router.stream

local attempt = require("lunashard.router.attempt")
local checking = require("lunashard.router.checking")
local cursors = require("lunashard.router.cursors")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local health = require("lunashard.manager.health")
local lease_of_map = require("lunashard.catalog.lease")
local merged = require("lunashard.order.merged")
local options = require("lunashard.options")
local order = require("lunashard.order")
local parallel = require("lunashard.parallel")
local reads = require("lunashard.router.reads")
local reference = require("lunashard.router.reference")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local splitting = require("lunashard.router.splitting")
local statement = require("lunashard.router.statement")
local target = require("lunashard.router.target")
local task = require("lunashard.task")

local stream = { methods = {} }

--- Options of `tx:stream`.
-- @table OPTIONS
stream.OPTIONS = { fetch_size = "count", timeout = "seconds", decode_json = "boolean" }

local MAX_FETCH_SIZE = 1000000

local STREAM = options.known(routing.OPTIONS, reads.OPTIONS, stream.OPTIONS, {
  order_by = "any",
  limit = "count",
  offset = "count",
  shard_ids = "table",
  all_shards = "boolean",
})

--- Raise unless so many rows can be fetched at a time.
-- @string what function name
-- @tparam ?number size
function stream.check_fetch_size(what, size)
  if size and (size < 1 or size > MAX_FETCH_SIZE) then
    error(("%s: option fetch_size: expected 1 to %d, got %s"):format(what, MAX_FETCH_SIZE, options.describe(size)), 3)
  end
end

local Stream = {}
Stream.__index = Stream
Stream.__name = "lunashard.stream"

function Stream:__tostring()
  return ("lunashard.stream(%s)"):format(self.closed and "closed" or "open")
end

local NOTHING = {}

-- The next rows have to be waited for: the first of them, or the end.
local function refill(self)
  if self.cut_off then
    error(self.cut_off, 0)
  elseif self.closed then
    return nil
  end
  if self.reading then -- two tasks would get some rows twice
    error(errors.new("INVALID", { message = "another task is waiting for this stream's next row" }), 0)
  end
  self.reading = true
  if not self.pull then
    local ok, pull, err = pcall(self.open, self)
    if not ok or not pull then
      self:close()
      error(ok and err or pull, 0)
    end
    self.pull = pull
  end
  local rows, from = self.pull()
  self.reading = false
  if rows ~= nil and not self.closed then
    self.rows, self.from, self.at = rows, from, 1
    return rows[1], from[1]
  end
  self:close()
  if self.cut_off then
    error(self.cut_off, 0)
  elseif rows == nil and from ~= nil then -- the error, then
    error(from, 0)
  end
end

-- A stream is its own iterator: `for row, shard_id in stream do`.
function Stream:__call()
  local at = self.at + 1
  local row = self.rows[at]
  if row == nil then
    return refill(self)
  end
  self.at = at
  return row, self.from[at]
end

--- End the stream for a reason of ours. Whoever reads on learns of it: the rest is lost, not read.
-- @local
-- @string reason
function Stream:cut(reason)
  self.cut_off = errors.new("CLOSED", { message = reason })
  self:close()
end

--- End the stream and give its connections back. May be called again; not needed after the last row.
function Stream:close()
  if self.closed then
    return
  end
  self.closed, self.rows = true, NOTHING
  for _, source in ipairs(self.sources) do
    source.close()
  end
end

--- A stream that is opened when its first row is asked for.
-- @tparam func open given the stream, fills its `sources` (what is to be closed) and returns a function that
--   gives a list of rows and that of their shard_ids, nil at the end, or nil and an error; or returns nil and an error
--   itself
-- @treturn Stream
function stream.new(open)
  return setmetatable({ open = open, sources = {}, closed = false, rows = NOTHING, from = NOTHING, at = 0 }, Stream)
end

-- The shard_ids of rows that are all from one shard.
local function all_from(shard_id)
  return setmetatable({}, {
    __index = function()
      return shard_id
    end,
  })
end

--- Read sources one after the other.
-- @tparam {table,...} sources see `lunashard.router.cursors`, with `shard_id`
-- @treturn func
function stream.in_turn(sources)
  local at, from = 1, sources[1] and all_from(sources[1].shard_id)
  return function()
    while sources[at] do
      local rows, err = sources[at].next_rows()
      if rows ~= nil then
        return rows, from
      elseif err then
        return nil, err
      end
      sources[at].close()
      at = at + 1
      from = sources[at] and all_from(sources[at].shard_id)
    end
  end
end

-- The rows after `offset`, `limit` of them at the most.
local function bounded(pull, limit, offset)
  local skip, left = offset or 0, limit or math.huge
  return function()
    while left > 0 do
      local rows, from = pull()
      if rows == nil then
        return nil, from
      end
      local first, last = skip + 1, math.min(#rows, skip + left)
      skip = math.max(skip - #rows, 0)
      if first <= last then
        left = left - (last - first + 1)
        local some, whose = {}, {}
        for i = first, last do
          some[#some + 1], whose[#whose + 1] = rows[i], from[i]
        end
        return some, whose
      end
    end
  end
end

-- Connections are taken by this task, which thereby owns them, one shard after the other; then
-- the statements start on all servers at once, for that is what takes long. `statement_of(i)` gives sql and params
-- for the member of this number.
local function open_on(self, router, members, statement_of, how)
  local endpoints, leases = {}, {}
  local function give_up(err)
    for _, lease in ipairs(leases) do
      lease:release()
    end
    err.elapsed = task.now() - how.started
    return nil, err
  end
  for i, member in ipairs(members) do
    local lease, endpoint = attempt.lease(router, member, how, how.acquire_deadline)
    if not lease then
      return give_up(endpoint)
    end
    endpoints[i], leases[i] = endpoint, lease
  end
  local opened = parallel.each(leases, function(lease, i)
    local sql, params = statement_of(i)
    local guard = how.guard_of and how.guard_of(members[i], i)
    if type(guard) == "table" then
      local ok, err = cursors.begin(lease, guard, how.deadline or how.acquire_deadline)
      if not ok then
        return nil, err
      end
    end
    return cursors.on_lease(lease, sql, params, how)
  end)
  for i, member in ipairs(members) do
    local err = opened.errors[i]
    if err and router.manager.catalog and guarding.is_stale(err) then
      return give_up(err)
    elseif err then
      router.manager:note(endpoints[i], err)
      router.statistics:record_failure(member.shard_id, err, (statement_of(i)))
      return give_up(err)
    end
  end
  if how.generation > 0 and not lease_of_map.holds(router.manager, how.generation) then
    return give_up((select(2, guarding.changed())))
  end
  for i, member in ipairs(members) do
    local source, lease, endpoint = opened.results[i], leases[i], endpoints[i]
    local end_cursor = source.close
    source.shard_id = member.shard_id
    function source.close()
      if lease then
        end_cursor()
        lease:release()
        health.success(endpoint.health)
        router.statistics:record(member.shard_id, source.elapsed(), endpoint.name, "SELECT")
        lease = nil
      end
    end
    self.sources[i] = source
  end
  return true
end

-- What says that the statement itself names no shard; then all of them are read.
local SAYS_NOTHING = { NO_KEY = true, INVALID = true, SQL = true }

-- The members that are read, and, where each gets a part of the statement, a function of its number; and what guards
-- them, a function of a member and its number.
local function find_members(router, sql, params, kind, opts)
  local found, err
  if router.extractor and opts.shard_ids == nil and not opts.all_shards then
    found, err = target.find(router, sql, params, kind)
  end
  local function guard_of(member, i)
    return guards.found(router.manager, found, member, params, i)
  end
  if found and found.member then
    return { found.member }, nil, guard_of
  elseif found and found.anywhere then
    return { reference.any(router) }, nil, function() end
  elseif found and kind == "read" then
    return found.members, found.groups and function(i)
      return splitting.part(found, i, sql, params)
    end, found.groups and guard_of
  elseif err and not SAYS_NOTHING[err.code] then
    return nil, err
  elseif kind == "write" and not opts.all_shards then
    return nil, errors.new("INVALID", {
      message = "a statement that writes would run on every shard: pass routing_key, "
        .. "or all_shards = true when that is meant",
    })
  end
  return scatter.members(router.manager, opts.shard_ids)
end

local function choose_members(router, sql, params, kind, opts)
  if opts.routing_key == nil and opts.shard_id == nil then
    return find_members(router, sql, params, kind, opts)
  end
  local member, err = routing.resolve(router.manager, opts)
  if member and router.checks then
    local ok
    ok, err = checking.check(router, sql, params, opts.routing_key, member)
    member = ok and member
  end
  if not member then
    return nil, err
  end
  return { member }, nil, function()
    return guarding.under(router.manager, true, member, opts.table, opts.routing_key)
  end
end

local function begin(router, sql, params, opts)
  local ok, err = router.manager:check_open()
  local kind
  if ok then
    kind, err = routing.check_statement(sql, opts.read_only)
  end
  if not kind then
    return nil, err
  elseif opts.limit and kind == "write" then
    return nil, errors.new("INVALID", {
      message = "option limit would end a statement that writes in the middle: say it in the statement",
    })
  end
  local members, part, guard_of = choose_members(router, sql, params, kind, opts)
  return members, part, kind, guard_of
end

-- The guards of all members, or nil. With one map for all of them, whoever had to be asked meanwhile.
local function guards_of(router, members, guarded, kind, guard_of, map)
  local manager = router.manager
  if not guarded then
    return nil
  elseif kind == "write" then
    return guarding.refusal(manager, "a statement that writes cannot be streamed")
  end
  local made = {}
  local under = guarding.under_all(manager, true, members)
  for i, member in ipairs(members) do
    local guard, err = under(member), nil
    if guard_of then
      guard, err = guard_of(member, i)
    end
    if err then
      return nil, err
    end
    made[member] = guard
  end
  if manager.catalog.map ~= map then
    return guarding.changed()
  end
  return function(member)
    return made[member]
  end
end

--- Read rows one by one, from one shard or from all. Yields while iterating.
-- Nothing is sent before the first row is asked for. The iterator raises error objects, for a `for` loop cannot
-- return them: `NO_SHARD`, `SQL`, `TIMEOUT`, `SHARD_DOWN`, `INVALID`, `CLOSED`, `NOT_MERGEABLE` (order_by that
-- contradicts the statement's ORDER BY, or that the server alone can decide). After an early `break`, call `close`:
-- what still runs is cancelled on the servers, and the connections are free as soon as they have answered.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts `routing_key` or `shard_id` (with `table`): one shard; without them those of the keys that the
--   statement names (see `lunashard.extractor`), otherwise all shards, or those in `shard_ids`, one after the other, or
--   merged by `order_by = "created_at desc, id"`, which must be the statement's own ORDER BY;
--   `limit` and `offset` of the rows as they come out (each shard is asked for `limit + offset` at the most);
--   `fetch_size` [500] rows at a time, `timeout` for the whole stream [none], `read_only`, `after`, `max_replica_lag`,
--   `decode_json`, `all_shards`
-- @treturn Stream for `for row, shard_id in router:stream(...) do`, with `close`
function stream.methods:stream(sql, params, opts)
  routing.check_arguments("stream", sql, params)
  opts = options.check(opts, STREAM, "stream")
  reads.check(opts, "stream")
  local items = opts.order_by ~= nil and order.parse(opts.order_by, nil, 2) or nil
  stream.check_fetch_size("stream", opts.fetch_size)
  local function open_all(made, started, deadline, guarded, wishes)
    local manager = self.manager
    local generation, map = manager.generation, manager.catalog and manager.catalog.map
    local members, part, kind, guard_of = begin(self, sql, params, opts)
    if not members then
      return nil, part
    end
    local guards_by_member, err = guards_of(self, members, guarded, kind, guard_of, map)
    if err then
      return nil, err
    end
    return open_on(made, self, members, function(i)
      local own, values = sql, params
      if part then
        own, values = part(i)
      end
      return opts.limit and statement.with_limit(own, opts.limit + (opts.offset or 0)) or own, values
    end, {
      started = started,
      writes = kind == "write",
      deadline = deadline,
      acquire_deadline = deadline or self:deadline(opts),
      read_only = opts.read_only,
      wishes = wishes,
      decode_json = opts.decode_json,
      fetch_size = opts.fetch_size,
      guard_of = guards_by_member,
      generation = guards_by_member and guarding.EXEMPT or generation,
    })
  end
  return stream.new(function(made)
    local started = task.now()
    local deadline = opts.timeout and started + opts.timeout
    local wishes = reads.wishes(opts)
    local ok, err = guarding.through(self.manager, deadline or self:deadline(opts), function(guarded)
      local wished = wishes
      wishes = nil -- what a standby has not heard of yet, the primary has
      return open_all(made, started, deadline, guarded, wished)
    end)
    if not ok then
      return nil, err
    end
    local pull
    if items then
      pull, err = merged.pull(items, made.sources, opts.fetch_size or cursors.FETCH_SIZE, opts.decode_json)
    else
      pull = stream.in_turn(made.sources)
    end
    if pull and (opts.limit or opts.offset) then
      pull = bounded(pull, opts.limit, opts.offset)
    end
    return pull, err
  end)
end

return stream
