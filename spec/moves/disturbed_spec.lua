-- What else happens while rows move: other movers, long transactions, changes of tables, programs that know nothing of it.
local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local mover = require("lunashard.rebalancer.mover")
local points = require("spec.moves.points")
local strike = require("spec.moves.strike")
local task = require("lunashard.task")
local worlds = require("spec.moves.world")

local KEY = worlds.TRAVELLERS[1]

describe("a move", function()
  local world

  setup(function()
    world = worlds.open()
  end)

  teardown(function()
    world:close()
  end)

  after_each(function()
    world:clean_up()
  end)

  local function run(rebalancer, id)
    local ok, err = rebalancer:execute_job(id)
    world:shut(rebalancer.manager)
    return ok, err
  end

  -- A job, with something done when its mover comes to a point for the first time.
  local function job_with(point, fn, options)
    world:begin()
    local id = world:new_job()
    local victim = strike.victim(world, { name = point, nth = 1 }, function() fn(id) end, options)
    local ok, err = run(victim, id)
    assert.is_true(victim.struck)
    return ok, err, id
  end

  -- A session of somebody who knows nothing of guards.
  local function session(shard_id)
    local lease = assert(world.operator.manager.by_id[shard_id].primary.pool:acquire())
    return {
      run = function(sql, params)
        return lease:execute(sql, params, { deadline = task.now() + 10 })
      end,
      close = function()
        lease:discard("the test is over")
      end,
    }
  end

  local function bucket_of(key)
    return select(2, assert(world.router.manager:get_shard_for_write(key)))
  end

  local function move_of(id)
    return world:ask("SELECT state, error_message FROM lunashard_catalog.move WHERE job = $1", { id })[1]
  end

  local function refused(state, ok, err)
    assert.is_nil(ok)
    assert.equal(state, err.sqlstate, tostring(err))
  end

  local function wait_for_stop(child)
    cli.wait_until("it has stopped", function()
      local stat = io.open(("/proc/%d/stat"):format(child.pid))
      local state = stat and stat:read("*a"):match("%) (%a)")
      if stat then
        stat:close()
      end
      assert(child:is_running(), (select(2, child:output())))
      return state == "T"
    end)
  end

  describe("has one mover", function()
    it("of two that begin at once", function()
      world:begin()
      local id, first, second = world:new_job(), world:rebalancer(), world:rebalancer()
      local answers = assert(task.gather({
        function() return { run(first, id) } end,
        function() return { run(second, id) } end,
      }))
      local winner = answers[1][1] and 1 or 2
      assert.is_true(answers[winner][1])
      cluster.failure("LOCK_HELD", answers[3 - winner][1], answers[3 - winner][2])
      assert.same({}, world:check(world.destination))
    end)

    it("when three others wake up that were believed dead", function()
      world:begin()
      local id, wake = world:new_job(), {}
      for i, state in ipairs({ "capturing", "fencing", "verified" }) do
        wake[i] = strike.run("sleep", world, id, points.main(state).before)
      end
      wake[1]()
      assert(world.operator:resume_job(id))
      wake[3]()
      wake[2]()
      assert.same({}, world:check(world.destination))
    end)

    -- Its process is stopped, and has lost the lock.
    local function stop_at(point)
      world:begin()
      local id = world:new_job()
      local stopped = cli.spawn({ "run", "-c", world.cluster_file, "spec/moves/mover.lua", tostring(id), point.name,
        tostring(point.nth), "STOP" })
      wait_for_stop(stopped)
      strike.end_lock(world, worlds.CHILD)
      return id, function()
        stopped:signal("CONT")
        local ended = assert(stopped:wait(20))
        stopped:close()
        assert.equal(1, ended.code, ended.stderr)
      end
    end

    local DONE = points.commits("done")[#points.commits("done")].after

    it("when one wakes up that had no moves left, and another one has undone them: it says nothing any more", function()
      local id, wake = stop_at(DONE)
      assert(world.operator:rollback_job(id))
      wake()
      assert.equal("rolled_back", world:status(id))
      assert.same({}, world:check(world.source))
    end)

    it("when one wakes up that had no moves left, and another one begins to undo them: guards stay on", function()
      local id, wake = stop_at(DONE)
      local guards
      local victim = strike.victim(world, { name = "planned.destination:before-commit", nth = 1 }, function()
        wake()
        guards = world:ask("SELECT guards FROM lunashard_catalog.cluster")[1].guards
      end)
      assert(victim:rollback_job(id))
      assert.is_true(guards)
      world:shut(victim.manager)
      assert.same({}, world:check(world.source))
    end)

    -- It goes on when somebody else has done what was left.
    local function stands_still(point, outcome)
      local id, wake = stop_at(point)
      local committed = world:is_committed()
      assert(world.operator[outcome .. "_job"](world.operator, id))
      wake()
      local moved = outcome == "resume" or outcome == "cancel" and committed
      assert.same({}, world:check(moved and world.destination or world.source))
    end

    local SHORT = { ["fencing:before-commit cancel"] = true, ["verified:before-commit resume"] = true,
      ["merged:before-commit rollback"] = true, ["flipped:before-commit resume"] = true }
    for _, state in ipairs(points.STATES) do
      for _, outcome in ipairs({ "resume", "cancel", "rollback" }) do
        local point = points.main(state).before
        local tag = SHORT[point.name .. " " .. outcome] and "" or " #long"
        it(("when the process of one stood still at %s during a %s%s"):format(point.name, outcome, tag), function()
          stands_still(point, outcome)
        end)
      end
    end
  end)

  -- A process that stands still keeps its connections, and each of these points all the locks of a transaction.
  describe("keeps nobody waiting for a process that stands still", function()
    local function stands_still(name, look)
      world:begin()
      local id = world:new_job()
      local stopped = cli.spawn({ "run", "-c", world.cluster_file, "spec/moves/mover.lua", tostring(id), name, "1", "STOP",
        "0.2" })
      finally(function()
        stopped:signal("KILL")
        stopped:close()
      end)
      wait_for_stop(stopped)
      look(id)
      assert.truthy(stopped:is_running())
      strike.end_lock(world, worlds.CHILD)
      assert(world.operator:resume_job(id))
      assert.same({}, world:check(world.destination))
    end

    -- Snapshots that last are refused, to be taken again, until what was rolled back is made up for.
    local function can_repeat_reads(key)
      cluster.wait_until("a transaction gets through", function()
        return world.router:transaction({ routing_key = key, isolation = "repeatable read" }, function(tx)
          return tx:execute("SELECT version FROM registers WHERE k = $1", { key })
        end)
      end, 10)
    end

    it("before the buckets are closed: all can be read and written", function()
      stands_still("fencing:before-commit", function()
        assert(world.router:execute("SELECT count(*) AS n FROM registers"))
        assert(world.router:execute("UPDATE registers SET value = value WHERE k = $1", { KEY }, { routing_key = KEY }))
        can_repeat_reads(KEY)
      end)
    end)

    it("before they are opened: other keys of the shard can be read", function()
      stands_still("verified:before-commit", function()
        local key = worlds.RESIDENT * (world.destination == "s1" and 1 or 2)
        assert.equal(world.destination, world.router.manager:get_shard_for_write(key).shard_id)
        can_repeat_reads(key)
      end)
    end)

    it("before the map changes: who takes over need not wait for it", function()
      stands_still("merged:before-commit", function()
        assert(world.operator.manager.catalog:execute("UPDATE lunashard_catalog.cluster SET name = name"))
      end)
    end)
  end)

  it("whose mover is gone is seen to by whoever routes, without being asked", function()
    local max_cutover = mover.OPTIONS.max_cutover
    mover.OPTIONS.max_cutover = 0.2
    finally(function()
      mover.OPTIONS.max_cutover = max_cutover
    end)
    for state, expected in pairs({ fencing = "aborted", verified = "done" }) do
      world:begin()
      local id = world:new_job()
      strike.run("exit", world, id, points.main(state).after)
      cluster.wait_until("it was seen to", function()
        return move_of(id).state == expected
      end, 10)
      assert(world.operator[expected == "done" and "resume_job" or "cancel_job"](world.operator, id))
      assert.same({}, world:check(expected == "done" and world.destination or world.source))
    end
  end)

  it("is found out by a router that nobody notifies and that does not look for itself", function()
    local deaf = world:manager()
    deaf.catalog.listener:cancel()
    deaf.catalog.poller:cancel()
    local router = lunashard.router({ shard_manager = deaf })
    world:begin(router)
    local answers = {}
    local victim = strike.victim(world, { name = "flipped:after-commit", nth = 1 }, function()
      answers[1] = assert(router:execute("SELECT version FROM registers WHERE k = $1", { KEY }, { routing_key = KEY }))
      answers[2] = assert(router:execute("UPDATE registers SET value = value WHERE k = $1", { KEY }, { routing_key = KEY }))
      answers[3] = assert(router:execute("SELECT count(*) AS n FROM registers"))
    end)
    local ok, err = run(victim, world:new_job())
    assert(ok, tostring(err))
    assert.equal(world.destination, answers[1].shard_id)
    assert.equal(world.destination, answers[2].shard_id)
    assert.equal(1, answers[2].row_count)
    assert.equal(worlds.KEYS, tonumber(answers[3].rows[1].n))
    assert.same({}, world:check(world.destination))
    world:shut(deaf)
  end)

  -- Wait until a mover waits for a lock on a shard, and until it has given that up.
  local function see_it_wait(shard_id, kind)
    local waits = "SELECT FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND locktype = '" .. kind
      .. "' AND application_name LIKE 'lunashard mover%'"
    cli.wait_until("the mover waits", function()
      return world:on(shard_id, waits)[1] ~= nil
    end)
    cli.wait_until("the mover has given up", function()
      return world:on(shard_id, waits)[1] == nil
    end)
  end

  describe("and a long transaction", function()
    it("that writes what moves: the fence waits and keeps nobody else waiting", function()
      local waiting
      local ok, err = job_with("catchup:after-saved", function()
        local tx = assert(world.router:begin({ routing_key = KEY }))
        assert(tx:execute("UPDATE registers SET value = value WHERE k = $1", { KEY }))
        waiting = task.spawn(function()
          see_it_wait(world.source, "advisory")
          assert(tx:execute("UPDATE registers SET value = value WHERE k = $1", { KEY }))
          assert(tx:commit())
        end):watch()
      end)
      assert(ok, tostring(err))
      assert(waiting:join(5))
      assert.same({}, world:check(world.destination))
    end)

    it("with an old snapshot of the source: what it has not seen move it does not change", function()
      local unguarded, guarded, ender
      local bucket
      world:begin()
      bucket = bucket_of(KEY)
      local id = world:new_job()
      unguarded, guarded = session(world.source), session(world.source)
      for _, one in ipairs({ unguarded, guarded }) do
        assert(one.run("BEGIN ISOLATION LEVEL REPEATABLE READ"))
        assert(one.run("SELECT count(*) FROM registers"))
      end
      local version = world:on(world.source, "SELECT version FROM lunashard.bucket WHERE bucket = $1", { bucket })[1].version
      local victim = strike.victim(world, { name = "flipped:after-commit", nth = 1 }, function()
        refused("LS003", unguarded.run("UPDATE registers SET value = 'stale' WHERE k = $1", { KEY }))
        refused("40001", guarded.run("SELECT lunashard.guard('int8', $1, $2)", { bucket, version }))
        ender = task.spawn(function()
          cli.wait_until("the mover waits for their end", function()
            return world:on(world.source, [[SELECT FROM pg_trigger WHERE tgname LIKE 'lunashard%']])[1] ~= nil
          end)
          assert(unguarded.run("ROLLBACK"))
          assert(guarded.run("ROLLBACK"))
        end):watch()
      end)
      local ok, err = run(victim, id)
      assert(ok, tostring(err))
      assert(ender:join(5))
      unguarded.close()
      guarded.close()
      assert.same({}, world:check(world.destination))
    end)

    it("that keeps the destination's table: the merge is tried again, or the source has its buckets back", function()
      local waiting
      local ok, err, id = job_with("catchup:after-saved", function()
        local blocker = session(world.destination)
        assert(blocker.run("BEGIN"))
        assert(blocker.run("LOCK TABLE tokens IN SHARE MODE"))
        waiting = task.spawn(function()
          see_it_wait(world.destination, "relation")
          assert(blocker.run("COMMIT"))
          blocker.close()
        end):watch()
      end)
      assert(waiting:join(5))
      if not ok then
        assert.equal("aborted", move_of(id).state, tostring(err))
        assert(world.operator:resume_job(id))
      end
      assert.same({}, world:check(world.destination))
    end)
  end)

  describe("and a table that is changed", function()
    for point, side in pairs({ ["copying:after-saved"] = "source", ["catchup:after-saved"] = "destination" }) do
      it(("on the %s at %s: it is given up, and done when that was undone"):format(side, point), function()
        local ok, err, id = job_with(point, function()
          world:on(world[side], "ALTER TABLE tokens ADD COLUMN more int")
        end)
        assert.is_nil(ok)
        assert.truthy(err.message:find("definition of a table was changed", 1, true), tostring(err))
        assert.equal("aborted", move_of(id).state)
        assert.is_false(world:is_committed())
        world:on(world[side], "ALTER TABLE tokens DROP COLUMN more")
        assert(world.operator:resume_job(id))
        assert.same({}, world:check(world.destination))
      end)
    end

    it("in its triggers: it is given up", function()
      local ok, err, id = job_with("catchup:after-saved", function()
        local found = world:on(world.source, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'lunashard%rows'")
        for _, name in ipairs({ "registers", "tokens" }) do
          world:on(world.source, ("ALTER TABLE %s DISABLE TRIGGER %s"):format(name, found[1].tgname))
        end
      end)
      assert.is_nil(ok)
      -- The second when somebody has written meanwhile.
      assert.truthy(err.message:find("dropped or disabled", 1, true) or err.message:find("were expected", 1, true), tostring(err))
      assert.equal("aborted", move_of(id).state)
      assert(world.operator:resume_job(id))
      assert.same({}, world:check(world.destination))
    end)
  end)

  describe("and somebody who writes past the router", function()
    local ATTEMPTS = {
      "UPDATE registers SET value = 'psql' WHERE k = 1",
      "DELETE FROM registers",
      "INSERT INTO tokens VALUES (1, 'psql', '')",
      "UPDATE registers SET k = k + 1000000 WHERE k = 1",
      "INSERT INTO registers VALUES (1, 0, 'psql') ON CONFLICT (k) DO UPDATE SET value = 'psql'",
      "MERGE INTO registers r USING (VALUES (1)) AS v(k) ON r.k = v.k WHEN MATCHED THEN UPDATE SET value = 'psql'",
      "COPY tokens FROM PROGRAM 'printf ''1\\tpsql\\t\\n'''",
    }

    local function attempt(one)
      for _, sql in ipairs(ATTEMPTS) do
        refused("LS003", one.run(sql))
      end
      for _, name in ipairs({ "tokens", "registers, tokens" }) do
        local ok, err
        repeat -- it locks tables one after the other, and so does who reads them
          ok, err = one.run("TRUNCATE " .. name)
        until ok or err.sqlstate ~= "40P01"
        refused("LS004", ok, err)
      end
    end

    local function as_superuser(shard_id, fn)
      local shard = world.cluster.shards[tonumber(shard_id:match("%d+"))]
      for _, server in ipairs(world.cluster.servers) do
        if server.port == shard.port then
          local pool = require("lunashard.pool").new({ host = shard.host, port = shard.port, database = shard.database,
            user = server.superuser, password = server.superuser_password, max_size = 1, pipeline = false })
          local lease = assert(pool:acquire())
          local ok, err = pcall(fn, { run = function(sql)
            return lease:execute(sql, nil, { deadline = task.now() + 10 })
          end })
          lease:discard("the test is over")
          pool:close()
          assert(ok, err)
          return
        end
      end
    end

    for _, point in ipairs({ "capturing:after-commit #long", "copying:after-saved", "fencing:after-commit #long",
      "merged:after-commit", "flipped:after-commit #long" }) do
      it(("and does none of it, whatever its role of replication, at %s"):format(point), function()
        local ok, err = job_with(point:match("%S+"), function()
          as_superuser(world.source, function(one)
            attempt(one)
            assert(one.run("SET session_replication_role = replica"))
            attempt(one)
          end)
        end)
        assert(ok, tostring(err))
        assert.same({}, world:check(world.destination))
      end)
    end

    it("and began before: what it has written comes along", function()
      local one, waiting
      world:begin()
      local id = world:new_job()
      one = session(world.source)
      assert(one.run("BEGIN"))
      assert(one.run("INSERT INTO tokens VALUES ($1, 'psql', '')", { KEY }))
      waiting = task.spawn(function()
        see_it_wait(world.source, "relation")
        assert(one.run("COMMIT"))
        one.close()
      end):watch()
      assert(world.operator:resume_job(id))
      assert(waiting:join(5))
      assert.equal(1, #world:on(world.destination, "SELECT FROM tokens WHERE token = 'psql'"))
      world:on(world.destination, "DELETE FROM tokens WHERE token = 'psql'")
      assert.same({}, world:check(world.destination))
    end)
  end)

  describe("and a router that stood still for longer than its lease", function()
    local history = require("spec.chaos.history")

    local BUSY = "SELECT FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database() AND state = 'active'"

    local DONE = [[SELECT FROM registers WHERE value LIKE 'router-%' UNION ALL SELECT FROM tokens WHERE token LIKE 'router-%']]

    local function has_written()
      return world:on(world.source, DONE)[1] ~= nil
    end

    -- Stop it when its writes have been sent and wait for somebody on the server, who then lets them.
    local function stop_unanswered(child)
      local locker = session(world.source)
      assert(locker.run("BEGIN"))
      assert(locker.run("SELECT FROM registers FOR UPDATE"))
      cli.wait_until("its writes wait", function()
        return world:on(world.source, BUSY .. " AND wait_event_type = 'Lock'", { worlds.CHILD })[1] ~= nil
      end)
      child:signal("STOP")
      wait_for_stop(child)
      assert(locker.run("COMMIT"))
      locker.close()
      cli.wait_until("they are done", function()
        return has_written() and not world:on(world.source, BUSY, { worlds.CHILD })[1]
      end)
    end

    local function start(how)
      local path = world.dir .. "/frozen"
      local child = cli.spawn({ "run", "-c", world.cluster_file, "spec/moves/router.lua", path,
        tostring(#worlds.TRAVELLERS), how })
      if how == "unanswered" then
        stop_unanswered(child)
      else
        wait_for_stop(child)
      end
      assert.equal(how == "unanswered", has_written())
      return child, path
    end

    local function wake(child)
      child:signal("CONT")
      local ended = assert(child:wait(30))
      child:close()
      assert.equal(0, ended.code, ended.stderr)
    end

    local function ops_of(path)
      return history.read(path, "router")
    end

    for _, how in ipairs({ "unsent", "unanswered" }) do
      it(("with %s writes: it wakes while the rows are gone, and each is done once"):format(how), function()
        world:begin()
        local child, path = start(how)
        local id = world:new_job()
        local victim = strike.victim(world, { name = "flipped:after-commit", nth = 1 }, function()
          wake(child)
        end)
        local ok, err = run(victim, id)
        assert(ok, tostring(err))
        assert.same({}, world:check(world.destination, { ops = ops_of(path), unknown = how == "unanswered" }))
      end)

      it(("with %s writes: it wakes when the job is over, and each is done once"):format(how), function()
        world:begin()
        local child, path = start(how)
        assert(world.operator:resume_job(world:new_job()))
        wake(child)
        assert.same({}, world:check(world.destination, { ops = ops_of(path), unknown = how == "unanswered" }))
      end)
    end

    it("with a transaction that has written: the job waits for it, and it ends as it was told", function()
      world:begin()
      local child, path = start("open")
      local waiting = task.spawn(function()
        see_it_wait(world.source, "relation")
        wake(child)
      end):watch()
      assert(world.operator:resume_job(world:new_job()))
      assert(waiting:join(5))
      assert.same({}, world:check(world.destination, { ops = ops_of(path) }))
    end)
  end)

  it("is in the list of points with each of its commits #long", function()
    world:begin()
    local listed, missing = { ["naming"] = true }, {}
    for _, state in ipairs(points.STATES) do
      for _, commit in ipairs(points.commits(state)) do
        listed[commit.before.name], listed[commit.after.name] = true, true
      end
    end
    local victim = world:rebalancer()
    victim.at = function(at)
      if not listed[at] then
        missing[#missing + 1] = at
      end
    end
    assert(run(victim, world:new_job()))
    assert.same({}, missing)
    assert.same({}, world:check(world.destination))
  end)
end)
