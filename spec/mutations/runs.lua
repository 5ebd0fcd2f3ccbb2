--- The runs of the mutation suite: each brings about what a random run may come upon in hours.
-- A run is green when the program is right; `spec.mutations.list` says which errors turn it red, and how. Each gives what the
-- move came to.
-- @module spec.mutations.runs

local actor = require("spec.mutations.actor")
local cutover = require("lunashard.rebalancer.cutover")
local errors = require("lunashard.errors")
local lock = require("lunashard.rebalancer.lock")
local move = require("lunashard.rebalancer.move")
local process = require("lunashard.process")
local stages = require("spec.mutations.stage")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local world = require("spec.chaos.world")

local runs = {}

--- Runs that take servers of their own, which they break: options of `spec.support.sandbox`.
runs.SERVERS = { lost_primary = { shards = 3, replicas = 1 } }

local SOURCE, DESTINATION = stages.SOURCE, stages.DESTINATION

-- ---- routers ------------------------------------------------------------------------------

--- A router that has not heard of the move works on the rows that have gone.
function runs.late_router(stage)
  local a, b = stage:actor("a"), stage:actor("b")
  a:write(stage.keys[1])
  b:read(stage.keys[1])
  stage:on("flipped:after-commit", function()
    b:read(stage.keys[1])
    b:write(stage.keys[2])
    b:insert(stage.keys[3])
    a:read(stage.keys[2])
  end)
  local ok, err = stage:move_all()
  b:read(stage.keys[1])
  return ok, err
end

--- A router whose lease cannot be renewed: a job begins when it has run out, and from then on the router guards.
function runs.cut_off_router(stage)
  local a, b = stage:actor("a"), stage:actor("b")
  a:write(stage.keys[1])
  b:read(stage.keys[1])
  b:cut_off()
  stage:on("flipped:after-commit", function()
    b:read(stage.keys[1])
  end)
  local ok, err = stage:move_all()
  b:write(stage.keys[2])
  b:insert(stage.keys[3])
  return ok, err
end

local BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = $1"

--- A router has sent a read without a guard when its server stops to serve it, and hears the answer when its lease is over and
-- the row has gone.
function runs.late_answer(stage)
  local a, b = stage:actor("a"), stage:actor("b", { connection_pool_size = 1 })
  local key = stage.keys[1]
  a:write(key)
  b:read(key)
  local backends = stage:ask(SOURCE, BACKENDS, { b.name }).rows
  local function signal(what)
    for _, one in ipairs(backends) do
      assert(system.kill(one.pid, process.signals[what]))
    end
  end
  b:cut_off()
  signal("STOP")
  local reader = task.spawn(function()
    b:read(key, { timeout = 20, read_only = true })
  end)
  stage:on("flipped:after-commit", function()
    a:write(key)
  end)
  local ok, err = stage:move_all()
  signal("CONT")
  assert(reader:join(20))
  return ok, err
end

--- A transaction that has its guard, and nothing more, when its bucket is to be closed.
function runs.open_transaction(stage)
  local a = stage:actor("a")
  local key, moved, begun, writer = stage.keys[1], false, false, nil
  a:write(key)
  stage:on("flipped:after-commit", function()
    moved = true
  end)
  stage:on("catchup:after-saved", function()
    writer = task.spawn(function()
      a:told("write", { key = key, value = "slow" }, function()
        local result, err = a.router:transaction({ routing_key = key, timeout = 10 }, function(tx)
          begun = true
          stage:wait(0.7, function() return moved end)
          return assert(tx:execute(actor.WRITE, { key, "slow" }))
        end)
        return actor.register(result, err)
      end)
    end)
    assert(stage:wait(5, function() return begun end))
  end)
  local ok, err = stage:move_all()
  assert(writer:join(20))
  a:read(key)
  return ok, err
end

--- A transaction that has seen the shard before a move, and comes upon moved rows afterwards.
function runs.old_snapshot(stage)
  local a = stage:actor("a")
  local key, token, moved, begun, writer = stage.keys[1], a:token(), false, false, nil
  stage:on("catchup:after-saved", function()
    writer = task.spawn(function()
      a:told("insert", { key = key, token = token, may_fail = true }, function()
        local done, err = a.router:transaction({ routing_key = stage.others[1], isolation = "repeatable read", timeout = 10 },
          function(tx)
            begun = true
            stage:wait(5, function() return moved end)
            return assert(tx:execute(actor.INSERT, { key, token }, { routing_key = key }))
          end)
        return done and {}, err
      end)
    end)
    assert(stage:wait(5, function() return begun end))
  end)
  stage:on("flipped:after-commit", function()
    moved = true
    assert(writer:join(20))
  end)
  return stage:move_all()
end

-- What shards refuse is for those to see who go past the routers.
local function to_their_face(value, err)
  if not value and err.code == "SQL" then
    err = errors.new("INVALID", { message = err.message })
  end
  return value, err
end

--- Writes past all routers: without a guard, and with one for another bucket.
function runs.past_routers(stage)
  local a = stage:actor("a")
  a:write(stage.keys[1])
  local guard = "SELECT lunashard.guard('int8', b.bucket, b.version) FROM lunashard.bucket b WHERE b.bucket = $1"
  stage:on("fenced:after-saved", function()
    local key, other = stage.keys[2], tostring(stage.world.catalog.groups.int8.bound:bucket(stage.others[1]))
    local token = a:token()
    a:told("insert", { key = key, token = token, may_fail = true }, function()
      local connection = stage:connect(SOURCE)
      local ok, err = connection:execute("BEGIN")
      for _, one in ipairs({ { guard, { other } }, { actor.INSERT, { key, token } }, { "COMMIT" } }) do
        if ok then
          ok, err = connection:execute(one[1], one[2])
        end
      end
      connection:release()
      return to_their_face(ok and {}, err)
    end)
  end)
  stage:on("flipped:after-commit", function()
    local key = stage.keys[1]
    a:told("write", { key = key, value = "past", may_fail = true }, function()
      return to_their_face(actor.register(stage:ask(SOURCE, actor.WRITE, { key, "past" })))
    end)
  end)
  return stage:move_all()
end

-- ---- reads and writes of all shards -----------------------------------------------------------

--- All rows are read while some stand on both sides.
function runs.scatter_at_merge(stage)
  local a = stage:actor("a")
  stage:on("verified:after-commit", function()
    a:scatter(stage.all, 2 * world.BALANCE, { timeout = 0.5, may_fail = true })
  end)
  local ok, err = stage:move_all()
  a:scatter(stage.all, 2 * world.BALANCE)
  return ok, err
end

local WAITS = "SELECT count(*) AS n FROM pg_locks WHERE relation = 'accounts'::regclass AND NOT granted"

--- All rows are read, one shard after the other; rows move from one that has answered to one that has not been asked.
function runs.scatter_around_move(stage)
  local a, middle = stage:actor("a"), "shard2"
  stage:plan()
  stage:open_guards()
  local blocker = stage:connect(middle)
  assert(blocker:execute("BEGIN"))
  assert(blocker:execute("LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE"))
  local reader = task.spawn(function()
    a:scatter(stage.all, 2 * world.BALANCE, { one_by_one = true, timeout = 20 })
  end)
  assert(stage:wait(5, function()
    return stage:ask(middle, WAITS).rows[1].n > 0
  end))
  local ok, err = stage:move()
  assert(blocker:execute("COMMIT"))
  blocker:release()
  assert(reader:join(20))
  stage:end_job()
  return ok, err
end

--- All rows are written while one shard is not to be had for a moment.
function runs.write_everywhere(stage)
  local a = stage:actor("a")
  stage:open_guards()
  local blocker = stage:connect(DESTINATION)
  assert(blocker:execute("BEGIN"))
  assert(blocker:execute("SELECT pg_advisory_xact_lock(lunashard.shard_lock_key())"))
  local writer = task.spawn(function()
    a:told("sweep", {}, function()
      local result, err = a.router:execute("UPDATE sweeps SET n = n + 1", nil, { all_shards = true, timeout = 10 })
      return result and {}, err
    end)
  end)
  task.sleep(0.1)
  assert(blocker:execute("COMMIT"))
  blocker:release()
  assert(writer:join(20))
  stage:plan()
  local ok, err = stage:move()
  stage:end_job()
  return ok, err
end

-- ---- what movers bring ----------------------------------------------------------------------------
-- Without the comparison of both sides, which would give such a move up: it is the second line.

-- Rows are staged, compared and merged while their buckets are closed, as where the fast way fails.
local function plainly(fn)
  return function(stage)
    local is_possible = cutover.is_possible
    cutover.is_possible = function()
      return false
    end
    local ok, err = fn(stage)
    cutover.is_possible = is_possible
    return ok, err
  end
end

local ROUNDS = 3

--- Everything that can be done to a row is done between the last looks and the fence.
function runs.last_writes(stage)
  local a, rounds, keys = stage:actor("a"), 0, stage.keys
  stage.options.enable_validation = false
  local tokens = {}
  for i = 1, ROUNDS do
    tokens[i] = { deleted = a:insert(keys[1]), renamed = a:insert(keys[2]) }
  end
  a:write(keys[3])
  function stage.looking()
    local row = stage.job.moves[1]
    if row.state == "fencing" and rounds < ROUNDS then
      rounds = rounds + 1
      a:delete(keys[1], tokens[rounds].deleted)
      a:rename(keys[2], tokens[rounds].renamed)
      a:write(keys[3])
      a:insert(keys[4])
    end
  end
  return stage:move_all()
end

runs.last_writes_plainly = plainly(runs.last_writes)

--- A transaction that wrote before others and commits after them.
function runs.late_commit(stage)
  local a = stage:actor("a")
  stage.options.enable_validation = false
  local key, wrote, finish, writer = stage.keys[1], false, false, nil
  stage:on("copying:after-saved", function()
    writer = task.spawn(function()
      a:told("write", { key = key, value = "late" }, function()
        return actor.register(a.router:transaction({ routing_key = key, timeout = 10 }, function(tx)
          local result = assert(tx:execute(actor.WRITE, { key, "late" }))
          wrote = true
          stage:wait(5, function() return finish end)
          return result
        end))
      end)
    end)
    assert(stage:wait(5, function() return wrote end))
    a:write(stage.keys[2])
  end, "catchup")
  stage:on("catchup.source:after-commit", function()
    finish = true
    assert(writer:join(10))
  end, "catchup")
  return stage:move_all()
end

runs.late_commit_plainly = plainly(runs.late_commit)

--- Rows are deleted and written all the while they are copied, in small batches.
function runs.busy_copy(stage)
  local a = stage:actor("a")
  stage.options.enable_validation, stage.options.batch_size = false, 25
  local tokens, copied, worker = {}, false, nil
  for i = 1, 60 do
    local key = stage.keys[i % #stage.keys + 1]
    tokens[i] = { key = key, token = a:insert(key) }
  end
  stage:on("capturing:after-saved", function()
    worker = task.spawn(function()
      local i = 0
      while not copied do
        i = i + 1
        local one = i % 3 == 0 and tokens[i / 3]
        if one then
          a:delete(one.key, one.token)
        end
        a:write(stage.keys[math.floor(i / 4) % #stage.keys + 1])
        task.sleep(0.01)
      end
    end)
  end)
  stage:on("copying:after-saved", function()
    copied = true
    assert(worker:join(10))
  end, "catchup")
  return stage:move_all()
end

local DEATH = "the mover is gone"

local function die()
  error(DEATH, 0)
end

-- The mover dies, or does not come so far.
local function move_until_death(stage)
  local alive, why = pcall(stage.move, stage)
  assert(alive or why == DEATH, why)
end

--- A mover dies between what it does on the destination and what it does on the source, and another one goes on.
function runs.death_in_catchup(stage)
  local a = stage:actor("a")
  stage.options.enable_validation = false
  a:write(stage.keys[1])
  stage:plan()
  stage:open_guards()
  stage:on("copying:after-saved", function()
    a:write(stage.keys[1])
    stage:on("catchup:before-commit", die)
  end, "catchup")
  move_until_death(stage)
  local ok, err = stage:move()
  stage:end_job()
  a:read(stage.keys[1])
  return ok, err
end

local ALTER = [[
  CREATE FUNCTION alter_value() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.value := 'altered'; RETURN NEW; END $$;
  CREATE TRIGGER alter_value BEFORE INSERT ON registers FOR EACH ROW EXECUTE FUNCTION alter_value()]]

--- The destination changes rows as they come: they stay where they are.
function runs.changed_on_arrival(stage)
  local a = stage:actor("a")
  a:write(stage.keys[1])
  assert(stage:ask(DESTINATION, ALTER, nil, true))
  local ok, err = stage:move_all()
  assert(stage:ask(DESTINATION, "DROP FUNCTION alter_value() CASCADE"))
  stage:remove_evidence()
  return not ok, err
end

-- ---- the order of things ---------------------------------------------------------------------------

--- The destination cannot take the rows: the source has them again.
function runs.failed_merge(stage)
  local a = stage:actor("a")
  a:write(stage.keys[1])
  local token = a:insert(stage.keys[2])
  assert(stage:ask(DESTINATION, actor.INSERT, { stage.keys[2], token }))
  local ok, err = stage:move_all()
  assert(stage:ask(DESTINATION, "DELETE FROM tokens WHERE k = $1 AND token = $2", { stage.keys[2], token }))
  a:read(stage.keys[1])
  a:write(stage.keys[1])
  return not ok, err
end

--- A mover dies as it is about to write the map, and another one goes on.
function runs.death_before_flip(stage)
  local a = stage:actor("a")
  a:write(stage.keys[1])
  stage:plan()
  stage:open_guards()
  stage:on("merged:before-commit", die)
  move_until_death(stage)
  local ok, err = stage:move()
  stage:end_job()
  a:read(stage.keys[1])
  return ok, err
end

--- A mover sleeps before the fence; another one gives its move up meanwhile, and goes on with the next.
function runs.taken_over(stage)
  local a = stage:actor("a")
  stage:plan(2)
  stage:open_guards()
  stage:on("catchup:after-saved", function()
    assert(move.abort(stage.world:context(stage.job), { job = stage.job.id, seq = 1 }))
  end)
  stage:move(1)
  local ok, err = stage:move(2)
  stage:end_job()
  for i = 1, 4 do
    a:write(stage.keys[i])
  end
  return ok, err
end

-- ---- failovers -----------------------------------------------------------------------------------

local SENDERS = "SELECT pid FROM pg_stat_replication"
local RECEIVED = "SELECT coalesce(pg_last_wal_receive_lsn() >= $1::pg_lsn, false) AS yes"

--- The source's server stops sending to its replica before the fence, and is lost as soon as the move is over; the replica
-- takes its place. A mover waits until the replica has what it relies on: after a while it is sent.
function runs.lost_primary(stage)
  local a, over, ok, err = stage:actor("a"), false, nil, nil
  local source = stage.world.manager.by_id[SOURCE]
  a:write(stage.keys[1])
  local senders = stage:ask(SOURCE, SENDERS).rows
  local function signal(what)
    for _, one in ipairs(senders) do
      system.kill(one.pid, process.signals[what])
    end
  end
  assert(senders[1], "the replica is not there")
  local held = assert(lock.hold(stage.world.catalog, task.now() + 10)) -- the mover lives: nobody is to take over from it
  stage:on("catchup:after-saved", function()
    signal("STOP")
  end)
  local mover = task.spawn(function()
    ok, err = stage:move_all()
    over = true
  end)
  if not stage:wait(10, function() return over end) then
    signal("CONT")
    assert(mover:join(30))
    local position = stage:ask(SOURCE, "SELECT pg_current_wal_flush_lsn()::text AS p").rows[1].p
    assert(stage:wait(20, function()
      return assert(source.replicas[1].pool:execute(RECEIVED, { position }, { deadline = task.now() + 5 })).rows[1].yes
    end))
  end
  held:release()
  task.spawn(function() -- when its server is gone, so that what it has to send stays unsent
    task.sleep(0.2)
    signal("KILL")
  end)
  stage.servers:kill(SOURCE)
  stage.servers:promote(SOURCE .. "_replica1")
  return ok, err
end

return runs
