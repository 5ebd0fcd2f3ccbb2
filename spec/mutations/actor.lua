--- One router of a run, whose every operation is told to the history.
-- @module spec.mutations.actor

local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local history = require("spec.chaos.history")
local map = require("lunashard.catalog.map")
local world = require("spec.chaos.world")

local actor = {}

local Actor = {}
Actor.__index = Actor

local TIMEOUT = 4 -- seconds for an operation

--- Connect a router of its own. Yields.
-- @string name
-- @tparam table options of its manager
-- @string folder for its history
-- @treturn Actor `router`, `manager`, `refusals` (operations that failed and should not have)
function actor.new(name, options, folder)
  local router, manager = cluster.connect(options)
  local path = ("%s/%s.history"):format(folder, name)
  return setmetatable({ name = name, router = router, manager = manager, path = path, n = 0, refusals = {},
    history = history.open(path, name) }, Actor)
end

--- From now on it hears of another map only when a shard refuses what it believes.
function Actor:make_deaf()
  local catalog = self.manager.catalog
  local execute = catalog.execute
  function catalog.execute(of, sql, ...)
    if sql == map.LOOK then
      return nil, errors.new("SHARD_DOWN", { message = "the catalog does not answer" })
    end
    return execute(of, sql, ...)
  end
end

--- From now on the catalog does not answer it, and its lease is not renewed.
function Actor:cut_off()
  local function fail()
    return nil, errors.new("SHARD_DOWN", { message = "the catalog does not answer" })
  end
  self.manager.catalog.execute, self.manager.catalog.lease, self.is_cut_off = fail, fail, true
end

--- Tell of an operation and do it. Yields.
-- @string kind
-- @tparam table what its fields; `may_fail`: it is right when it is refused
-- @tparam func fn gives the fields of what came of it, or nil and an error
-- @treturn ?table
function Actor:told(kind, what, fn)
  local may_fail = what.may_fail
  what.may_fail = nil
  local id = self.history:begin(kind, what)
  local ok, outcome, err = pcall(fn)
  if not ok then
    outcome, err = nil, errors.is(outcome) and outcome or error(outcome, 0)
  end
  if outcome then
    outcome.ok = true
    self.history:finish(id, outcome)
    return outcome
  end
  self.history:finish(id, history.failure(err))
  if not may_fail then
    table.insert(self.refusals, ("a %s by %s failed: %s"):format(kind, self.name, tostring(err)))
  end
end

--- A value that nobody else writes.
-- @treturn string
function Actor:unique()
  self.n = self.n + 1
  return ("%s-%d"):format(self.name, self.n)
end

--- A token that nobody else writes; its text goes with it.
-- @treturn string
function Actor:token()
  return self:unique() .. "/1"
end

local function options_of(key, more)
  return { routing_key = key, timeout = more and more.timeout or TIMEOUT, read_only = more and more.read_only }
end

actor.WRITE = "UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version"
actor.READ = "SELECT version, value FROM registers WHERE k = $1"
actor.INSERT = ("INSERT INTO tokens (k, token, body) VALUES ($1, $2, '%s')"):format((world.BODIES[1]:gsub("'", "''")))

-- A row that is not there is not an error of the database: it is what is looked for.
local GONE = { version = -1, value = "gone" }

--- What a write or read of a register came to.
-- @tparam ?table result
-- @param err
-- @treturn ?table
function actor.register(result, err)
  local row = result and (result.rows[1] or GONE)
  return row and { version = row.version, value = row.value }, err
end

--- Write a register. Yields.
function Actor:write(key, more)
  local value = self:unique()
  return self:told("write", { key = key, value = value, may_fail = more and more.may_fail }, function()
    return actor.register(self.router:execute(actor.WRITE, { key, value }, options_of(key, more)))
  end)
end

--- Read a register. Yields.
function Actor:read(key, more)
  return self:told("read", { key = key, may_fail = more and more.may_fail }, function()
    return actor.register(self.router:execute(actor.READ, { key }, options_of(key, more)))
  end)
end

--- Insert a token. Yields.
-- @treturn string
function Actor:insert(key, more)
  local token = self:token()
  self:told("insert", { key = key, token = token, may_fail = more and more.may_fail }, function()
    local result, err = self.router:execute(actor.INSERT, { key, token }, options_of(key, more))
    return result and {}, err
  end)
  return token
end

--- Delete a token. Yields.
function Actor:delete(key, token)
  self:told("delete", { key = key, token = token }, function()
    local result, err = self.router:execute("DELETE FROM tokens WHERE k = $1 AND token = $2", { key, token },
      options_of(key))
    return result and { rows = result.row_count }, err
  end)
end

--- Give a token, which is part of the primary key, another name: a deletion and an insertion. Yields.
-- @treturn string
function Actor:rename(key, token)
  local new = self:token()
  self:told("delete", { key = key, token = token }, function()
    return self:told("insert", { key = key, token = new }, function()
      local result, err = self.router:execute("UPDATE tokens SET token = $3 WHERE k = $1 AND token = $2",
        { key, token, new }, options_of(key))
      return result and { rows = result.row_count }, err
    end)
  end)
  return new
end

-- What shards say, added up.
local function add_up(results)
  local n, total = 0, 0
  for _, one in ipairs(results) do
    n, total = n + tonumber(one.rows[1].n), total + (tonumber(one.rows[1].total) or 0)
  end
  return { n = n, total = total }
end

--- Add all accounts up. Yields.
-- @int keys
-- @int balance of a key's accounts
-- @tparam[opt] table more `may_fail`, `timeout`, `one_by_one`: shards are asked one after the other
function Actor:scatter(keys, balance, more)
  more = more or {}
  self:told("scatter", { expected = ("%d accounts with %d"):format(keys * 2, keys * balance), may_fail = more.may_fail },
    function()
      local result, err = self.router:scatter_gather("SELECT count(*) AS n, sum(balance) AS total FROM accounts", nil,
        { timeout = more.timeout or TIMEOUT, max_parallel_shards = more.one_by_one and 1 or nil, aggregation_func = add_up })
      local row = result and result.rows[1]
      return row and { seen = ("%d accounts with %d"):format(row.n, row.total) }, err
    end)
end

--- What it did. The history is closed then.
-- @treturn {table,...} operations
function Actor:operations()
  self.history:close()
  return history.read(self.path, self.name)
end

return actor
