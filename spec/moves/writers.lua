--- Writers and readers of a few keys, through a router of the spec's own process; what they were told is kept.
-- @module spec.moves.writers

local errors = require("lunashard.errors")
local history = require("spec.chaos.history")
local task = require("lunashard.task")

local writers = {}

local Writers = {}
Writers.__index = Writers

local ISOLATION = { "read committed", "read committed", "repeatable read", "serializable" }
local TIMEOUT = 20 -- seconds for a statement, which may have to wait for whoever goes on with a move
local PAUSE = 0.003 -- seconds at most between two operations of a task: the machine is to be shared
local PROCESS = "spec"

local WRITE = "UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version"
local READ = "SELECT version, value FROM registers WHERE k = $1"
local INSERT = "INSERT INTO tokens (k, token, body) VALUES ($1, $2, repeat('t', $3::int))"
local DELETE = "DELETE FROM tokens WHERE k = $1 AND token = $2"
local SIZES = { 10, 3000 } -- of a token's body, in the row and out of line

-- A row that is not there is no error of the database: it is what is looked for.
local GONE = { version = -1, value = "gone" }

-- Tell of an operation and do it; `fn` returns the outcome's fields, or nil and an error.
local function told(self, kind, what, fn)
  local id = self.history:begin(kind, what)
  local ok, outcome, err = pcall(fn)
  if not ok then
    if not errors.is(outcome) then
      error(outcome, 0)
    end
    outcome, err = nil, outcome
  end
  if outcome then
    outcome.ok = true
  end
  self.history:finish(id, outcome or { code = err.code, message = tostring(err) })
  return outcome ~= nil
end

local function unique(self)
  self.n = self.n + 1
  return ("t%d"):format(self.n)
end

local function execute(self, key, sql, params, read_only)
  return self.router:execute(sql, params, { routing_key = key, timeout = TIMEOUT, read_only = read_only })
end

local operations = {}

function operations.write(self, key)
  local value = unique(self)
  return told(self, "write", { key = key, value = value }, function()
    local result, err = execute(self, key, WRITE, { key, value })
    return result and { version = (result.rows[1] or GONE).version }, err
  end)
end

function operations.read(self, key)
  return told(self, "read", { key = key }, function()
    local result, err = execute(self, key, READ, { key }, true)
    local row = result and (result.rows[1] or GONE)
    return row and { version = row.version, value = row.value }, err
  end)
end

function operations.insert(self, key)
  local token = unique(self)
  local done = told(self, "insert", { key = key, token = token }, function()
    local result, err = execute(self, key, INSERT, { key, token, SIZES[math.random(#SIZES)] })
    return result and {}, err
  end)
  if done then
    table.insert(self.tokens, { key = key, token = token })
  end
end

function operations.delete(self)
  local one = table.remove(self.tokens, 1)
  if one then
    told(self, "delete", { key = one.key, token = one.token }, function()
      local result, err = execute(self, one.key, DELETE, { one.key, one.token })
      return result and { rows = result.row_count }, err
    end)
  end
end

-- A write and a token, both or neither.
function operations.both(self, key)
  local value, token = unique(self), unique(self)
  local write = self.history:begin("write", { key = key, value = value })
  local insert = self.history:begin("insert", { key = key, token = token })
  local version, err = self.router:transaction({ routing_key = key, isolation = ISOLATION[math.random(#ISOLATION)],
    retries = 20, timeout = TIMEOUT }, function(tx)
    assert(tx:execute(INSERT, { key, token, 10 }))
    return (assert(tx:execute(WRITE, { key, value })).rows[1] or GONE).version
  end)
  local failure = not version and { code = err.code, message = tostring(err) }
  self.history:finish(write, failure or { ok = true, version = version })
  self.history:finish(insert, failure or { ok = true })
end

function operations.scatter(self)
  told(self, "scatter", { expected = self.keys }, function()
    local result, err = self.router:execute("SELECT count(*) AS n FROM registers", nil,
      { timeout = TIMEOUT, read_only = true })
    return result and { seen = tonumber(result.rows[1].n) }, err
  end)
end

local MIX = { "write", "write", "write", "read", "read", "read", "insert", "insert", "delete", "both", "both", "scatter" }

local function work(self)
  while not self.stopping do
    operations[MIX[math.random(#MIX)]](self, math.random(self.keys))
    task.sleep(math.random() * PAUSE)
  end
end

-- There is always something to note of these.
local function write_without_pause(self, keys)
  while not self.stopping do
    operations.write(self, keys[math.random(#keys)])
  end
end

--- Begin.
-- @tparam Router router
-- @int keys 1 to this
-- @tparam {int,...} busy those of them that one more task writes without a pause
-- @string path of the history
-- @int n tasks
-- @treturn Writers
function writers.start(router, keys, busy, path, n)
  local self = setmetatable({ router = router, keys = keys, path = path, history = history.open(path, PROCESS), n = 0,
    tokens = {}, tasks = {} }, Writers)
  for i = 1, n do
    self.tasks[i] = task.spawn(work, self):watch()
  end
  self.tasks[n + 1] = task.spawn(write_without_pause, self, busy):watch()
  return self
end

--- Let every task end what it does, and write and read each of these keys once more. Yields.
-- @tparam {int,...} keys
-- @treturn {table,...} operations, as `history.read` has them
function Writers:finish(keys)
  self.stopping = true
  for _, one in ipairs(self.tasks) do
    assert(one:join(TIMEOUT + 10))
  end
  for _, key in ipairs(keys) do
    operations.write(self, key)
    operations.read(self, key)
  end
  self.history:close()
  return history.read(self.path, PROCESS)
end

--- End them as they stand, after a failure. Yields.
function Writers:cancel()
  self.stopping = true
  for _, one in ipairs(self.tasks) do
    one:cancel()
    pcall(one.join, one, 5)
  end
  self.history:close()
end

return writers
