--- What the routers of a chaos run do: each operation tells the history before it is sent and when it has ended.
-- @module spec.chaos.workload

local errors = require("lunashard.errors")
local world = require("spec.chaos.world")

local workload = {}

local ISOLATION = { "read committed", "read committed", "repeatable read", "serializable" }

local Worker = {}
Worker.__index = Worker

--- @tparam Router router
-- @tparam Writer history
-- @tparam table options `keys`, `timeout`, `process`
function workload.new(router, history, options)
  return setmetatable({ router = router, history = history, keys = options.keys, timeout = options.timeout,
    process = options.process, n = 0, tokens = {} }, Worker)
end

local function unique(self)
  self.n = self.n + 1
  return ("%s-%d"):format(self.process, self.n)
end

-- Tell of an operation and do it. `fn` returns the outcome's fields, or nil and an error. One that is cancelled stays
-- without an end, for nobody knows then.
local function told(self, kind, what, fn)
  local id = self.history:begin(kind, what)
  local ok, outcome, err = pcall(fn)
  if not ok then
    if errors.is(outcome) then
      outcome, err = nil, outcome
    else
      error(outcome, 0)
    end
  end
  if outcome then
    outcome.ok = true
  else
    outcome = { code = err.code, message = tostring(err) }
  end
  self.history:finish(id, outcome)
  return outcome.ok and outcome or nil
end

local function for_key(self, key, more)
  local opts = more or {}
  opts.routing_key, opts.timeout = key, self.timeout
  return opts
end

local function one_row(result)
  return assert(result.rows[1], "the row is gone")
end

-- In a transaction of some isolation, tried again when the server says so.
local function transact(self, key, fn)
  return self.router:transaction({ routing_key = key, isolation = ISOLATION[math.random(#ISOLATION)], retries = 5,
    timeout = self.timeout }, fn)
end

-- A row that is not there is not an error of the database: it is what is looked for.
local GONE = { version = -1, value = "gone" }

local operations = {}

function operations.write(self, key)
  local value = unique(self)
  local sql = "UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version"
  told(self, "write", { key = key, value = value }, function()
    local result, err
    if math.random() < 0.3 then
      result, err = transact(self, key, function(tx)
        return assert(tx:execute(sql, { key, value }))
      end)
    else
      result, err = self.router:execute(sql, { key, value }, for_key(self, key))
    end
    return result and { version = (result.rows[1] or GONE).version }, err
  end)
end

function operations.read(self, key)
  told(self, "read", { key = key }, function()
    local result, err = self.router:execute("SELECT version, value FROM registers WHERE k = $1", { key },
      for_key(self, key))
    local row = result and (result.rows[1] or GONE)
    return row and { version = row.version, value = row.value }, err
  end)
end

function operations.insert(self, key)
  local token = unique(self)
  local body = ("%02x"):format(math.random(0, 255)):rep(world.SIZES[math.random(#world.SIZES)] / 2)
  local done = told(self, "insert", { key = key, token = token }, function()
    local result, err = self.router:execute("INSERT INTO tokens (k, token, body) VALUES ($1, $2, $3)",
      { key, token, body }, for_key(self, key))
    return result and {}, err
  end)
  if done then
    table.insert(self.tokens, { key = key, token = token })
  end
end

function operations.insert_many(self, key)
  local rows = {}
  for i = 1, 5 do
    rows[i] = { (key + i * 7) % self.keys + 1, unique(self), "copied" }
  end
  local ids = {}
  for i, row in ipairs(rows) do
    ids[i] = self.history:begin("insert", { key = row[1], token = row[2] })
  end
  local ok, result, err = pcall(self.router.copy_in, self.router, "tokens", { "k", "token", "body" }, rows,
    { timeout = self.timeout })
  if not ok then
    assert(errors.is(result), result)
    result, err = nil, result
  end
  for i, row in ipairs(rows) do
    -- What failed midway may be there in part.
    self.history:finish(ids[i], result and { ok = true } or { code = "UNKNOWN_OUTCOME", message = tostring(err) })
    if result then
      table.insert(self.tokens, { key = row[1], token = row[2] })
    end
  end
end

function operations.delete(self)
  local n = #self.tokens
  if n < 20 then
    return
  end
  local i = math.random(n)
  local one = self.tokens[i]
  self.tokens[i] = self.tokens[n]
  self.tokens[n] = nil
  told(self, "delete", { key = one.key, token = one.token }, function()
    local result, err = self.router:execute("DELETE FROM tokens WHERE k = $1 AND token = $2", { one.key, one.token },
      for_key(self, one.key))
    return result and { rows = result.row_count }, err
  end)
end

function operations.transfer(self, key)
  told(self, "transfer", { key = key }, function()
    local done, err = transact(self, key, function(tx)
      local amount = math.random(10)
      assert(tx:execute("UPDATE accounts SET balance = balance - $2 WHERE k = $1 AND side = 1", { key, amount }))
      if math.random() < 0.05 then
        require("lunashard").sleep(math.random() * 0.3) -- longer than the lock_timeout of a mover
      end
      assert(tx:execute("UPDATE accounts SET balance = balance + $2 WHERE k = $1 AND side = 2", { key, amount }))
      return true
    end)
    return done and {}, err
  end)
end

function operations.sum(self, key)
  told(self, "sum", { key = key, expected = 2 * world.BALANCE }, function()
    local result, err = self.router:execute("SELECT sum(balance)::bigint AS total FROM accounts WHERE k = $1", { key },
      for_key(self, key, { read_only = math.random() < 0.5 }))
    return result and { seen = one_row(result).total or 0 }, err
  end)
end

function operations.adopt(self, key)
  told(self, "adopt", { key = key }, function()
    local done, err = transact(self, key, function(tx)
      assert(tx:execute("UPDATE parents SET children = children + 1 WHERE k = $1", { key }))
      assert(tx:execute("INSERT INTO children (k, body) VALUES ($1, repeat('c', $2::int))",
        { key, world.SIZES[math.random(2)] }))
      return true
    end)
    return done and {}, err
  end)
end

function operations.family(self, key)
  told(self, "family", { key = key, expected = 0 }, function()
    local result, err = self.router:execute([[
      SELECT p.children - (SELECT count(*) FROM children c WHERE c.k = p.k) AS odd FROM parents p WHERE p.k = $1]],
      { key }, for_key(self, key))
    return result and { seen = tonumber((result.rows[1] or { odd = -1 }).odd) }, err
  end)
end

function operations.scatter(self)
  local all = self.keys * 2
  told(self, "scatter", { expected = ("%d accounts with %d"):format(all, all * world.BALANCE) }, function()
    local result, err = self.router:execute("SELECT count(*) AS n, sum(balance) AS total FROM accounts", nil,
      { timeout = self.timeout })
    local row = result and one_row(result)
    return row and { seen = ("%d accounts with %d"):format(tonumber(row.n), tonumber(row.total) or 0) }, err
  end)
end

local MIX = {
  { "write", 25 }, { "read", 25 }, { "insert", 10 }, { "insert_many", 1 }, { "delete", 8 }, { "transfer", 10 },
  { "sum", 10 }, { "adopt", 5 }, { "family", 4 }, { "scatter", 2 },
}

local DRAWN = {}
for _, one in ipairs(MIX) do
  for _ = 1, one[2] do
    DRAWN[#DRAWN + 1] = one[1]
  end
end

--- Do one operation, any. Yields.
function Worker:step()
  operations[DRAWN[math.random(#DRAWN)]](self, math.random(self.keys))
end

return workload
