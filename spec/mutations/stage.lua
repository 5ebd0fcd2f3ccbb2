--- Where a run of the mutation suite takes place: a cluster with a catalog, routers, and a move at each of whose commits
-- something can be done. What was acknowledged is judged as that of a chaos run is.
-- @module spec.mutations.stage

local actor = require("spec.mutations.actor")
local cluster = require("spec.support.cluster")
local lease = require("lunashard.catalog.lease")
local leftovers = require("spec.chaos.leftovers")
local lunashard = require("lunashard")
local moving = require("spec.support.move_world")
local task = require("lunashard.task")
local verdict = require("spec.chaos.verdict")
local world = require("spec.chaos.world")

local stage = {}

local Stage = {}
Stage.__index = Stage

local UNDO = "DROP SCHEMA IF EXISTS lunashard, lunashard_staging, lunashard_catalog CASCADE"
for name in pairs(world.TABLES) do
  UNDO = ("%s; DROP TABLE IF EXISTS %s CASCADE"):format(UNDO, name)
end

-- Where rows come from and go to; the one between is only asked by who asks all.
stage.SOURCE, stage.DESTINATION = "shard1", "shard3"

local KEYS = 60

--- Set up. Yields.
-- @string cluster_file of a sandbox with three shards
-- @string folder for histories
-- @treturn Stage `keys` (those that move), `others` (those that stay on the source), `all` (how many there are)
function stage.open(cluster_file, folder)
  local self = setmetatable({ folder = folder, actors = {}, hooks = {}, all = KEYS, keys = {}, others = {},
    options = { batch_size = 100, max_cutover = 60 } }, Stage)
  self.world = moving.open({ tables = world.TABLES, schema = world.SCHEMA, undo = UNDO, fill = false,
    cluster = { cluster_file = cluster_file, strategy = { "hash", shard_key = "k" }, health_check_interval = 30 } })
  world.fill(self.world.router, KEYS)
  for key = 1, KEYS do
    if self.world.manager:get_shard_for_write(key, { table = "registers" }).shard_id == stage.SOURCE then
      table.insert(#self.others < 4 and self.others or self.keys, key)
    end
  end
  return self
end

--- A router. Yields.
-- @string name also for servers
-- @tparam[opt] table more options of its cluster
-- @treturn Actor
function Stage:actor(name, more)
  local options = { application_name = name }
  for _, list in ipairs({ self.world.options, more or {} }) do
    for option, value in pairs(list) do
      options[option] = value
    end
  end
  local one = actor.new(name, options, self.folder)
  self.actors[#self.actors + 1] = one
  return one
end

--- Have all routers guard what they send; from then on they are deaf. Yields.
function Stage:open_guards()
  local over, ok, err
  task.spawn(function()
    ok, err = lease.open_guards(self.world.catalog, task.now() + 20)
    over = true
  end)
  repeat
    for _, one in ipairs(self.actors) do
      local _ = one.is_cut_off or one.manager.catalog:refresh()
    end
    task.sleep(0.01)
  until over
  assert(ok, err)
  for _, one in ipairs(self.actors) do
    one:make_deaf()
  end
end

--- Do something at a point of a move, once.
-- @string point
-- @tparam func fn
-- @string[opt] state only while the move is in it
function Stage:on(point, fn, state)
  self.hooks[point] = { fn = fn, state = state }
end

--- Write the move down. Yields.
-- @int[opt=1] moves how many to share the buckets
function Stage:plan(moves)
  self.job = self.world:plan(stage.SOURCE, stage.DESTINATION, { keys = self.keys, moves = moves })
end

--- Move. Yields. `looking`, where it is set, is called when the mover asks whether it shall stop: before the fence, at last.
-- @int[opt=1] seq
-- @treturn ?boolean
-- @treturn ?lunashard.error
function Stage:move(seq)
  local row = self.job.moves[seq or 1]
  return self.world:run(self.job, { options = self.options, stopping = self.looking, at = function(point)
    local hook = self.hooks[point]
    if hook and (not hook.state or hook.state == row.state) then
      self.hooks[point] = nil
      hook.fn()
    end
  end }, seq)
end

--- Plan, guard, move, and have it over with. Yields.
-- @treturn ?boolean
-- @treturn ?lunashard.error
function Stage:move_all()
  self:plan()
  self:open_guards()
  local ok, err = self:move()
  self:end_job()
  return ok, err
end

--- Guards are off again. Yields.
function Stage:end_job()
  assert(lease.close_guards(self.world.catalog, task.now() + 10))
end

--- Remove the staging tables that are kept when both sides differ. Yields.
function Stage:remove_evidence()
  assert(self.world.catalog:execute("UPDATE lunashard_catalog.job SET status = 'failed' WHERE id = $1", { self.job.id }))
  assert(lunashard.rebalancer({ shard_manager = self.world.manager }):cleanup())
end

--- Ask a shard past all routers. Yields.
-- @string shard_id
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] boolean simple for several statements
-- @treturn ?table
-- @treturn ?lunashard.error
function Stage:ask(shard_id, sql, params, simple)
  return self.world.manager.by_id[shard_id].primary.pool:execute(sql, params,
    { deadline = task.now() + 20, pipeline = false, simple = simple })
end

--- A connection to a shard, past all routers. Yields.
-- @treturn Lease
function Stage:connect(shard_id)
  return assert(self.world.manager.by_id[shard_id].primary.pool:acquire(task.now() + 10))
end

--- Wait for a condition. Yields.
-- @treturn boolean was it so in time?
function Stage:wait(timeout, condition) -- luacheck: no self
  local deadline = task.now() + timeout
  while not condition() do
    if task.now() > deadline then
      return false
    end
    task.sleep(0.005)
  end
  return true
end

-- The map as the catalog has it.
local function read_map(catalog)
  local buckets = {}
  for _, row in ipairs(assert(catalog:execute("SELECT bucket, shard_id, version FROM lunashard_catalog.bucket")).rows) do
    buckets[row.bucket] = row
  end
  return buckets
end

--- What all of it came to. Yields. The stage is over then.
-- @treturn Verdict with one more count, `refused`: operations that failed and should not have
function Stage:judge()
  local found, ops = verdict.new(), {}
  found.counts.refused = 0
  for _, one in ipairs(self.actors) do
    for _, text in ipairs(one.refusals) do
      found:blame("refused", "%s", text)
    end
    for _, op in ipairs(one:operations()) do
      ops[#ops + 1] = op
    end
  end
  cluster.close_all() -- movers and routers are to leave nothing behind
  local _, manager = cluster.connect(self.world.options)
  local shards = {}
  for i, member in ipairs(manager.members) do
    shards[i] = { shard_id = member.shard_id, ask = function(sql)
      local result, err = member.primary.pool:execute(sql, nil, { pipeline = false, deadline = task.now() + 20 })
      return result and result.rows, err
    end }
  end
  local final = world.read(shards, found, function(key)
    return manager:get_shard_for_write(tonumber(key), { table = "registers" }).shard_id
  end, self.all)
  found:count(ops)
  found:check_registers(ops, final.registers)
  found:check_tokens(ops, final.tokens)
  found:check_counters(ops, final.counters, final.sweeps)
  found:check_sums(ops)
  found:check_answers(ops)
  leftovers.check(shards, read_map(manager.catalog), found)
  cluster.close_all()
  return found
end

return stage
