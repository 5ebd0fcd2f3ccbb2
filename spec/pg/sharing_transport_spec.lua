local errors = require("lunashard.errors")
local interleave = require("spec.support.interleave")
local pools = require("spec.support.pools")
local proxy = require("spec.support.net.proxy")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- What runs on shared connections is written and read past libpq: it must come to the same as what libpq writes and
-- reads on a connection of its own, encrypted or not, and in whatever pieces it comes.
-- LUNASHARD_SEED makes the same choices again; LUNASHARD_LONG=seconds makes each interleaving run for so long.
local LONG = tonumber(os.getenv("LUNASHARD_LONG"))
local SEED = tonumber(os.getenv("LUNASHARD_SEED") or os.time() % 1000000)

local EVERY_TYPE = [==[
  SELECT i, i::int2 AS small, 9007199254740993 + i AS big, i / 3.0 AS exact, 'NaN'::numeric AS nan,
    (i / 3.0)::float4 AS f4, i / 7.0::float8 AS f8, 'Infinity'::float8 AS inf, i % 2 = 0 AS even,
    CASE WHEN i % 3 = 0 THEN 'text' || i END AS sometimes, '' AS empty, E'tab\tnew\nline\\ ''é🐘' AS odd,
    'pad'::char(8) AS pad, decode('00ff5c00', 'hex') AS bytes, ''::bytea AS none, '2024-02-29'::date + i AS d,
    '0044-03-15 12:00+00 BC'::timestamptz AS tz, ARRAY[1, NULL, i] AS list, ARRAY['a', NULL, 'b"\,{}'] AS texts,
    '{}'::int8[] AS no_items, ARRAY[0.1, '-Infinity']::float8[] AS floats, ARRAY[[1, 2], [3, 4]] AS matrix,
    '{"a": [1, 2]}'::jsonb AS j, (1, 'x') AS pair, i AS twice, i + 1 AS twice, NULL AS nothing,
    repeat('y', i * 10) AS long, $2::text AS text, $3::bytea AS given, $4::int8[] AS ints, $5::bool AS flag
  FROM generate_series(1, $1::int) AS i ORDER BY i]==]

describe("a shared connection", function()
  setup(function()
    pools.start({ tls = true })
    sharing.create()
    interleave.create()
    sharing.define([[
      CREATE TABLE sharing.parent (id int8 PRIMARY KEY);
      INSERT INTO sharing.parent VALUES (1);
      CREATE TABLE sharing.child (id int8 REFERENCES sharing.parent DEFERRABLE INITIALLY DEFERRED,
        n int8 CONSTRAINT n_is_positive CHECK (n > 0));
      CREATE TABLE sharing.changing (a int);
      CREATE FUNCTION sharing.chatter(i int) RETURNS text STABLE LANGUAGE plpgsql AS $$
        BEGIN
          RAISE WARNING 'row % %', i, repeat('w', i % 700);
          RETURN repeat('r', i % 300);
        END $$;
      CREATE FUNCTION sharing.refuse(i int) RETURNS int STABLE LANGUAGE plpgsql AS $$
        BEGIN
          IF i = 0 THEN RETURN 0; END IF;
          RAISE EXCEPTION 'refused %', i USING DETAIL = repeat('d', 10000), HINT = 'ask another', ERRCODE = 'LS123';
        END $$]])
  end)

  teardown(function()
    sharing.drop()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  -- The answer of a statement that has shared a connection, whether it is a result or an error.
  local function shared_answer(pool, sql, params)
    local deadline = task.now() + 5
    repeat
      local result, err
      local shared = sharing.shared_by(pool, function()
        result, err = pool:execute(sql, params)
      end)
      if shared > 0 then
        return result, err
      end
      task.sleep(0.001)
    until task.now() > deadline
    error("it never shares a connection: " .. sql)
  end

  local function comparable(result)
    local rows = {}
    for i, row in ipairs(result.rows) do
      rows[i] = {}
      for name, value in pairs(row) do
        rows[i][name] = type(value) == "cdata" and tostring(value) or value ~= value and "nan" or value
      end
    end
    return { rows, result.columns, result.column_types, result.row_count, result.command }
  end

  for name, sslmode in pairs({ ["read from the socket"] = "disable", ["read under TLS"] = "require" }) do
    describe(name, function()
      local pool, alone

      before_each(function()
        pool = pools.open({ sslmode = sslmode, max_size = 1 })
        alone = pools.open({ sslmode = sslmode, max_size = 1, pipeline = false })
        local secured = assert(pool:execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).rows[1].ssl
        assert.equal(sslmode == "require", secured)
      end)

      it("gives the rows, names, types, counts and commands that libpq gives", function()
        local null = require("lunashard").null
        for _, statement in ipairs({
          { EVERY_TYPE, { 100, "", require("lunashard").bytea("\0\255'"), { 1, 2 }, true } },
          { EVERY_TYPE, { 2, null, null, null, null, n = 5 } },
          { EVERY_TYPE, { 0, ("x"):rep(100000), require("lunashard").bytea(("\0"):rep(50000)), {}, false } },
          { "SELECT FROM generate_series(1, 5)" },
          { "SELECT 1 AS a WHERE false" },
          { "SELECT $1::int AS v, $2::text AS w", { 1, null, n = 2 } },
          { "SELECT repeat('x', $1::int) AS wide FROM generate_series(1, 3)", { 60000 } },
          { "UPDATE sharing.item SET v = v WHERE id <= $1", { 3 } },
          { "UPDATE sharing.item SET v = v WHERE id <= $1 RETURNING id, v", { 3 } },
          { "DELETE FROM sharing.item WHERE id < $1", { 0 } },
          { "INSERT INTO sharing.log SELECT 0 FROM generate_series(1, $1::int)", { 0 } },
        }) do
          local sql, params = statement[1], statement[2]
          local expected = comparable(assert(alone:execute(sql, params)))
          for _ = 1, 3 do
            assert.same(expected, comparable(assert(shared_answer(pool, sql, params))))
          end
        end
      end)

      it("gives errors with everything that libpq gives", function()
        for _, statement in ipairs({
          { "SELECT 1 / ($1::int - 1) AS v", { 1 }, { 2 } },
          { "SELECT sharing.refuse($1::int)", { 7 }, { 0 } },
          { "INSERT INTO sharing.child (n) VALUES ($1)", { -1 }, { 1 } },
          { "INSERT INTO sharing.child (id) VALUES ($1)", { 99 }, { 1 } }, -- when it commits
          { "SELECT id FROM sharing.item WHERE id = $1", { "many" }, { 1 } },
        }) do
          local sql, params = statement[1], statement[2]
          sharing.warm(pool, sql, statement[3])
          local before = sharing.counts(pool)
          local _, expected = alone:execute(sql, params)
          assert.is_true(errors.is(expected, "SQL"), sql)
          expected.elapsed = nil
          for _ = 1, 10 do
            local result, err = pool:execute(sql, params)
            assert.is_nil(result)
            err.elapsed = nil
            assert.same(expected, err)
          end
          assert.is_true(sharing.counts(pool) - before >= 10, sql)
          assert.equal(10, shared_answer(pool, sharing.READ, { 1 }).rows[1].v)
        end
      end)

      it("passes over what the server says between rows", function()
        local sql = "SELECT i, sharing.chatter(i) AS said FROM generate_series(1, 500) AS i"
        local result = assert(shared_answer(pool, sql))
        assert.equal(500, #result.rows)
        for i, row in ipairs(result.rows) do
          assert.equal(i, row.i)
          assert.equal(i % 300, #row.said)
        end
      end)

      it("notices columns that are added, renamed or of another type", function()
        local sql = "SELECT * FROM sharing.changing"
        pools.admin("DROP TABLE sharing.changing")
        pools.admin("CREATE TABLE sharing.changing AS SELECT 1 AS a")
        pools.admin("GRANT ALL ON sharing.changing TO public")
        assert.same({ { a = 1 } }, assert(shared_answer(pool, sql)).rows)
        for _, change in ipairs({
          { "ADD COLUMN b text DEFAULT 'two'", { a = 1, b = "two" }, { "int4", "text" } },
          { "RENAME COLUMN a TO c", { c = 1, b = "two" }, { "int4", "text" } },
          { "ALTER COLUMN c TYPE text", { c = "1", b = "two" }, { "text", "text" } },
          { "DROP COLUMN b", { c = "1" }, { "text" } },
        }) do
          pools.admin("ALTER TABLE sharing.changing " .. change[1])
          for _ = 1, 3 do
            local result = assert(shared_answer(pool, sql))
            assert.same({ change[2] }, result.rows)
            assert.same(change[3], result.column_types)
          end
        end
      end)

      it("answers a hundred tasks with their own rows, long ones among them", function()
        local sql = "SELECT id, repeat(chr(65 + id::int % 26), $2::int) AS wide FROM sharing.item WHERE id = $1"
        sharing.warm(pool, sql, { 1, 1 })
        local shared = sharing.shared_by(pool, function()
          sharing.all(100, function(i)
            for n = 1, 5 do
              local length = (i * n * 37) % 20000
              local row = assert(pool:execute(sql, { i, length })).rows[1]
              assert(row.id == i and row.wide == string.char(65 + i % 26):rep(length))
            end
          end)
        end)
        assert.equal(500, shared)
      end)
    end)
  end

  local function interleaved(pool_options, sabotage, seconds)
    math.randomseed(SEED)
    local till, total, n = task.now() + (LONG or seconds), 0, 0
    repeat
      n = n + 1
      local pool = { max_size = (n - 1) % 3 + 1, read_batches = n % 3 > 0 }
      for name, value in pairs(pool_options) do
        pool[name] = value
      end
      local complaints, counts = interleave.round({
        seconds = 1, tasks = math.random(20, 100), sabotage = sabotage, pool = pool,
      })
      assert.equal(0, #complaints, ("seed %d, round %d: %s"):format(SEED, n, table.concat(complaints, "\n", 1,
        math.min(#complaints, 8))))
      total = total + counts.shared
    until task.now() >= till
    assert.is_true(total > 50 * n, total .. " shared")
  end

  it(("keeps interleaved statements apart under TLS (seed %d)"):format(SEED), function()
    interleaved({ sslmode = "require" }, true, 1)
  end)

  it(("keeps interleaved statements apart in whatever pieces they come (seed %d)"):format(SEED), function()
    local between = proxy.start(pools.server.port)
    between:break_up(300)
    -- slow, so that some may be lost; reads must not be taken for slow ones and run twice
    interleaved({ host = between.host, port = between.port, sslmode = "disable", slow_statement = 0 }, true, 1)
    between:close()
  end)

  it("that ends anywhere within an answer gives no part of it", function()
    local between = proxy.start(pools.server.port)
    local sql = "SELECT i, repeat('x', i) AS wide FROM generate_series(1, $1::int) AS i"
    for _, place in ipairs({ 1, 5, 6, 17, 40, 99, 150, 400, 1000, 1400 }) do
      between:pass()
      local pool = pools.open({ host = between.host, port = between.port, sslmode = "disable", max_size = 1 })
      shared_answer(pool, sql, { 50 })
      between:truncate("down", place)
      local result, err = pool:execute(sql, { 50 }, { read_only = true, deadline = task.now() + 0.5 })
      assert.is_nil(result)
      assert.is_true(errors.is(err, "SHARD_DOWN") or errors.is(err, "TIMEOUT"), tostring(err))
      between:pass()
      pools.wait_until("it is served again", function()
        result = pool:execute(sql, { 50 }, { read_only = true })
        return result and #result.rows == 50
      end)
      pool:close()
    end
    between:close()
  end)
end)
