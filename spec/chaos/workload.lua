--- What the routers of a chaos run do with registers, tokens, accounts and families, and with all keys at once.
-- @module spec.chaos.workload

local extras = require("spec.chaos.extras")
local lunashard = require("lunashard")
local worker = require("spec.chaos.worker")
local world = require("spec.chaos.world")

local workload = {}

-- A row that is not there is not an error of the database: it is what is looked for.
local GONE = { version = -1, value = "gone" }

local operations = {}

function operations.write(self, key)
  local value = self:unique()
  self:told("write", { key = key, value = value }, function()
    local result, err = self:run(key, "UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version",
      { key, value })
    return result and { version = (result.rows[1] or GONE).version }, err
  end)
end

function operations.read(self, key)
  self:told("read", { key = key }, function()
    local result, err = self.router:execute("SELECT version, value FROM registers WHERE k = $1", { key },
      self:for_key(key))
    local row = result and (result.rows[1] or GONE)
    return row and { version = row.version, value = row.value }, err
  end)
end

-- Keys of several shards in one statement.
function operations.read_many(self, key)
  local keys, list = {}, {}
  for i = 1, 4 do
    keys[i] = (key + i * 11) % self.keys + 1
    list[i] = { key = keys[i] }
  end
  self:told_together("read", list, function()
    local result, err = self.router:execute("SELECT k, version, value FROM registers WHERE k IN ($1, $2, $3, $4)", keys,
      { timeout = self.timeout })
    local outcomes, by_key = {}, {}
    for _, row in ipairs(result and result.rows or {}) do
      by_key[row.k] = row
    end
    for i, one in ipairs(keys) do
      local row = by_key[one] or GONE
      outcomes[i] = { version = row.version, value = row.value }
    end
    return result and outcomes, err
  end)
end

local INSERT = "INSERT INTO tokens (k, token, body) VALUES ($1, $2, $3)"

local function new_token(self, key)
  local body = math.random(#world.BODIES)
  return { key = key, token = ("%s/%d"):format(self:unique(), body) }, world.BODIES[body]
end

local function remember(self, list)
  for _, one in ipairs(list) do
    table.insert(self.tokens, { key = one.key, token = one.token })
  end
end

function operations.insert(self, key)
  local one, body = new_token(self, key)
  local done = self:told("insert", one, function()
    local result, err = self:run(key, INSERT, { key, one.token, body })
    return result and {}, err
  end)
  remember(self, done and { one } or {})
end

local function several_tokens(self, key)
  local list, rows, outcomes = {}, {}, {}
  for i = 1, 5 do
    local body
    list[i], body = new_token(self, (key + i * 7) % self.keys + 1)
    rows[i], outcomes[i] = { list[i].key, list[i].token, body }, {}
  end
  return list, rows, outcomes
end

local function insert_several(self, key, send)
  local list, rows, outcomes = several_tokens(self, key)
  local done = self:told_together("insert", list, function()
    local result, err = send(rows)
    return result and outcomes, err
  end)
  remember(self, done and list or {})
end

function operations.copy(self, key)
  insert_several(self, key, function(rows)
    return self.router:copy_in("tokens", { "k", "token", "body" }, rows, { timeout = self.timeout })
  end)
end

function operations.execute_many(self, key)
  insert_several(self, key, function(rows)
    return self.router:execute_many(INSERT, rows, { key = 1, timeout = self.timeout })
  end)
end

function operations.delete(self)
  local one = worker.take(self.tokens)
  if one then
    self:told("delete", one, function()
      local result, err = self:run(one.key, "DELETE FROM tokens WHERE k = $1 AND token = $2", { one.key, one.token })
      return result and { rows = result.row_count }, err
    end)
  end
end

function operations.transfer(self, key)
  self:told("transfer", { key = key }, function()
    local done, err = self:transact(key, function(tx)
      local amount, dice = math.random(10), math.random()
      assert(tx:execute("UPDATE accounts SET balance = balance - $2 WHERE k = $1 AND side = 1", { key, amount }))
      if dice < 0.005 then
        lunashard.sleep(2 + math.random() * 3) -- longer than a cutover may take
      elseif dice < 0.05 then
        lunashard.sleep(math.random() * 0.3) -- longer than the lock_timeout of a mover
      end
      assert(tx:execute("UPDATE accounts SET balance = balance + $2 WHERE k = $1 AND side = 2", { key, amount }))
      return true
    end)
    return done and {}, err
  end)
end

function operations.sum(self, key)
  self:told("sum", { key = key, expected = 2 * world.BALANCE }, function()
    local result, err = self.router:execute("SELECT sum(balance)::bigint AS total FROM accounts WHERE k = $1", { key },
      self:for_key(key, { read_only = math.random() < 0.5 }))
    return result and { seen = assert(result.rows[1], "a sum has one row").total or 0 }, err
  end)
end

function operations.adopt(self, key)
  self:told("adopt", { key = key }, function()
    local done, err = self:transact(key, function(tx)
      assert(tx:execute("UPDATE parents SET children = children + 1 WHERE k = $1", { key }))
      assert(tx:execute("INSERT INTO children (k, body) VALUES ($1, repeat('c', $2::int))",
        { key, world.SIZES[math.random(2)] }))
      return true
    end)
    return done and {}, err
  end)
end

function operations.family(self, key)
  self:told("family", { key = key, expected = 0 }, function()
    local result, err = self.router:execute([[
      SELECT p.children - (SELECT count(*) FROM children c WHERE c.k = p.k) AS odd FROM parents p WHERE p.k = $1]],
      { key }, self:for_key(key))
    return result and { seen = tonumber((result.rows[1] or { odd = -1 }).odd) }, err
  end)
end

local function all_accounts(self)
  local n = self.keys * 2
  return ("%d accounts with %d"):format(n, n * world.BALANCE)
end

function operations.scatter(self)
  self:told("scatter", { expected = all_accounts(self) }, function()
    local result, err = self.router:execute("SELECT count(*) AS n, sum(balance) AS total FROM accounts", nil,
      { timeout = self.timeout, read_only = math.random() < 0.3 })
    local row = result and assert(result.rows[1], "a sum has one row")
    return row and { seen = ("%d accounts with %d"):format(tonumber(row.n), tonumber(row.total) or 0) }, err
  end)
end

-- A stream that breaks off is an error, and never the end of the rows.
function operations.stream(self)
  self:told("scatter", { expected = all_accounts(self) }, function()
    local rows, err = self.router:stream("SELECT k, balance FROM accounts", nil,
      { timeout = self.timeout, fetch_size = 20 })
    if not rows then
      return nil, err
    end
    local n, total = 0, 0
    for row in rows do
      n, total = n + 1, total + row.balance
    end
    return { seen = ("%d accounts with %d"):format(n, total) }
  end)
end

local MIX = {
  { operations.write, 25 }, { operations.read, 20 }, { operations.read_many, 3 }, { operations.insert, 8 },
  { operations.copy, 1 }, { operations.execute_many, 1 }, { operations.delete, 15 }, { operations.transfer, 10 },
  { operations.sum, 10 }, { operations.adopt, 5 }, { operations.family, 4 }, { operations.scatter, 2 },
  { operations.stream, 1 }, { extras.insert, 3 }, { extras.touch, 5 }, { extras.rekey, 3 }, { extras.delete, 3 },
  { extras.read, 5 }, { extras.sweep, 0.5 },
}

--- The kinds of operations, each of which is to be seen done in a run that proves something.
workload.KINDS = { "write", "read", "insert", "delete", "transfer", "sum", "adopt", "family", "scatter", "step", "whole",
  "sweep" }

local WEIGHT = 0
for _, one in ipairs(MIX) do
  WEIGHT = WEIGHT + one[2]
end

--- Do one operation, any. Yields.
-- @tparam Worker self
function workload.step(self)
  local drawn = math.random() * WEIGHT
  for _, one in ipairs(MIX) do
    drawn = drawn - one[2]
    if drawn < 0 then
      return one[1](self, math.random(self.keys))
    end
  end
end

return workload
