local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

describe("a statement with an effect", function()
  local pool

  -- Fails for every parameter; reads that are sent together with it must not notice.
  local FAILS = "SELECT id FROM sharing.item WHERE id = 1 AND v / ($1::int8 - $1) > 0"

  setup(function()
    pools.start()
    sharing.create()
    sharing.define([[
      CREATE FUNCTION sharing.add(total int8, id int8) RETURNS int8 VOLATILE LANGUAGE plpgsql AS $$
        BEGIN PERFORM sharing.write(id); RETURN total + 1; END $$;
      CREATE AGGREGATE sharing.writing_count(int8) (sfunc = sharing.add, stype = int8, initcond = '0');
      CREATE FUNCTION sharing.compare(a int8, b int8) RETURNS boolean VOLATILE LANGUAGE plpgsql AS $$
        BEGIN PERFORM sharing.write(b); RETURN a = b; END $$;
      CREATE OPERATOR sharing.=== (leftarg = int8, rightarg = int8, function = sharing.compare);
      CREATE TYPE sharing.labelled AS (id int8);
      CREATE FUNCTION sharing.to_label(id int8) RETURNS sharing.labelled VOLATILE LANGUAGE plpgsql AS $$
        BEGIN PERFORM sharing.write(id); RETURN row(id)::sharing.labelled; END $$;
      CREATE FUNCTION sharing.rows_of(id int8) RETURNS SETOF int8 STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN NEXT sharing.write(id); END $$;
      CREATE FUNCTION sharing.inlined(id int8) RETURNS int8 STABLE LANGUAGE sql AS 'SELECT sharing.write(id)';
      CREATE FUNCTION sharing.object() RETURNS int8 STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN lo_create(0)::int8; END $$;
      CREATE DOMAIN sharing.checked AS int8 CHECK (sharing.allow(value));
      CREATE FUNCTION sharing.ticket_in_secret() RETURNS int8 STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN (SELECT ticket FROM sharing.next_ticket); END $$]])
  end)

  teardown(function()
    sharing.drop()
    pools.stop()
  end)

  before_each(function()
    pools.admin("TRUNCATE sharing.log")
    pool = pools.open({ max_size = 2 })
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  -- Each writes its parameter to the log.
  local WRITERS = {
    ["a volatile function"] = "SELECT sharing.write($1::int8) AS id",
    ["a volatile function under a condition"] = "SELECT id FROM sharing.item WHERE id = $1 AND sharing.write(id) = id",
    ["a volatile function in a sub-query"] = "SELECT (SELECT sharing.write($1::int8)) AS id",
    ["a volatile function in FROM"] = "SELECT w AS id FROM sharing.write($1::int8) AS w",
    ["a volatile function in ORDER BY"] = "SELECT id FROM sharing.item WHERE id = $1 ORDER BY sharing.write(id)",
    ["a view that calls one"] = "SELECT written AS id FROM sharing.secret WHERE id = $1",
    ["a view of a view that calls one"] = "SELECT written AS id FROM sharing.secret_again WHERE id = $1",
    ["a function labelled STABLE that calls one"] = "SELECT sharing.mislabelled($1::int8) AS id",
    ["an inlined function labelled STABLE"] = "SELECT sharing.inlined($1::int8) AS id",
    ["a set-returning one labelled STABLE"] = "SELECT r AS id FROM sharing.rows_of($1::int8) AS r",
    ["a table with a row security policy that calls one"] = "SELECT id FROM sharing.guarded WHERE id = $1",
    ["an aggregate made of one"] = "SELECT sharing.writing_count(id) + $1 - 1 AS id FROM sharing.item WHERE id = $1",
    ["an operator made of one"] = "SELECT id FROM sharing.item WHERE id = $1 AND id OPERATOR(sharing.===) $1::int8",
    ["a domain whose check calls one"] = "SELECT CAST($1::int8 AS sharing.checked)::int8 AS id",
    ["a data-modifying WITH"] = "WITH w AS (INSERT INTO sharing.log VALUES ($1) RETURNING id) SELECT id FROM w",
    ["INSERT ... RETURNING"] = "INSERT INTO sharing.log VALUES ($1) RETURNING id",
  }

  for name, sql in pairs(WRITERS) do
    it(("has it once for each answer: %s"):format(name), function()
      sharing.warm(pool, sharing.READ, { 1 })
      for _ = 1, 5 do
        pools.failure("SQL", pool:execute(FAILS, { 1 }))
      end
      local acknowledged = {}
      sharing.all(12, function(i)
        for round = 1, 8 do
          local id = (i * 8 + round) % sharing.ITEMS + 1
          if (i + round) % 4 == 0 then
            local err = pools.failure("SQL", pool:execute(FAILS, { id }))
            assert.equal("22012", err.sqlstate)
          else
            local rows = assert(pool:execute(sql, { id })).rows
            assert.equal(1, #rows)
            assert.equal(id, rows[1].id)
            acknowledged[id] = (acknowledged[id] or 0) + 1
            -- what was acknowledged is there for everybody
            local found = assert(pool:execute("SELECT count(*) AS n FROM sharing.log WHERE id = $1", { id })).rows[1].n
            assert.is_true(found >= acknowledged[id])
          end
          assert.same({ { id = id, v = id * 7 + 3 } }, assert(pool:execute(sharing.READ, { id })).rows)
        end
      end)
      assert.same(acknowledged, sharing.written())
    end)

    it(("never has it in a batch: %s"):format(name), function()
      for i = 1, 3 do
        assert(pool:execute(sql, { i }))
      end
      -- one that hides its effect may be tried in a read-only session, where it fails, and no more from then on
      local _, batched = sharing.shared_by(pool, function()
        for i = 1, 20 do
          assert(pool:execute(sql, { i }))
        end
      end)
      assert.is_true(batched <= 1, batched .. " in batches")
    end)
  end

  it("of a cast has it once for each answer, and keeps all reads of its database out of batches", function()
    sharing.define("CREATE CAST (int8 AS sharing.labelled) WITH FUNCTION sharing.to_label")
    local sql = "SELECT (CAST($1::int8 AS sharing.labelled)).id AS id"
    sharing.warm(pool, sharing.READ, { 1 })
    local _, batched = sharing.shared_by(pool, function()
      sharing.all(12, function(i)
        for round = 1, 8 do
          local id = i * 8 + round
          assert.equal(id, assert(pool:execute(sql, { id })).rows[1].id)
          pools.failure("SQL", pool:execute(FAILS, { id }))
          assert(pool:execute(sharing.READ, { i }))
        end
      end)
    end)
    pools.admin("DROP CAST (int8 AS sharing.labelled)")
    assert.equal(0, batched)
    local times, n = sharing.written(), 0
    for _, count in pairs(times) do
      assert.equal(1, count)
      n = n + 1
    end
    assert.equal(96, n)
  end)

  for name, sql in pairs({
    ["nextval"] = "SELECT nextval('sharing.ticket') AS ticket",
    ["a view of nextval"] = "SELECT ticket FROM sharing.next_ticket",
    ["a function labelled STABLE that takes one"] = "SELECT sharing.ticket_in_secret() AS ticket",
  }) do
    it(("draws one ticket for each answer: %s"):format(name), function()
      local before = assert(pool:execute("SELECT nextval('sharing.ticket') AS ticket")).rows[1].ticket
      local drawn, n = {}, 0
      sharing.all(16, function(i)
        for round = 1, 10 do
          local ticket = assert(pool:execute(sql)).rows[1].ticket
          assert.is_nil(drawn[ticket])
          drawn[ticket] = true
          n = n + 1
          if (i + round) % 3 == 0 then
            pools.failure("SQL", pool:execute(FAILS, { i }))
          end
          assert(pool:execute(sharing.READ, { i }))
        end
      end)
      assert.equal(before + n, pools.admin("SELECT last_value FROM sharing.ticket")[1].last_value)
    end)
  end

  it("that a deferred constraint refuses at the end was not done", function()
    local sql = "INSERT INTO sharing.deferred VALUES ($1)"
    sharing.warm(pool, sql, function()
      return { sharing.new_id() }
    end)
    local first = sharing.new_id()
    assert(pool:execute(sql, { first }))
    local before = pools.admin("SELECT count(*) AS n FROM sharing.deferred")[1].n
    local neighbours = sharing.neighbours(pool, { n = 4 })
    sharing.all(8, function(i)
      for _ = 1, 10 do
        local err = pools.failure("SQL", pool:execute(sql, { first }))
        assert.equal("23505", err.sqlstate)
        assert.is_truthy(err.detail:find(tostring(first), 1, true), err.detail)
        assert(pool:execute(sharing.READ, { i }))
        assert(pool:execute(sql, { sharing.new_id() }))
      end
    end)
    neighbours:stop()
    assert.equal(1, pools.admin("SELECT count(*) AS n FROM sharing.deferred WHERE id = $1", { first })[1].n)
    assert.equal(before + 80, pools.admin("SELECT count(*) AS n FROM sharing.deferred")[1].n)
  end)

  it("behind a slow statement has it once, while reads without functions of users overtake that", function()
    local object = "SELECT sharing.object() AS oid"
    sharing.warm(pool, object)
    sharing.warm(pool, sharing.READ, { 1 })
    sharing.warm(pool, sharing.SLOW_READ, { 1, 1 })
    local before = pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n
    local reruns = pool:stats().reruns
    local slow = task.spawn(function()
      return assert(pool:execute(sharing.SLOW_READ, { 1, 5000000 }))
    end)
    pools.wait_until("it runs", function()
      return pool:stats().used == 1
    end)
    sharing.all(6, function(i)
      if i % 2 == 0 then
        assert(pool:execute(object))
      else
        assert.equal(i * 7 + 3, assert(pool:execute(sharing.READ, { i })).rows[1].v)
      end
    end)
    assert.is_true((slow:join(30)))
    assert.is_true(pool:stats().reruns > reruns)
    pools.wait_until("what was sent has been run", function()
      return pool:stats().used == 0
    end)
    assert.equal(before + 3, pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n)
    pools.admin("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
  end)

  it("in a batch that another one makes fail is there when it was acknowledged, and only once", function()
    local object, texts, made, n = "SELECT sharing.object() AS oid", {}, {}, 0
    sharing.warm(pool, object)
    sharing.warm(pool, sharing.READ, { 1 })
    for k = 1, 40 do -- one that has failed in a batch goes by itself from then on
      texts[k] = ("SELECT v / $1::int8 + %d AS v FROM sharing.item WHERE id = 1"):format(k)
      sharing.warm(pool, texts[k], { 1 })
    end
    local before = pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n
    local reruns = pool:stats().reruns
    for k = 1, 40 do
      sharing.all(7, function(i) -- all in one batch
        if i == 5 then
          local err = pools.failure("SQL", pool:execute(texts[k], { 0 }))
          assert.equal("22012", err.sqlstate)
        elseif i == 6 then
          assert.equal(k * 7 + 3, assert(pool:execute(sharing.READ, { k })).rows[1].v)
        else
          made[assert(pool:execute(object)).rows[1].oid] = true
          n = n + 1
        end
      end)
    end
    assert.is_true(pool:stats().reruns - reruns >= 100)
    for _, row in ipairs(pools.admin("SELECT oid::int8 AS oid FROM pg_largeobject_metadata")) do
      made[row.oid] = nil
    end
    assert.is_nil(next(made))
    assert.equal(before + n, pools.admin("SELECT count(*) AS n FROM pg_largeobject_metadata")[1].n)
    pools.admin("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
  end)

  it("that fails tells its own error to its own task", function()
    local texts = {
      "SELECT $1::text::int8 + v AS v FROM sharing.item WHERE id = 1", -- invalid input syntax: "marker"
      "INSERT INTO sharing.taken SELECT $1::text::int8",
      "UPDATE sharing.counter SET n = n + $1::text::int8 WHERE id = 1",
    }
    local neighbours = sharing.neighbours(pool, { n = 6 })
    sharing.all(12, function(i)
      for round = 1, 20 do
        local marker = ("marker-%d-%d"):format(i, round)
        local err = pools.failure("SQL", pool:execute(texts[round % 3 + 1], { marker }))
        assert.equal("22P02", err.sqlstate)
        assert.is_truthy(err.message:find('"' .. marker .. '"', 1, true), err.message)
      end
    end)
    neighbours:stop()
  end)

  it("is seen by every read that is issued after its acknowledgement", function()
    for _, sql in ipairs({ "SELECT n FROM sharing.counter WHERE id = $1", sharing.COUNT }) do
      sharing.warm(pool, sql, { 1 })
    end
    local least, late = {}, 0
    for _, row in ipairs(pools.admin("SELECT id, n FROM sharing.counter")) do
      least[row.id] = row.n
    end
    sharing.all(32, function(i)
      for round = 1, 60 do
        local id = (i + round) % 8 + 1
        local sql = round % 3 == 0 and sharing.COUNT or "SELECT n FROM sharing.counter WHERE id = $1"
        local floor = least[id]
        local n = assert(pool:execute(sql, { id })).rows[1].n
        late = late + (n < floor and 1 or 0)
        if sql == sharing.COUNT then
          least[id] = math.max(least[id], n)
        end
      end
    end)
    assert.equal(0, late)
  end)

  it("comes before now() as others see it who ask afterwards", function()
    local write = "INSERT INTO sharing.log VALUES ($1) RETURNING extract(epoch FROM clock_timestamp())::float8 AS at"
    local read = "SELECT extract(epoch FROM now())::float8 AS at"
    sharing.warm(pool, write, { 1 })
    sharing.warm(pool, read)
    local latest, early = 0, 0
    sharing.all(32, function(i)
      for _ = 1, 40 do
        if i % 4 == 0 then
          local at = assert(pool:execute(write, { 1 })).rows[1].at
          latest = math.max(latest, at)
        else
          local floor = latest
          local at = assert(pool:execute(read)).rows[1].at
          early = early + (at < floor and 1 or 0)
        end
      end
    end)
    assert.equal(0, early)
  end)

  it("in a transaction that is undone is seen by nobody, meanwhile or later", function()
    pool = pools.open({ max_size = 3 })
    local count = "SELECT count(*) AS n FROM sharing.log WHERE id = $1"
    sharing.warm(pool, count, { 1 })
    local undone, over = {}, false
    local watching = task.spawn(function()
      local seen = 0
      while not over do
        for i = 1, #undone do
          seen = seen + assert(pool:execute(count, { undone[i] })).rows[1].n
        end
        task.sleep(0)
      end
      return seen
    end)
    sharing.all(2, function()
      for _ = 1, 10 do
        local lease, id = assert(pool:acquire(task.now() + 10)), sharing.new_id()
        undone[#undone + 1] = id
        assert(lease:execute("BEGIN"))
        assert(lease:execute(sharing.INSERT, { id }))
        assert(pool:execute(sharing.READ, { 1 }))
        assert(lease:execute("ROLLBACK"))
        lease:release()
      end
    end)
    over = true
    local _, seen = assert(watching:join(10))
    assert.equal(0, seen)
  end)
end)
