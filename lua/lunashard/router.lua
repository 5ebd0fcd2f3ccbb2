--- The router: sends statements to the shards that own their keys.
-- @module lunashard.router

local attempt = require("lunashard.router.attempt")
local checking = require("lunashard.router.checking")
local config = require("lunashard.config")
local extractor = require("lunashard.extractor")
local guarded = require("lunashard.router.guarded")
local hedge = require("lunashard.router.hedge")
local manager_module = require("lunashard.manager")
local options = require("lunashard.options")
local reads = require("lunashard.router.reads")
local reference = require("lunashard.router.reference")
local retry_budget = require("lunashard.router.retry_budget")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local statements = require("lunashard.router.statements")
local statistics = require("lunashard.router.statistics")
local task = require("lunashard.task")

local router = {}

local Router = {}
Router.__index = Router
Router.__name = "lunashard.router"

-- Local functions are constants to the compiler; these run for every statement.
local now, run, check, check_named = task.now, attempt.run, options.check, checking.check
local check_arguments, check_statement, resolve = routing.check_arguments, routing.check_statement, routing.resolve
local classify, type = statement.classify, type

function Router:__tostring()
  return ("lunashard.router(%s)"):format(tostring(self.manager))
end

--- Create a router.
-- Raises for an option that is unknown or wrong.
-- @tparam table given `shard_manager`; `query_timeout`, `retries`, `retry_budget`, `max_parallel_shards` and
--   `max_result_bytes` default to the manager's; so does `extractor`, which finds the key of a statement that is given
--   without one (see `lunashard.extractor`; false for none). A manager alone will do, as in the guide.
-- @treturn Router
function router.new(given)
  if manager_module.is(given) then
    given = { shard_manager = given }
  end
  local cfg, message = config.router(given)
  if not cfg then
    error("router: " .. message, 2)
  elseif not manager_module.is(cfg.shard_manager) then
    error("router: shard_manager: expected a manager, got a table", 2)
  end
  local self = setmetatable({
    manager = cfg.shard_manager,
    given = cfg,
    statistics = statistics.new(),
    statements = statements.new(),
    hedging = hedge.new(),
    spare = {}, -- tables for run_plainly
    n_spare = 0,
  }, Router)
  local ok, problem = extractor.check(cfg.extractor)
  if not ok then
    error("router: " .. problem, 2)
  end
  self:inherit()
  self.manager.routers[self] = true
  return self
end

--- Take the manager's options where there are none of its own: at first, and when those have changed.
-- @local
function Router:inherit()
  local own, inherited = self.given, self.manager.options
  self.query_timeout = own.query_timeout or inherited.query_timeout
  self.retries = own.retries or inherited.retries
  self.max_parallel_shards = own.max_parallel_shards or inherited.max_parallel_shards
  self.max_result_bytes = own.max_result_bytes or inherited.max_result_bytes
  self.hedge = own.hedge
  if own.hedge == nil then -- false is a choice
    self.hedge = inherited.hedge
  end
  local wanted = own.extractor
  if wanted == nil then
    wanted = inherited.extractor
  end
  self.extractor = extractor.find(wanted)
  -- Where nothing is declared, a key that the caller names is not questioned.
  self.checks = self.extractor ~= nil and (wanted ~= nil or next(self.manager.tables) ~= nil)
  local share = own.retry_budget or inherited.retry_budget
  self.retry_budget = self.retry_budget or retry_budget.new(share)
  self.retry_budget.share = share
  self.statements:configure(inherited)
end

local EXECUTE = options.known(routing.OPTIONS, reads.OPTIONS, {
  timeout = "seconds",
  retries = "count",
  decode_json = "boolean",
  max_result_bytes = "count",
  all_shards = "boolean",
  pipeline = "boolean",
  hedge = "any",
})
local NO_OPTIONS = {}

local function run_statement(endpoint, sql, params, pool_options)
  return endpoint.pool:execute(sql, params, pool_options)
end

--- The deadline of a call that starts now.
-- @local
-- @tparam table opts
-- @treturn number
function Router:deadline(opts)
  return now() + (opts.timeout or self.query_timeout)
end

--- Seconds since a call with this deadline began.
-- @local
-- @tparam table opts
-- @number deadline
-- @treturn number
function Router:elapsed(opts, deadline)
  return now() - deadline + (opts.timeout or self.query_timeout)
end

-- With what the reader has to know in `wishes`; see `lunashard.router.reads`.
local function run_plainly(self, member, sql, params, opts, deadline, wishes, under)
  -- The pool keeps nothing of this table: it is used again when the statement has ended, for a new one each time
  -- would be a third of what the router costs.
  local spare, n = self.spare, self.n_spare
  local how
  if n > 0 then
    how, self.n_spare = spare[n], n - 1
  else
    how = { deadline = 0, read_only = false, pipeline = true, decode_json = false, max_result_bytes = 0, generation = 0,
      late = 0, guard = false, member = false }
  end
  -- Never nil: a key without a value makes the table grow anew each time that it is set.
  how.deadline, how.read_only, how.pipeline = deadline, opts.read_only or false, opts.pipeline ~= false
  how.decode_json, how.max_result_bytes = opts.decode_json or false, opts.max_result_bytes or self.max_result_bytes
  local fn = run_statement
  if type(under) == "table" then
    fn, how.generation, how.late, how.guard, how.member = guarded.run_on, 0, 0, under, member
  else
    how.generation, how.guard = under or self.manager.generation, false
    how.late = 0
    if how.generation > 0 and classify(sql) == "read" then
      how.late = member.primary.pool:late(sql, opts.read_only)
    end
  end
  local result, err = run(self, member, wishes, opts.retries or self.retries, deadline, fn, sql, params, how)
  n = self.n_spare + 1
  spare[n], self.n_spare = how, n
  if err then
    err.elapsed = self:elapsed(opts, deadline)
    self.statements:failed(self, err, sql, params, opts)
    return nil, err
  elseif not wishes then
    member:mark_written(result)
  end
  self.statements:ended(self, result, sql, params, opts)
  return result
end

-- Apart: what closes over its arguments is not compiled.
local function run_hedged(self, member, sql, params, opts, deadline, wanted, under)
  return hedge.run(self, member, sql, opts, deadline, wanted, function(endpoint)
    return run_plainly(self, member, sql, params, opts, deadline, { endpoint = endpoint }, under)
  end)
end

--- Run a statement on one shard, with retries. Yields.
-- For the router's parts.
-- @local
-- @tparam table member
-- @string sql
-- @tparam table params
-- @tparam table opts those of `execute`
-- @number deadline
-- @tparam[opt] table|number under what it relies on, see `lunashard.router.guarding` [the present generation]
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Router:run_on(member, sql, params, opts, deadline, under)
  local wishes = opts.read_only
  if wishes then
    local wanted = opts.hedge
    if wanted == nil then
      wanted = self.hedge
    end
    if wanted and member.replicas[1] then
      return run_hedged(self, member, sql, params, opts, deadline, wanted, under)
    elseif opts.after ~= nil or opts.max_replica_lag ~= nil then
      wishes = opts
    end
  end
  return run_plainly(self, member, sql, params, opts, deadline, wishes, under)
end

--- Run one statement on the shard that owns a key. Yields.
-- Without `routing_key` and `shard_id` the statement says whose it is (see `lunashard.extractor`): it goes to the shard of
-- its key, or, with several keys or rows, to those shards, each with its part and in a transaction of its own; a
-- read without a key goes to all shards and their answers are merged, a write without one is refused. What contradicts a
-- key that the statement names is refused where tables are declared or an extractor was chosen.
-- Autocommit. Raises for unknown options and wrong types. Tried again (up to `retries`, inside the
-- one timeout) only when it is certain that it had no effect before.
-- @string sql with `$1`, `$2`, ...
-- @tparam[opt] table params values; NULL is `lunashard.null`
-- @tparam[opt] table opts `routing_key` or `shard_id`: where to; `table`: whose key it is; `read_only`: prefer
--   a replica, and promise that it changes nothing; `max_replica_lag`: how far behind the replica may be, seconds or
--   `{ bytes = n }` [the manager's]; `after`: the result of a write, or its `lsn`, that the read must see; `timeout`
--   seconds [query_timeout]; `retries`; `decode_json`; `hedge`: ask another endpoint too when a read takes longer than
--   this percentile of late [the router's], false for never;
--   `max_result_bytes`; `pipeline = false`: on a connection of its own; `all_shards = true`: the same as
--   `scatter_gather` with it. With a reference table in `table`, reads go to any healthy shard and writes to all
--   (each on its own: not atomic).
-- @treturn[1] table `rows`, `columns`, `column_types`, `row_count`, `command`, `shard_id`, `endpoint`, `duration`
--   (seconds), `attempts`, `success`; where the shard has replicas and `read_only` was not said, `lsn`: the position
--   of the write in the log (or a later one), asked of the primary when it is first looked at, which yields, and
--   raises when the primary does not say. Results of one
--   statement share the lists `columns` and `column_types`: copy them to change them. From several shards: as from
--   `scatter_gather`, and of what was split by its keys `split`, shard_id -> how many keys or rows were its
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_KEY`, `NULL_KEY`, `NO_SHARD`, `KEY_MISMATCH`, `INVALID`, `SQL`, `TIMEOUT`,
--   `SHARD_DOWN`,
--   `AUTH`, `UNKNOWN_OUTCOME`, `POOL_EXHAUSTED`, `RESULT_TOO_LARGE`, `CLOSED`; from several shards `SHARDS_FAILED`,
--   `NOT_MERGEABLE`
function Router:execute(sql, params, opts)
  check_arguments("execute", sql, params)
  opts = opts == nil and NO_OPTIONS or check(opts, EXECUTE, "execute")
  if opts.after ~= nil or opts.max_replica_lag ~= nil or opts.hedge ~= nil then
    reads.check(opts, "execute")
  end
  local manager = self.manager
  if manager.closed or not manager.initialized then
    return manager:check_open()
  end
  local kind, err = check_statement(sql, opts.read_only)
  if not kind then
    return nil, err
  elseif opts.all_shards then
    return self:execute_everywhere(sql, params, opts)
  elseif opts.table and routing.is_reference(manager, opts.table) then
    return self:execute_reference(sql, params, opts, kind)
  elseif opts.routing_key == nil and opts.shard_id == nil then
    return self:execute_extracted(sql, params, opts, kind)
  end
  local deadline = now() + (opts.timeout or self.query_timeout) -- here, for a directory may have to be asked
  local generation = manager.generation -- and this
  if manager.guarding then
    return guarded.execute(self, sql, params, opts, deadline)
  end
  local member, result
  member, err = resolve(manager, opts)
  if member and self.checks then
    local ok
    ok, err = check_named(self, sql, params, opts.routing_key, member)
    member = ok and member
  end
  if not member then
    return nil, err
  end
  result, err = self:run_on(member, sql, params, opts, deadline, generation)
  if err and generation > 0 then
    return guarded.execute(self, sql, params, opts, deadline, err)
  end
  return result, err
end

--- `execute` with the name of a reference table. Yields.
-- @local
-- @string sql
-- @tparam ?table params
-- @tparam table opts
-- @string kind `read` or `write`
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Router:execute_reference(sql, params, opts, kind)
  local deadline = self:deadline(opts)
  local ok, err = checking.check_reference(self, opts.table, sql, params)
  if not ok then
    return nil, err
  end
  return reference.run(self, opts.table, sql, params, opts, kind, deadline)
end

--- The statements that took most time in the last five minutes, without the values in them. A few of all are looked at
-- (about a hundred in a second), and those that took `slow_statement` or longer: numbers are estimates when there are
-- more. Statements of streams, of `execute_many` and of `copy_in` are not among them.
-- @int[opt] n how many at the most [10]
-- @treturn {table,...} `statement` (the same for those that differ in values alone), `count`, `seconds` (in
--   all), `average_ms`, `longest_ms`, `share` (of the time of all)
function Router:get_top_statements(n)
  return self.statements:top(n or 10)
end

--- The buckets that got most statements in the last five minutes, estimated as `get_top_statements` does.
-- Only of strategies with numbered buckets: `hash`, `consistent_hash`, `rendezvous`.
-- @int[opt] n how many at the most [10]
-- @treturn {table,...} `bucket`, `shard_id`, `count`, `seconds`, `share` (of the time of all); `table` where strategies
--   differ by table
function Router:get_top_buckets(n)
  return self.statements:top_buckets(n or 10)
end

--- The latest statements that took `slow_statement` or longer, without values; 50 at the most.
-- @treturn {table,...} the latest last: `at` (seconds since 1970), `statement`, `shard_id`, `endpoint`, `bucket`,
--   `duration` (seconds), `error` (its code, when it failed)
function Router:get_slow_statements()
  return { unpack(self.statements.recent) }
end

--- What the router has done so far.
-- @treturn table see `lunashard.router.statistics`
function Router:get_statistics()
  return self.statistics:snapshot()
end

-- Each part adds its methods to the one class.
for _, part in ipairs({ "scatter", "extracting", "broadcast", "transaction", "execute_many", "copy_in", "copy_out",
  "stream", "explain" }) do
  for name, method in pairs(require("lunashard.router." .. part).methods) do
    Router[name] = method
  end
end

return router
