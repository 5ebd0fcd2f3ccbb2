--- One of those who work in a router process: what it does it tells the history before it is sent and when it has ended.
-- @module spec.chaos.worker

local errors = require("lunashard.errors")
local history = require("spec.chaos.history")

local worker = {}

local Worker = {}
Worker.__index = Worker

local ISOLATION = { "read committed", "read committed", "repeatable read", "serializable" }

--- @tparam Router router
-- @tparam Writer writer of the history
-- @tparam table options `keys`, `timeout`, `process`, `number` (of the worker, no two of a run have the same)
function worker.new(router, writer, options)
  return setmetatable({ router = router, history = writer, keys = options.keys, timeout = options.timeout,
    process = options.process, number = options.number, n = 0, tokens = {}, extras = {} }, Worker)
end

--- @treturn string a text that nobody else has
function Worker:unique()
  self.n = self.n + 1
  return ("%s-%d"):format(self.process, self.n)
end

-- What a function gives, or raises as an error of ours. Others go through.
local function attempt(fn)
  local ok, outcome, err = pcall(fn)
  if ok then
    return outcome, err
  elseif errors.is(outcome) then
    return nil, outcome
  end
  error(outcome, 0)
end

local function as_outcome(outcome, err)
  if outcome then
    outcome.ok = true
    return outcome
  end
  return history.failure(err)
end

--- Tell of an operation and do it. One that is cancelled stays without an end, for nobody knows then. Yields.
-- @string kind
-- @tparam table what
-- @tparam func fn returns the outcome's fields, or nil and an error
-- @treturn ?table the outcome when it was acknowledged
function Worker:told(kind, what, fn)
  local id = self.history:begin(kind, what)
  local outcome = as_outcome(attempt(fn))
  self.history:finish(id, outcome)
  return outcome.ok and outcome or nil
end

--- The same for several that are sent together: when that fails, any of them may have been done. Yields.
-- @string kind
-- @tparam {table,...} list what each is
-- @tparam func fn returns a list of outcomes, or nil and an error
-- @treturn boolean were they acknowledged?
function Worker:told_together(kind, list, fn)
  local ids = {}
  for i, what in ipairs(list) do
    ids[i] = self.history:begin(kind, what)
  end
  local outcomes, err = attempt(fn)
  for i, id in ipairs(ids) do
    local outcome = outcomes and as_outcome(outcomes[i]) or history.failure(err)
    outcome.code = not outcomes and "UNKNOWN_OUTCOME" or nil
    self.history:finish(id, outcome)
  end
  return outcomes ~= nil
end

--- Options of a statement for a key.
-- @int key
-- @tparam[opt] table more
function Worker:for_key(key, more)
  local opts = more or {}
  opts.routing_key, opts.timeout = key, self.timeout
  return opts
end

--- In a transaction of some isolation, tried again when the server says so. Yields.
-- @int key
-- @tparam func fn
function Worker:transact(key, fn)
  return self.router:transaction({ routing_key = key, isolation = ISOLATION[math.random(#ISOLATION)], retries = 5,
    timeout = self.timeout }, fn)
end

--- Run a statement for a key, sometimes in a transaction. Yields.
-- @int key
-- @string sql
-- @tparam table params
function Worker:run(key, sql, params)
  if math.random() < 0.3 then
    return self:transact(key, function(tx)
      return assert(tx:execute(sql, params))
    end)
  end
  return self.router:execute(sql, params, self:for_key(key))
end

--- Take one of a list, which has it no more.
-- @tparam table list
-- @treturn any nil while there are few
function worker.take(list)
  local n = #list
  if n < 20 then
    return nil
  end
  local i = math.random(n)
  local one = list[i]
  list[i] = list[n]
  list[n] = nil
  return one
end

return worker
