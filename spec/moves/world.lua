--- One cluster for many moves: made once, checked from end to end after each case, and emptied again in milliseconds.
-- Some buckets travel between the shards s1 and s2, others stay. Leases are short, so that nobody waits long for that of
-- a process that was killed.
-- @module spec.moves.world

local cli = require("spec.support.cli")
local job = require("lunashard.rebalancer.job")
local lease = require("lunashard.catalog.lease")
local leftovers = require("spec.chaos.leftovers")
local lunashard = require("lunashard")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")
local task = require("lunashard.task")
local verdict = require("spec.chaos.verdict")
local verify = require("lunashard.catalog.verify")
local writers = require("spec.moves.writers")

local world = {}

local World = {}
World.__index = World

--- What the processes that are started call themselves to servers.
world.CHILD = "child"

--- Keys that have rows: 1 to this.
world.KEYS = 96

--- Seconds that leases last here, in every process.
world.LEASE = 1

local TABLES = { registers = { shard_key = "k", type = "int8" }, tokens = { shard_key = "k", type = "int8" } }

local SCHEMA = [[
  CREATE TABLE registers (k bigint PRIMARY KEY, version bigint NOT NULL, value text NOT NULL);
  CREATE TABLE tokens (k bigint REFERENCES registers ON DELETE CASCADE, token text, body text, PRIMARY KEY (k, token))]]

-- A range of keys is a bucket: few buckets make for quick looks at all of them.
local WIDTH, PER_SHARD, TRAVELLING = 4, 8, 6
local KEYS, SHARDS = world.KEYS, 3
local WRITERS = 4

local function ranges()
  local all, n = {}, 0
  for i = 1, SHARDS do
    local own = {}
    for j = 1, PER_SHARD do
      local last = n + WIDTH
      own[j] = { n > 0 and n + 1 or nil, last < KEYS and last or nil }
      n = last
    end
    all["s" .. i] = own
  end
  return all
end

local RANGES = ranges()

--- Keys whose buckets move, and one whose bucket stays.
world.TRAVELLERS, world.RESIDENT = {}, WIDTH * PER_SHARD
for key = 1, WIDTH * TRAVELLING do
  world.TRAVELLERS[key] = key
end

--- Options of a cluster with some replaced.
function World:options(more)
  local given = self.cluster:cluster_options(SHARDS)
  for name, value in pairs(more or {}) do
    given[name] = value
  end
  return given
end

--- A manager of one's own; `self:close()` closes it too. Yields.
function World:manager(more)
  local manager = lunashard.manager(self:options(more))
  self.opened[manager] = true
  assert(manager:initialize())
  return manager
end

--- Close a manager that `manager` gave. Yields.
function World:shut(manager)
  self.opened[manager] = nil
  manager:shutdown()
end

--- Somebody who runs jobs, as another process would. Yields.
-- @tparam[opt] table more options of the cluster
-- @tparam[opt] table options of the rebalancer
-- @treturn Rebalancer
function World:rebalancer(more, options)
  local given = { shard_manager = self:manager(more), max_parallel_tasks = 1, batch_size = 20, max_cutover = 30 }
  for name, value in pairs(options or {}) do
    given[name] = value
  end
  return lunashard.rebalancer(given)
end

local function write_file(self)
  local shards = {}
  for i, shard in ipairs(self.cluster.shards) do
    shards[i] = ("    { shard_id = %q, host = %q, port = %d, database = %q, user = %q, password = %q },"):format(
      shard.shard_id, shard.host, shard.port, shard.database, shard.user, shard.password)
  end
  local own = {}
  for shard_id, list in pairs(RANGES) do
    local texts = {}
    for i, one in ipairs(list) do
      texts[i] = ("{ %s, %s }"):format(tostring(one[1]), tostring(one[2]))
    end
    own[#own + 1] = ("%s = { %s }"):format(shard_id, table.concat(texts, ", "))
  end
  return cli.write(self.dir, "cluster.lua", ([[
require("lunashard.catalog.lease").DURATION = %g
return {
  name = %q, query_timeout = 10, application_name = %q,
  strategy = { "range", shard_key = "k", ranges = { %s } },
  tables = { registers = { shard_key = "k", type = "int8" }, tokens = { shard_key = "k", type = "int8" } },
  shards = {
%s
  },
}
]]):format(world.LEASE, self.cluster.prefix, world.CHILD, table.concat(own, ", "), table.concat(shards, "\n")))
end

local function fill(self)
  for i, shard in ipairs(self.cluster.shards) do
    self.cluster:on(i, "TRUNCATE registers, tokens")
    local keys = {}
    for key = 1, KEYS do
      keys[#keys + 1] = self.router.manager:get_shard_for_write(key).shard_id == shard.shard_id and key or nil
    end
    self.cluster:on(i, "INSERT INTO registers SELECT k, 0, 'start' FROM unnest($1::bigint[]) AS u(k)", { keys })
  end
end

local function install(self)
  self.cluster:init(SHARDS)
  local manager = self:manager()
  self.router = lunashard.router({ shard_manager = manager })
  self.operator = self:rebalancer({ application_name = "operator" })
  fill(self)
end

--- Make it. For a `setup`. Yields.
-- @treturn World
function world.open()
  local self = setmetatable({ opened = {}, lease_before = lease.DURATION }, World)
  lease.DURATION = world.LEASE
  self.cluster = moving.new({ shards = SHARDS, tables = TABLES, schema = SCHEMA,
    strategy = { "range", shard_key = "k", ranges = RANGES }, more = { query_timeout = 10, connection_pool_size = 8 } })
  self.dir = cli.directory()
  self.cluster_file = write_file(self)
  install(self)
  return self
end

local function shut_all(self)
  for manager in pairs(self.opened) do
    manager:shutdown()
  end
  self.opened = {}
end

--- Remove it. For a `teardown`. Yields.
function World:close()
  shut_all(self)
  lease.DURATION = self.lease_before
  self.cluster:destroy()
  cli.remove_all()
  sandbox.release()
end

-- ---- a case -----------------------------------------------------------------------------------

local UNINSTALL = "DROP SCHEMA IF EXISTS lunashard, lunashard_staging, lunashard_catalog CASCADE"
local UNUSED_TRIGGERS = [[
  SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) AS drop FROM pg_trigger WHERE tgname LIKE 'lunashard%']]

-- After a failure nothing that is there can be relied on.
local function reinstall(self)
  shut_all(self)
  for i, shard in ipairs(self.cluster.shards) do
    self.cluster:on(i, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = $1",
      { shard.database })
    for _, row in ipairs(self.cluster:on(i, UNUSED_TRIGGERS).rows) do
      self.cluster:on(i, row.drop)
    end
    self.cluster:on(i, UNINSTALL)
    self.cluster:on(i, "TRUNCATE registers, tokens")
  end
  install(self)
end

--- Begin a case: everything is as new, writers are at work. Yields.
-- @tparam[opt] Router router theirs
function World:begin(router)
  if self.broken then
    reinstall(self)
  elseif self.used then
    fill(self)
  end
  self.broken, self.used = true, true -- until `check` has found it well
  self.source = self.router.manager:get_shard_for_write(world.TRAVELLERS[1]).shard_id
  self.destination = self.source == "s1" and "s2" or "s1"
  self.writers = writers.start(router or self.router, KEYS, world.TRAVELLERS, self.dir .. "/history", WRITERS)
end

--- End what a case that failed has left. For an `after_each`. Yields.
function World:clean_up()
  if self.writers then
    self.writers:cancel()
    self.writers = nil
  end
  for manager in pairs(self.opened) do
    if manager ~= self.router.manager and manager ~= self.operator.manager then
      self:shut(manager)
    end
  end
end

--- A job that moves the travelling buckets to the other shard. Yields.
-- @int[opt=1] n moves
-- @string[opt="live_migration"] strategy
-- @treturn int its number
function World:new_job(n, strategy)
  local moves = {}
  for i = 1, n or 1 do
    moves[i] = { seq = i, source = self.source, destination = self.destination, buckets = {}, rows = 0, bytes = 0 }
  end
  for i = 1, TRAVELLING do
    local _, bucket = assert(self.router.manager:get_shard_for_write(i * WIDTH))
    table.insert(moves[i % #moves + 1].buckets, bucket)
  end
  return assert(job.create(self.router.manager.catalog, { group = "int8", kind = "list",
    strategy = strategy or "live_migration",
    options = { planner = {} }, moves = moves, rows = 0 }, task.now() + 10))
end

--- SQL on a shard, past everything. Yields.
-- @string shard_id
-- @string sql
-- @tparam[opt] table params
-- @treturn {table,...} rows
function World:on(shard_id, sql, params)
  return self.cluster:on(tonumber(shard_id:match("%d+")), sql, params).rows
end

--- SQL on the catalog. Yields.
function World:ask(sql, params)
  return self:on("s1", sql, params)
end

--- Where the first move of a job stands. Yields.
function World:status(id)
  return self:ask("SELECT status FROM lunashard_catalog.job WHERE id = $1", { id })[1].status
end

--- Does the destination own what moves, whatever the catalog says? Yields.
-- @treturn boolean
function World:is_committed()
  local _, bucket = assert(self.router.manager:get_shard_for_write(world.TRAVELLERS[1]))
  return self:on(self.destination, "SELECT FROM lunashard.bucket WHERE bucket = $1", { bucket })[1] ~= nil
end

-- ---- the verdict ----------------------------------------------------------------------------------

local function read_rows(self, found, owner_of)
  local registers, tokens = {}, {}
  local function at_home(what, row, shard_id)
    if owner_of[row.k] ~= shard_id then
      found:blame("stray", "%s of key %d is on %s, its owner is %s", what, row.k, shard_id, owner_of[row.k])
    end
  end
  for _, shard in ipairs(self.cluster.shards) do
    local id = shard.shard_id
    for _, row in ipairs(self:on(id, "SELECT k, version, value FROM registers")) do
      at_home("the register", row, id)
      if registers[row.k] then
        found:blame("duplicated", "the register of key %d is on %s and another shard", row.k, id)
      end
      registers[row.k] = row
    end
    for _, row in ipairs(self:on(id, "SELECT k, token FROM tokens")) do
      at_home("a token", row, id)
      tokens[row.token] = (tokens[row.token] or 0) + 1
    end
  end
  for key = 1, KEYS do
    if not registers[key] then
      found:blame("lost", "the register of key %d is gone", key)
    end
  end
  return registers, tokens
end

-- The map of the catalog, and who owns each key by it.
local function read_map(self)
  local buckets, owner_of = {}, {}
  for _, row in ipairs(self:ask("SELECT bucket, shard_id, version FROM lunashard_catalog.bucket")) do
    buckets[row.bucket] = row
  end
  for key = 1, KEYS do
    local _, bucket = assert(self.router.manager:get_shard_for_write(key))
    owner_of[key] = buckets[bucket].shard_id
  end
  return buckets, owner_of
end

-- A router that renews its lease has a lock for a moment.
local PATIENCE = 2 -- seconds

local function look_for_leftovers(self, buckets)
  local shards = {}
  for i, shard in ipairs(self.cluster.shards) do
    shards[i] = { shard_id = shard.shard_id, ask = function(sql)
      return self:on(shard.shard_id, sql)
    end }
  end
  local deadline = task.now() + PATIENCE
  while true do
    local found = verdict.new()
    leftovers.check(shards, buckets, found)
    if found:is_clean() or task.now() > deadline then
      return found.told
    end
    task.sleep(0.02)
  end
end

--- Stop the writers and look at everything. Yields.
-- @string owner the shard that is to own what travels now
-- @tparam[opt] table allowed `unknown`: statements may be of unknown outcome; `ops`: more operations, of other processes
-- @treturn {string,...} what is wrong
function World:check(owner, allowed)
  allowed = allowed or {}
  local ops = self.writers:finish(world.TRAVELLERS)
  self.writers = nil
  for _, op in ipairs(allowed.ops or {}) do
    ops[#ops + 1] = op
  end
  local found = verdict.new()
  local buckets, owner_of = read_map(self)
  local registers, tokens = read_rows(self, found, owner_of)
  found:count(ops)
  found:check_registers(ops, registers)
  found:check_tokens(ops, tokens)
  found:check_sums(ops)
  local wrong = found.told
  local function complain(...)
    wrong[#wrong + 1] = (...):format(select(2, ...))
  end
  for _, line in ipairs(look_for_leftovers(self, buckets)) do
    complain("%s", line)
  end
  for _, key in ipairs(world.TRAVELLERS) do
    if owner_of[key] ~= owner then
      complain("key %d belongs to %s, not to %s", key, owner_of[key], owner)
    end
  end
  local manager = self.operator.manager
  assert(manager.catalog:refresh())
  local report = assert(verify.run(manager))
  if report.misplaced > 0 then
    complain("%d rows are misplaced", report.misplaced)
  end
  for _, one in ipairs(assert(verify.ownership(manager))) do
    complain("%s", one.message)
  end
  for _, op in ipairs(ops) do
    -- On a machine that is slow enough a lease runs out before it is renewed.
    local is_late = op.message and op.message:find("came too late", 1, true)
    if op.outcome == "no" or op.outcome == "unknown" and not allowed.unknown and not is_late then
      complain("%s of key %s: %s", op.kind, tostring(op.key), tostring(op.message))
    end
  end
  self.broken = #wrong > 0
  return wrong
end

return world
