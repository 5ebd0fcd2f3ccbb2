local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local task = require("lunashard.task")

-- Rows are read from the socket itself where nothing encrypts it, and by libpq where TLS does: both must be alike.
local TRANSPORTS = { ["read from the socket"] = "disable", ["read by libpq, under TLS"] = "require" }

describe("a stream", function()
  setup(function()
    pools.start({ tls = true })
  end)

  teardown(function()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)

  for name, sslmode in pairs(TRANSPORTS) do
    describe(name, function()
      local lease

      before_each(function()
        lease = assert(pools.open({ sslmode = sslmode, max_size = 1 }):acquire(task.now() + 5))
        assert.equal(sslmode == "require",
          assert(lease:execute("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")).rows[1].ssl)
      end)

      -- The connection must be as good as before.
      after_each(function()
        for _ = 1, 3 do -- prepared at the second at the latest
          assert.same({ { one = 1, two = "b" } }, assert(lease:execute("SELECT 1 AS one, 'b' AS two")).rows)
        end
        lease:release()
      end)

      -- All rows, and the error that ended them.
      local function read(sql, params, size, opts)
        local cursor, err = lease:stream(sql, params, opts)
        local all = {}
        while cursor do
          local rows
          rows, err = cursor:next_rows(size or 100)
          if not rows or #rows == 0 then
            break
          end
          assert.is_true(#rows <= (size or 100))
          for _, row in ipairs(rows) do
            all[#all + 1] = row
          end
        end
        return all, err, cursor
      end

      it("gives the values, names and types that execute gives, of every type", function()
        local sql = [==[
          SELECT i, i::int2 AS small, 9007199254740993 + i AS big, -9223372036854775808 AS least, i / 3.0 AS exact,
            'NaN'::numeric AS nan, (i / 3.0)::float4 AS f4, i / 7.0::float8 AS f8, 'Infinity'::float8 AS inf,
            i % 2 = 0 AS even, CASE WHEN i % 3 = 0 THEN 'text' || i END AS sometimes, '' AS empty,
            E'tab\tnew\nline\\ ''é🐘' AS odd,
            'pad'::char(8) AS pad, decode('00ff5c00', 'hex') AS bytes, ''::bytea AS none, gen_random_uuid() IS NULL AS u,
            '2024-02-29'::date + i AS d, '2024-02-29 12:00:00.5'::timestamp AS ts, '0044-03-15 12:00+00 BC'::timestamptz AS tz,
            '25:00'::interval AS span, ARRAY[1, NULL, i] AS list, ARRAY['a', NULL, 'b"\,{}'] AS texts, '{}'::int8[] AS no_items,
            ARRAY[0.1, '-Infinity']::float8[] AS floats, ARRAY[true, false] AS bools, ARRAY[[1, 2], [3, 4]] AS matrix,
            '{"a": [1, 2]}'::jsonb AS j, '[1]'::json AS k, '1.2.3.4'::inet AS ip, (1, 'x') AS pair, '[1,5)'::int4range AS range,
            i AS twice, i + 1 AS twice, NULL AS nothing, 'x'::name AS n, repeat('y', i * 10) AS long
          FROM generate_series(1, $1::int) AS i ORDER BY i]==]
        local expected = assert(lease:execute(sql, { 300 }))
        local rows, err, cursor = read(sql, { 300 }, 7)
        assert.is_nil(err)
        assert.same(expected.columns, cursor.columns)
        assert.same(expected.column_types, cursor.column_types)
        assert.equal(300, #rows)
        for i, row in ipairs(rows) do
          local big = row.big
          assert.is_true(type(big) == "cdata" and big == expected.rows[i].big and row.least == expected.rows[i].least)
          row.big, row.least, expected.rows[i].big, expected.rows[i].least = nil, nil, nil, nil
          assert.same(expected.rows[i], row)
        end
      end)

      it("decodes json when it is told to", function()
        local rows = read([[SELECT '{"a": [1, 2]}'::jsonb AS j, '[3]'::json AS k FROM generate_series(1, 5)]], nil, 2,
          { decode_json = true })
        assert.equal(5, #rows)
        for _, row in ipairs(rows) do
          assert.same({ j = { a = { 1, 2 } }, k = { 3 } }, row)
        end
      end)

      it("takes parameters, bytes and NULL among them", function()
        local rows = read("SELECT $1::bytea AS b, $2::text AS t, $3::int8[] AS a FROM generate_series(1, $4::int)",
          { require("lunashard").bytea("\0\255"), require("lunashard").null, { 1, 2 }, 3 })
        assert.equal(3, #rows)
        assert.same({ b = "\0\255", a = { 1, 2 } }, rows[3])
      end)

      it("holds rows without columns, no rows, no result, and an empty statement", function()
        assert.equal(5, #read("SELECT FROM generate_series(1, 5)"))
        local rows, err, cursor = read("SELECT 1 AS a WHERE false")
        assert.same({ 0, nil }, { #rows, err })
        assert.same({ "a" }, cursor.columns)
        assert.same({ "int4" }, cursor.column_types)
        assert.same({}, (read("CREATE TEMPORARY TABLE nothing (a int)")))
        assert.same({}, (read("")))
        assert.same({ { a = 4 } }, (read("INSERT INTO nothing VALUES (4) RETURNING a")))
      end)

      it("passes over what the server says between rows", function()
        assert(lease:execute([[
          CREATE FUNCTION pg_temp.chatter(i int) RETURNS text LANGUAGE plpgsql AS $$
          BEGIN
            RAISE WARNING 'row % %', i, repeat('w', i % 700);
            PERFORM set_config('application_name', 'chatter' || i, false);
            PERFORM pg_notify('chatter', i::text);
            RETURN repeat('r', i % 300);
          END $$]]))
        assert(lease:execute("LISTEN chatter"))
        local rows, err = read("SELECT i, pg_temp.chatter(i) AS said FROM generate_series(1, 2000) AS i", nil, 50)
        assert.is_nil(err)
        assert.equal(2000, #rows)
        for i, row in ipairs(rows) do
          assert.equal(i, row.i)
          assert.equal(i % 300, #row.said)
        end
      end)

      it("holds rows that are longer than any buffer", function()
        local rows, err = read("SELECT i, repeat(chr(64 + i), 1000000 * i) AS wide FROM generate_series(1, 6) AS i", nil, 1)
        assert.is_nil(err)
        for i = 1, 6 do
          assert.equal(i, rows[i].i)
          assert.equal(1000000 * i, #rows[i].wide)
          assert.equal(string.char(64 + i), rows[i].wide:sub(-1))
        end
      end)

      it("ends with the error that came after rows, whole", function()
        local rows, err = read("SELECT 1 / (50000 - i) AS v FROM generate_series(1, 100000) AS i", nil, 999)
        assert.is_true(errors.is(err, "SQL"), tostring(err))
        assert.equal("22012", err.sqlstate)
        assert.equal("division by zero", err.message)
        assert.equal("shard1", err.shard_id)
        assert.is_true(#rows > 0 and #rows < 50000)
      end)

      it("ends with the error of the commit, after every row", function()
        assert(lease:execute("CREATE TEMPORARY TABLE parent (id int PRIMARY KEY)"))
        assert(lease:execute("CREATE TEMPORARY TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"))
        local rows, err = read("INSERT INTO child SELECT generate_series(1, 5000) RETURNING id", nil, 500)
        assert.equal("23503", err.sqlstate)
        assert.is_true(sslmode == "require" or #rows == 5000, #rows)
        assert.equal(0, assert(lease:execute("SELECT count(*) AS n FROM child")).rows[1].n)
      end)

      it("of a write commits once, when it was read to its end", function()
        assert(lease:execute("CREATE TEMPORARY TABLE written (id int)"))
        assert.equal(3000, #read("INSERT INTO written SELECT generate_series(1, 3000) RETURNING id", nil, 100))
        assert.equal("idle", lease:transaction_status())
        assert.equal(3000, assert(lease:execute("SELECT count(*) AS n FROM written")).rows[1].n)
      end)

      it("of a write that is closed early is as if it had not begun, or whole", function()
        assert(lease:execute("CREATE TEMPORARY TABLE written (id int)"))
        local cursor = assert(lease:stream("INSERT INTO written SELECT i FROM generate_series(1, 200000) i RETURNING id, "
          .. "repeat('x', 100) AS pad"))
        assert.equal(10, #assert(cursor:fetch(10)))
        cursor:close()
        local n = assert(lease:execute("SELECT count(*) AS n FROM written")).rows[1].n
        assert.is_true(n == 0 or n == 200000, tostring(n))
        assert.equal("idle", lease:transaction_status())
      end)

      it("that is closed while little of what the server has sent can be read keeps its connection", function()
        local hog = task.daemon(function()
          for _ = 1, 15 do
            local until_then = os.clock() + 0.12
            repeat until os.clock() > until_then -- luacheck: ignore 542
            task.sleep(0)
          end
        end)
        local cursor = assert(lease:stream("SELECT i, repeat('x', 100) AS pad FROM generate_series(1, 1000000) AS i"))
        assert.equal(10, #assert(cursor:fetch(10)))
        cursor:close()
        hog:join()
      end)

      it("that is closed at any row leaves a connection in step", function()
        for i = 1, 40 do
          local cursor = assert(lease:stream("SELECT i, repeat('x', i % 5000) AS pad FROM generate_series(1, 3000) AS i"))
          local rows = assert(cursor:fetch(i * i))
          assert.equal(math.min(i * i, 3000), #rows)
          cursor:close()
          assert.same({}, assert(cursor:fetch(1)))
          assert.equal(i, assert(lease:execute("SELECT $1::int AS v", { i })).rows[1].v)
        end
      end)

      it("whose server process ends in the middle is never taken for a short one", function()
        local pool = pools.open({ sslmode = sslmode })
        local other = assert(pool:acquire(task.now() + 5))
        local cursor = assert(other:stream("SELECT i, repeat('x', 1000) AS pad FROM generate_series(1, 1000000) AS i"))
        local n = #assert(cursor:fetch(100))
        pools.admin("SELECT pg_terminate_backend($1)", { other.backend_pid })
        local rows, err
        repeat
          rows, err = cursor:fetch(1000)
          n = n + (rows and #rows or 0)
        until not rows or #rows == 0
        assert.is_nil(rows)
        assert.is_true(errors.is(err, "SHARD_DOWN") or err.sqlstate == "57P01", tostring(err))
        assert.is_true(n < 1000000)
        other:release()
      end)

      it("refuses COPY without upsetting the pool", function()
        local pool = pools.open({ sslmode = sslmode })
        local other = assert(pool:acquire(task.now() + 5))
        local cursor, err = other:stream("COPY (SELECT 1) TO STDOUT")
        assert.is_nil(cursor)
        assert.is_true(errors.is(err), tostring(err))
        other:release()
        assert.equal(1, assert(pool:execute("SELECT 1 AS v")).rows[1].v)
      end)
    end)
  end
end)
