--- Moving buckets by plain SQL, step by step, for the specs of what happens in between.
-- The steps are those of a mover, each in a transaction of its own; see `lunashard.catalog.shard_schema`.
local cluster = require("spec.support.cluster")
local install = require("lunashard.catalog.install")
local lease = require("lunashard.catalog.lease")
local task = require("lunashard.task")

local moves = {}

local TIMEOUT = 10 -- seconds for a step, which may have to wait for somebody's transaction

moves.GROUP = "int8"

-- Columns that most statements of the specs need: the key, which row of the key it is, and something to change.
local TABLES = [[
  DROP TABLE IF EXISTS moving, moving_log, moving_reference;
  CREATE TABLE moving (k int8, n int8, v int8 NOT NULL DEFAULT 0, PRIMARY KEY (k, n));
  CREATE TABLE moving_reference (id int8 PRIMARY KEY, v text);
  INSERT INTO moving_reference VALUES (1, 'one')]]

--- The options of a cluster file for these tables.
function moves.options(overrides)
  local options = {
    strategy = { "hash", shard_key = "k" },
    tables = { moving = { shard_key = "k", type = "int8" }, moving_reference = { reference = true } },
    query_timeout = 10,
  }
  for name, value in pairs(overrides or {}) do
    options[name] = value
  end
  return options
end

--- A router of its own, with its manager.
function moves.connect(overrides)
  return cluster.connect(moves.options(overrides))
end

local function on(member, sql, params)
  return assert(member.primary.pool:execute(sql, params, { pipeline = false, deadline = task.now() + TIMEOUT }))
end

--- Run statements on one shard past every guard, in one transaction.
-- @tparam table member
-- @tparam {table,...} list each `{ sql, params }`
function moves.on_shard(member, list)
  local connection = assert(member.primary.pool:acquire())
  assert(connection:execute("BEGIN"))
  assert(connection:execute("SELECT set_config('lunashard.guarded', '1', true)"))
  for _, one in ipairs(list) do
    assert(connection:execute(one[1], one[2], { deadline = task.now() + TIMEOUT }))
  end
  assert(connection:execute("COMMIT"))
  connection:release()
end

--- Make the tables and the catalog. To be called from `setup`.
-- @tparam[opt] table overrides of options
-- @treturn Manager one that the moves are made with
function moves.install(overrides)
  local router, manager = moves.connect(overrides)
  assert(router:execute_on_all_shards(TABLES))
  assert(install.run(manager))
  cluster.close_all()
  local _, own = moves.connect(overrides)
  return own
end

--- Remove it all. To be called from `teardown`.
function moves.remove()
  local _, manager = moves.connect()
  for _, member in ipairs(manager.members) do
    on(member, "DROP TABLE IF EXISTS moving, moving_reference")
  end
  assert(install.drop(manager))
  cluster.close_all()
end

--- Statement triggers as a mover makes them.
function moves.arm(manager)
  for _, member in ipairs(manager.members) do
    on(member, "DROP TRIGGER IF EXISTS lunashard_unguarded ON moving")
    on(member, [[CREATE TRIGGER lunashard_unguarded BEFORE INSERT OR UPDATE OR DELETE ON moving
      FOR EACH STATEMENT EXECUTE FUNCTION lunashard.refuse_unguarded()]])
  end
end

function moves.disarm(manager)
  for _, member in ipairs(manager.members) do
    on(member, "DROP TRIGGER IF EXISTS lunashard_unguarded ON moving")
  end
end

--- The bucket of a key.
function moves.bucket_of(manager, key)
  local _, bucket = assert(manager:get_shard_for_write(key))
  return bucket
end

local Move = {}
Move.__index = Move

--- A move of the bucket of a key, from where it is to another shard.
-- @tparam Manager manager
-- @param key
-- @int[opt] to the number of the shard [the next one]
function moves.new(manager, key, to)
  assert(manager.catalog:refresh())
  local info, bucket = assert(manager:get_shard_for_write(key))
  local from = 0
  for i, member in ipairs(manager.members) do
    from = member.shard_id == info.shard_id and i or from
  end
  return setmetatable({
    manager = manager,
    key = key,
    bucket = tostring(bucket),
    version = manager.catalog:bucket_version(moves.GROUP, bucket),
    from = manager.members[from],
    to = manager.members[to or from % #manager.members + 1],
  }, Move)
end

local LOCKS = "SELECT pg_advisory_xact_lock(lunashard.lock_key($1, $2)), pg_advisory_xact_lock(lunashard.shard_lock_key())"
local ADVANCE = { "SELECT lunashard.advance()" }

--- The source gives the bucket up.
function Move:fence()
  moves.on_shard(self.from, {
    { LOCKS, { moves.GROUP, self.bucket } },
    { "DELETE FROM lunashard.bucket WHERE grp = $1 AND bucket = $2", { moves.GROUP, self.bucket } },
    { "UPDATE lunashard.state SET in_transition = in_transition + 1" },
    ADVANCE,
  })
  return self
end

-- The keys of the bucket that have rows.
local function keys_of(self, member)
  local keys = {}
  for _, row in ipairs(on(member, "SELECT DISTINCT k FROM moving").rows) do
    if tostring(moves.bucket_of(self.manager, row.k)) == self.bucket then
      keys[#keys + 1] = row.k
    end
  end
  return keys
end

--- The destination has the rows, and owns the bucket.
function Move:merge()
  local list = { { LOCKS, { moves.GROUP, self.bucket } } }
  for _, row in ipairs(on(self.from, "SELECT k, n, v FROM moving WHERE k = ANY ($1)", { keys_of(self, self.from) }).rows) do
    list[#list + 1] = { "INSERT INTO moving (k, n, v) VALUES ($1, $2, $3)", { row.k, row.n, row.v } }
  end
  list[#list + 1] = { "INSERT INTO lunashard.bucket (grp, bucket, version) VALUES ($1, $2, $3)",
    { moves.GROUP, self.bucket, self.version + 1 } }
  list[#list + 1] = ADVANCE
  moves.on_shard(self.to, list)
  return self
end

--- The catalog says so.
function Move:flip()
  local connection = assert(self.manager.catalog:lease())
  assert(connection:execute("BEGIN"))
  local version = assert(connection:execute("SELECT lunashard_catalog.next_version() AS v")).rows[1].v
  assert(connection:execute([[UPDATE lunashard_catalog.bucket SET shard_id = $3, version = $4, changed = $5
    WHERE grp = $1 AND bucket = $2]], { moves.GROUP, self.bucket, self.to.shard_id, self.version + 1, version }))
  assert(connection:execute("COMMIT"))
  connection:release()
  return self
end

--- The source forgets the rows.
function Move:purge()
  moves.on_shard(self.from, {
    { LOCKS, { moves.GROUP, self.bucket } },
    { "DELETE FROM moving WHERE k = ANY ($1)", { keys_of(self, self.from) } },
    { "UPDATE lunashard.state SET in_transition = in_transition - 1" },
  })
  return self
end

--- All of it.
function Move:run()
  return self:fence():merge():flip():purge()
end

--- What all shards have, past the router: k -> list of shard_ids with a row of it.
function moves.where(manager)
  local found = {}
  for _, member in ipairs(manager.members) do
    for _, row in ipairs(on(member, "SELECT k FROM moving ORDER BY k, n").rows) do
      found[row.k] = found[row.k] or {}
      table.insert(found[row.k], member.shard_id)
    end
  end
  return found
end

--- Does every row lie on the shard that the catalog names?
function moves.misplaced(manager)
  assert(manager.catalog:refresh())
  local list = {}
  for key, shards in pairs(moves.where(manager)) do
    for _, shard_id in ipairs(shards) do
      local owner = assert(manager:get_shard_for_write(key)).shard_id
      if owner ~= shard_id then
        list[#list + 1] = ("%d is on %s, and belongs to %s"):format(key, shard_id, owner)
      end
    end
  end
  return list
end

--- Ask all routers for guards.
-- @tparam Manager manager
-- @number[opt] timeout seconds
-- @tparam[opt] Manager other one that hears of it at once, not when it looks for itself
function moves.open_guards(manager, timeout, other)
  local epoch = manager.catalog.guard_epoch
  local told = other and task.spawn(function()
    while manager.catalog.guard_epoch == epoch do
      manager.catalog.changed:wait(task.now() + 1)
    end
    other.catalog:refresh()
  end):watch()
  local ok, err = lease.open_guards(manager.catalog, task.now() + (timeout or 8))
  if told then
    told:join()
  end
  return ok, err
end

--- Let them be.
function moves.close_guards(manager)
  return assert(lease.close_guards(manager.catalog))
end

return moves
