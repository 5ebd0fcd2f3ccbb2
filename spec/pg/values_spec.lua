local errors = require("lunashard.errors")
local ffi = require("ffi")
local lunashard = require("lunashard")
local pools = require("spec.support.pools")

local NULL = lunashard.null

describe("values", function()
  local pool

  setup(function()
    pools.start()
    pools.admin("CREATE DOMAIN small AS int4 CHECK (VALUE < 100)")
    pools.admin("CREATE DOMAIN words AS text[]")
    pools.admin("CREATE TYPE mood AS ENUM ('sad', 'it''s ok')")
    pools.admin("CREATE TYPE pair AS (a int, b text)")
  end)

  teardown(function()
    pools.admin("DROP DOMAIN small, words")
    pools.admin("DROP TYPE mood, pair")
    pools.stop()
  end)

  before_each(function()
    pool = pools.open()
  end)

  after_each(function()
    pools.close_all()
  end)

  local function run(sql, params, options)
    return assert(pool:execute(sql, params, options))
  end

  -- The value of the only column of the only row.
  local function value(sql, params, options)
    local result = run(sql, params, options)
    assert.equal(1, #result.rows)
    return result.rows[1].v
  end

  local function assert_int64(expected, actual)
    assert.is_true(ffi.istype("int64_t", actual), "an int64_t, got " .. type(actual) .. " " .. tostring(actual))
    assert.is_true(expected == actual, tostring(actual))
  end

  -- What a bad parameter ends in: a raised text, or INVALID where the value came from outside.
  local function refusal(sql, params)
    local ok, result, err = pcall(pool.execute, pool, sql, params)
    if not ok then
      return tostring(result)
    end
    assert.is_nil(result)
    assert.is_true(errors.is(err, "INVALID"), tostring(err))
    return err.message
  end

  describe("from SQL", function()
    it("gives booleans", function()
      assert.is_true(value("SELECT true AS v"))
      assert.is_false(value("SELECT false AS v"))
    end)

    it("gives int2 and int4 as numbers, to their extremes", function()
      assert.equal(-32768, value("SELECT (-32768)::int2 AS v"))
      assert.equal(32767, value("SELECT 32767::int2 AS v"))
      assert.equal(-2147483648, value("SELECT (-2147483648)::int4 AS v"))
      assert.equal(2147483647, value("SELECT 2147483647::int4 AS v"))
    end)

    it("gives int8 as a number as long as a double holds it exactly", function()
      for _, text in ipairs({ "0", "-1", "9007199254740992", "-9007199254740992" }) do
        local v = value("SELECT " .. text .. "::int8 AS v")
        assert.equal("number", type(v))
        assert.equal(tonumber(text), v)
      end
    end)

    it("gives int8 beyond 2^53 as int64_t, without losing a digit", function()
      assert_int64(9007199254740993LL, value("SELECT 9007199254740993::int8 AS v"))
      assert_int64(-9007199254740993LL, value("SELECT (-9007199254740993)::int8 AS v"))
      assert_int64(9223372036854775807LL, value("SELECT 9223372036854775807::int8 AS v"))
      assert_int64(-9223372036854775807LL - 1, value("SELECT (-9223372036854775808)::int8 AS v"))
    end)

    it("gives float8 bit by bit, with infinities, NaN, minus zero and denormals", function()
      assert.equal(0.1, value("SELECT 0.1::float8 AS v"))
      assert.equal(1.7976931348623157e308, value("SELECT '1.7976931348623157e308'::float8 AS v"))
      assert.equal(5e-324, value("SELECT '5e-324'::float8 AS v"))
      assert.equal(math.huge, value("SELECT 'Infinity'::float8 AS v"))
      assert.equal(-math.huge, value("SELECT '-Infinity'::float8 AS v"))
      local nan = value("SELECT 'NaN'::float8 AS v")
      assert.is_true(type(nan) == "number" and nan ~= nan)
      assert.equal(-math.huge, 1 / value("SELECT '-0'::float8 AS v"))
    end)

    it("gives float4 as the number that its digits name", function()
      assert.equal(0.1, value("SELECT 0.1::float4 AS v"))
      assert.equal(-math.huge, value("SELECT '-Infinity'::float4 AS v"))
      assert.equal(3.4028235e38, value("SELECT '3.4028235e38'::float4 AS v"))
    end)

    it("gives numeric as text, every digit and trailing zero of it", function()
      local digits = ("1234567890"):rep(10)
      assert.equal(digits .. ".00100", value("SELECT " .. digits .. ".00100 AS v"))
      assert.equal("NaN", value("SELECT 'NaN'::numeric AS v"))
      assert.equal("2", value("SELECT 2::numeric AS v"))
    end)

    it("gives text unchanged", function()
      assert.equal([[it's "quoted" \back\]], value([[SELECT 'it''s "quoted" \back\' AS v]]))
      assert.equal("é€🐘\n\t", value([[SELECT E'é€🐘\n\t' AS v]]))
      assert.equal("abc  ", value("SELECT 'abc'::char(5) AS v"))
    end)

    it("tells an empty text from NULL, which is an absent field", function()
      local row = run("SELECT ''::text AS empty, NULL::text AS missing, NULL::int8 AS n, NULL::bytea AS b").rows[1]
      assert.equal("", row.empty)
      local names = {}
      for name in pairs(row) do
        names[#names + 1] = name
      end
      assert.same({ "empty" }, names)
    end)

    it("gives bytea as raw bytes, all 256 of them", function()
      local bytes = {}
      for byte = 0, 255 do
        bytes[#bytes + 1] = string.char(byte)
      end
      local hex = table.concat(bytes):gsub(".", function(c)
        return ("%02x"):format(c:byte())
      end)
      assert.equal(table.concat(bytes), value([[SELECT '\x]] .. hex .. [['::bytea AS v]]))
      assert.equal("", value("SELECT ''::bytea AS v"))
    end)

    it("gives json and jsonb as text, or decoded on wish", function()
      assert.equal('{"a": [1, "x"]}', value([[SELECT '{"a": [1, "x"]}'::json AS v]]))
      assert.equal('{"a": 1}', value([[SELECT '{"a":1}'::jsonb AS v]]))
      local decoded = value([[SELECT '{"a": [1, "é"], "b": {"c": true}}'::jsonb AS v]], nil, { decode_json = true })
      assert.same({ a = { 1, "é" }, b = { c = true } }, decoded)
      assert.equal(7, value("SELECT '7'::json AS v", nil, { decode_json = true }))
      assert.is_nil(value("SELECT NULL::jsonb AS v", nil, { decode_json = true }))
      assert.equal(NULL, value("SELECT 'null'::jsonb AS v", nil, { decode_json = true }))
    end)

    it("reports JSON that cannot be decoded as an error of the call", function()
      local sql = "SELECT (repeat('[', 5000) || repeat(']', 5000))::jsonb AS v"
      assert.equal(10000, #value(sql))
      local ok, result, err = pcall(pool.execute, pool, sql, nil, { decode_json = true })
      assert.is_true(ok, tostring(result))
      assert.is_nil(result)
      assert.is_true(errors.is(err), tostring(err))
    end)

    it("refuses a length n that is none", function()
      for _, n in ipairs({ -1, 1.5, 0 / 0, math.huge, 2 ^ 40, "x" }) do
        local ok, message = pcall(pool.execute, pool, "SELECT $1", { 1, n = n })
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find("n, the length of the list", 1, true), tostring(message))
      end
    end)

    it("gives one-dimensional arrays as tables", function()
      assert.same({ 1, -2, 32767 }, value("SELECT '{1,-2,32767}'::int2[] AS v"))
      assert.same({ 1, 2147483647 }, value("SELECT '{1,2147483647}'::int4[] AS v"))
      assert.same({ true, false, NULL }, value("SELECT '{t,f,NULL}'::bool[] AS v"))
      assert.same({ 0.5, math.huge, 1e300 }, value("SELECT '{0.5,Infinity,1e300}'::float8[] AS v"))
      assert.same({ 0.1 }, value("SELECT '{0.1}'::float4[] AS v"))
      assert.same({ "1.10", "12345678901234567890" }, value("SELECT '{1.10,12345678901234567890}'::numeric[] AS v"))
      assert.same({ "\0\255", "" }, value([[SELECT ARRAY['\x00ff','']::bytea[] AS v]]))
      assert.same({ "x", "y" }, value("SELECT '{x,y}'::varchar[] AS v"))
    end)

    it("keeps int8 elements exact", function()
      local v = value("SELECT '{1,9223372036854775807,NULL,-9007199254740993}'::int8[] AS v")
      assert.equal(4, #v)
      assert.equal(1, v[1])
      assert_int64(9223372036854775807LL, v[2])
      assert.equal(NULL, v[3])
      assert_int64(-9007199254740993LL, v[4])
    end)

    it("reads quotes, backslashes, empty texts and the word NULL in arrays", function()
      local sql = [[SELECT ARRAY['a', 'b " c', 'd\e', NULL, 'NULL', 'null', '', '{x,y}', ' s ', E'n\nl', 'é'] AS v]]
      assert.same({ "a", 'b " c', [[d\e]], NULL, "NULL", "null", "", "{x,y}", " s ", "n\nl", "é" }, value(sql))
    end)

    it("gives an empty array as an empty table, and a NULL array as an absent field", function()
      assert.same({}, value("SELECT '{}'::int4[] AS v"))
      assert.same({}, value("SELECT '{}'::text[] AS v"))
      assert.is_nil(value("SELECT NULL::int4[] AS v"))
    end)

    it("leaves arrays that a list cannot hold as text", function()
      assert.equal("{{1,2},{3,4}}", value("SELECT ARRAY[[1,2],[3,4]] AS v"))
      assert.equal("[2:3]={7,8}", value("SELECT '[2:3]={7,8}'::int4[] AS v"))
      assert.equal("{{a,b}}", value("SELECT '{{a,b}}'::text[] AS v"))
    end)

    it("gives dates, times, intervals, uuids and the like as text", function()
      local expected = {
        ["date '2024-02-29'"] = "2024-02-29",
        ["timestamp '2024-02-29 23:59:59.999999'"] = "2024-02-29 23:59:59.999999",
        ["timestamptz '2024-02-29 12:00:00+00' AT TIME ZONE 'UTC'"] = "2024-02-29 12:00:00",
        ["time '01:02:03'"] = "01:02:03",
        ["interval '1 year 2 days -03:04:05'"] = "1 year 2 days -03:04:05",
        ["date 'infinity'"] = "infinity",
        ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'::uuid"] = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ["inet '10.0.0.1/8'"] = "10.0.0.1/8",
        ["point '(1,2)'"] = "(1,2)",
        ["B'101'"] = "101",
        ["int4range(1,5)"] = "[1,5)",
        ["'abc'::name"] = "abc",
      }
      for sql, text in pairs(expected) do
        assert.equal(text, value("SELECT " .. sql .. " AS v"), sql)
      end
    end)

    it("gives a domain as its base type, enums and composites as text", function()
      assert.equal(42, value("SELECT 42::small AS v"))
      assert.same({ "a", "b" }, value("SELECT '{a,b}'::words AS v"))
      assert.equal("it's ok", value("SELECT 'it''s ok'::mood AS v"))
      assert.equal('(1,"a ""b""")', value([[SELECT (1, 'a "b"')::pair AS v]]))
    end)
  end)

  describe("to SQL", function()
    it("sends whole numbers without exponent or fraction", function()
      assert.equal("1000000000000000", value("SELECT $1::text AS v", { 1e15 }))
      assert.equal("9007199254740992", value("SELECT $1::int8::text AS v", { 2 ^ 53 }))
      assert.equal("-2147483648", value("SELECT $1::int4::text AS v", { -2147483648 }))
      assert.equal("100000000000000000000", value("SELECT $1::numeric::text AS v", { 1e20 }))
      assert.equal("0", value("SELECT $1::int4::text AS v", { 0 }))
    end)

    it("sends fractions so that the server has the same double", function()
      assert.equal("0.1", value("SELECT $1::numeric::text AS v", { 0.1 }))
      assert.is_true(value("SELECT $1::float8 = '0.30000000000000004'::float8 AS v", { 0.1 + 0.2 }))
      assert.equal(math.huge, value("SELECT $1::float8 AS v", { math.huge }))
      assert.equal(-math.huge, value("SELECT $1::float8 AS v", { -math.huge }))
      assert.equal("NaN", value("SELECT $1::float8::text AS v", { 0 / 0 }))
      assert.equal(-math.huge, 1 / value("SELECT $1::float8 AS v", { -0.0 }))
    end)

    it("brings random doubles back bit by bit", function()
      local seed = os.time()
      math.randomseed(seed)
      local doubles, bits, double = {}, ffi.new("uint32_t[2]"), ffi.new("double[1]")
      while #doubles < 2000 do
        local exponent = math.random(0, 2046) -- 2047 is NaN, whose other bits Lua must not see
        bits[0] = math.random(0, 2 ^ 32 - 1)
        bits[1] = math.random(0, 1) * 2 ^ 31 + exponent * 2 ^ 20 + math.random(0, 2 ^ 20 - 1)
        ffi.copy(double, bits, 8)
        doubles[#doubles + 1] = double[0]
      end
      local back = value("SELECT $1::float8[] AS v", { doubles })
      assert.equal(#doubles, #back)
      for i, d in ipairs(doubles) do
        assert.is_true(d == back[i], ("%.17g came back as %.17g (seed %d)"):format(d, back[i], seed))
      end
    end)

    it("sends int64 and uint64 without losing a digit", function()
      assert_int64(9223372036854775807LL, value("SELECT $1::int8 AS v", { 9223372036854775807LL }))
      assert_int64(-9223372036854775807LL - 1, value("SELECT $1::int8 AS v", { -9223372036854775807LL - 1 }))
      assert.equal(42, value("SELECT $1::int8 AS v", { 42LL }))
      assert.equal("18446744073709551615", value("SELECT $1::numeric AS v", { 18446744073709551615ULL }))
      assert.same({ 1, 2 }, value("SELECT $1::int8[] AS v", { { 1LL, 2ULL } }))
    end)

    it("sends booleans and texts", function()
      assert.is_true(value("SELECT $1::bool AS v", { true }))
      assert.is_false(value("SELECT $1::bool AS v", { false }))
      local hostile = [['; DROP TABLE x; -- $1 "é€🐘" \' \\]]
      assert.equal(hostile, value("SELECT $1::text AS v", { hostile }))
      assert.equal("12345678901234567890.10", value("SELECT $1::numeric AS v", { "12345678901234567890.10" }))
    end)

    it("tells an empty text from NULL", function()
      local row = run("SELECT $1::text IS NULL AS a, $2::text IS NULL AS b, $2::text = '' AS c", { NULL, "" }).rows[1]
      assert.same({ a = true, b = false, c = true }, row)
    end)

    it("sends nil as NULL where params.n covers it", function()
      local row = run("SELECT $1::int IS NULL AS a, $2::int AS b, $3::int IS NULL AS c", { nil, 5, nil, n = 3 }).rows[1]
      assert.same({ a = true, b = 5, c = true }, row)
      assert.is_true(value("SELECT $1::int IS NULL AS v", { n = 1 }))
    end)

    it("sends tables as arrays, nested ones included", function()
      assert.same({ 1, 2, 3 }, value("SELECT $1::int4[] AS v", { { 1, 2, 3 } }))
      assert.same({}, value("SELECT $1::int4[] AS v", { {} }))
      assert.same({ true, NULL }, value("SELECT $1::bool[] AS v", { { true, NULL } }))
      assert.equal("{{1,2},{3,4}}", value("SELECT $1::int4[] AS v", { { { 1, 2 }, { 3, 4 } } }))
      assert.equal(3, value("SELECT cardinality($1::text[]) AS v", { { "a", "b,c", "{}" } }))
    end)

    it("brings any text back from an array", function()
      local texts = { "a", 'b " c', [[d\e\\]], NULL, "NULL", "nULl", "", "{x,y}", " s ", "n\nl\t", "é🐘", "'", "," }
      assert.same(texts, value("SELECT $1::text[] AS v", { texts }))
      local seed = os.time()
      math.randomseed(seed)
      local alphabet = { "a", "N", "U", "L", "{", "}", '"', "\\", ",", " ", "\n", "'", "é", ";" }
      texts = {}
      for i = 1, 1000 do
        local letters = {}
        for k = 1, math.random(0, 8) do
          letters[k] = alphabet[math.random(#alphabet)]
        end
        texts[i] = table.concat(letters)
      end
      assert.same(texts, value("SELECT $1::text[] AS v", { texts }), "seed " .. seed)
    end)

    it("sends json", function()
      local row = run("SELECT $1::jsonb->>'name' AS name, jsonb_typeof($1::jsonb->'list') AS list", {
        lunashard.json({ name = [[O'Neil "x"]], list = { 1, 2 } }),
      }).rows[1]
      assert.same({ name = [[O'Neil "x"]], list = "array" }, row)
      assert.equal("é", value("SELECT $1::jsonb AS v", { lunashard.json("é") }, { decode_json = true }))
    end)

    it("sends bytes that are no text", function()
      local bytes = {}
      for byte = 0, 255 do
        bytes[#bytes + 1] = string.char(byte)
      end
      bytes = table.concat(bytes)
      assert.equal(bytes, value("SELECT $1::bytea AS v", { lunashard.bytea(bytes) }))
      assert.equal(256, value("SELECT length($1::bytea) AS v", { lunashard.bytea(bytes) }))
      assert.equal("", value("SELECT $1::bytea AS v", { lunashard.bytea("") }))
      assert.same({ "\0", "\\x", "" }, value("SELECT $1::bytea[] AS v", {
        { lunashard.bytea("\0"), lunashard.bytea("\\x"), lunashard.bytea("") },
      }))
    end)

    it("does not change the caller's tables", function()
      local list = { 1, NULL, "x" }
      local params = { list, nil, "y", n = 3 }
      run("SELECT $1::text[], $2::text, $3::text", params)
      assert.same({ { 1, NULL, "x" }, nil, "y", n = 3 }, params)
    end)

    it("keeps the same kind of value for the same statement with other Lua types", function()
      for _, v in ipairs({ 1, "2", 3LL, NULL }) do
        run("SELECT $1::int8 AS v", { v })
      end
      assert.equal(7, value("SELECT $1::int8 AS v", { "7" }))
    end)
  end)

  describe("that cannot be sent", function()
    for _, case in ipairs({
      { "a function", print, "function" },
      { "a thread", coroutine.create(print), "thread" },
      { "a foreign userdata", io.stdout, "userdata" },
      { "a function in an array", { 1, print }, "function" },
    }) do
      it("such as " .. case[1] .. ", raise and name the parameter", function()
        local ok, message = pcall(pool.execute, pool, "SELECT $1::text, $2::text", { "fine", case[2] })
        assert.is_false(ok)
        assert.is_truthy(tostring(message):find("2", 1, true), message)
        assert.is_truthy(tostring(message):find(case[3], 1, true), message)
      end)
    end

    it("such as a text with NUL are refused by name, and the connection goes on", function()
      local message = refusal("SELECT $1::text, $2::text AS v", { "fine", "a\0b" })
      assert.is_truthy(message:find("2", 1, true), message)
      assert.is_truthy(message:find("NUL", 1, true), message)
      message = refusal("SELECT $1::text[] AS v", { { "a\0b" } })
      assert.is_truthy(message:find("NUL", 1, true), message)
      assert.equal(1, value("SELECT 1 AS v"))
    end)

    it("such as a text that is no UTF-8 are refused by us or by the server, and the connection goes on", function()
      for _, text in ipairs({ "\255", "caf\233", "\192\128", "\237\160\128", "ends \195" }) do
        for _, param in ipairs({ text, { "fine", text } }) do
          local result, err = pool:execute("SELECT $1::int, $2 AS v", { 1, param })
          assert.is_nil(result)
          assert.is_true(errors.is(err, "INVALID") or err.sqlstate == "22021", tostring(err))
          assert.is_truthy(err.message:find("UTF", 1, true), err.message)
        end
      end
      assert.equal(1, value("SELECT 1 AS v"))
    end)

    it("such as a statement with NUL are refused, not cut off", function()
      local message = refusal("SELECT 1 AS v\0 FROM nowhere")
      assert.is_truthy(message:find("NUL", 1, true), message)
    end)

    it("such as more than 65535 parameters are refused with the limit", function()
      local params = {}
      for i = 1, 65536 do
        params[i] = i
      end
      local message = refusal("SELECT 1", params)
      assert.is_truthy(message:find("65535", 1, true), message)
      assert.is_truthy(message:find("65536", 1, true), message)
    end)

    it("such as a table that contains itself raise", function()
      local loop = {}
      loop[1] = loop
      assert.is_false((pcall(pool.execute, pool, "SELECT $1::text", { loop })))
      assert.equal(1, value("SELECT 1 AS v"))
    end)

    it("such as a number for a parameter that the server cannot read give its SQL error", function()
      local err = pools.failure("SQL", pool:execute("SELECT $1::int4 AS v", { 1.5 }))
      assert.equal("22P02", err.sqlstate)
      err = pools.failure("SQL", pool:execute("SELECT $1::int4 AS v", { 2147483648 }))
      assert.equal("22003", err.sqlstate)
    end)

    it("such as too few parameters give a clear error", function()
      local err = pools.failure("SQL", pool:execute("SELECT $1::int AS a, $2::int AS b", { 1 }))
      assert.equal("08P01", err.sqlstate)
      assert.equal(1, value("SELECT 1 AS v"))
    end)
  end)

  describe("that are many or large", function()
    it("include 65535 parameters", function()
      local marks, params, sum = {}, {}, 0
      for i = 1, 65535 do
        marks[i], params[i], sum = ("($%d::int4)"):format(i), i, sum + i
      end
      local sql = "SELECT sum(x) AS v, count(*) AS n FROM (VALUES " .. table.concat(marks, ",") .. ") AS t(x)"
      local row = run(sql, params).rows[1]
      assert.equal(65535, row.n)
      assert.equal(sum, row.v)
    end)

    it("include a text of 20 MiB both ways", function()
      local text = ("0123456789abcde\n"):rep(20 * 2 ^ 20 / 16)
      assert.is_true(value("SELECT $1::text AS v", { text }) == text)
    end)

    it("include a bytea of 20 MiB both ways", function()
      local bytes = ("\0\1\254\255\\'ab"):rep(20 * 2 ^ 20 / 8)
      assert.is_true(value("SELECT $1::bytea AS v", { lunashard.bytea(bytes) }) == bytes)
    end)

    it("include results of 100,000 rows", function()
      local rows = run("SELECT i AS v FROM generate_series(1, 100000) AS i").rows
      assert.equal(100000, #rows)
      assert.equal(100000, rows[100000].v)
    end)

    it("but not results beyond max_result_bytes, which end early", function()
      local small = pools.open({ max_result_bytes = 1000000 })
      local seconds, result, err = pools.timed(function()
        return small:execute("SELECT repeat('x', 1000) AS v, generate_series(1, 100000000) AS i")
      end)
      pools.failure("RESULT_TOO_LARGE", result, err)
      assert.is_true(seconds < 5, seconds)
      assert.is_truthy(err.message:find("1000000", 1, true), err.message)
      assert.equal(1, assert(small:execute("SELECT 1 AS v")).rows[1].v)
      pools.wait_until("the server has given up the query", function()
        return pools.sessions("state = 'active' AND query LIKE '%repeat%'") == 0
      end)
    end)

    it("but the limit can be given for one call", function()
      local sql = "SELECT repeat('x', 100000) AS v"
      pools.failure("RESULT_TOO_LARGE", pool:execute(sql, nil, { max_result_bytes = 50000 }))
      assert.equal(100000, #value(sql))
      assert.equal(100000, #value(sql, nil, { max_result_bytes = 200000 }))
    end)
  end)

  describe("in results", function()
    it("come with names and types of the columns, in order", function()
      local result = run([[SELECT 1::int8 AS z, 'a'::text AS y, true AS x, 1.5::float8 AS w, 1::numeric AS u,
        '\x'::bytea AS t, '{}'::jsonb AS s, date '2024-01-01' AS r]])
      assert.same({ "z", "y", "x", "w", "u", "t", "s", "r" }, result.columns)
      local types = { "int8", "text", "bool", "float8", "numeric", "bytea", "jsonb", "date" }
      assert.same(types, result.column_types)
      assert.equal("SELECT", result.command)
      assert.equal(1, result.row_count)
      assert.is_true(result.success)
      assert.is_true(result.duration > 0 and result.duration < 5)
    end)

    it("are listed under both names when two columns share one, and the last one wins the field", function()
      local result = run("SELECT 1 AS a, 2 AS a, 3 AS b")
      assert.same({ "a", "a", "b" }, result.columns)
      assert.same({ a = 2, b = 3 }, result.rows[1])
    end)

    it("may have no rows", function()
      local result = run("SELECT 1 AS a WHERE false")
      assert.same({}, result.rows)
      assert.same({ "a" }, result.columns)
      assert.equal(0, result.row_count)
    end)

    it("may have rows without columns", function()
      local result = run("SELECT FROM generate_series(1, 3)")
      assert.same({ {}, {}, {} }, result.rows)
      assert.same({}, result.columns)
      assert.equal(3, result.row_count)
    end)

    it("count the rows that a write has touched", function()
      local lease = assert(pool:acquire())
      local function row_count(sql)
        local result = assert(lease:execute(sql))
        return result.row_count, result.command
      end
      assert.equal("CREATE TABLE", select(2, row_count("CREATE TEMPORARY TABLE counted (a int)")))
      assert.same({ 5, "INSERT" }, { row_count("INSERT INTO counted SELECT generate_series(1, 5)") })
      assert.same({ 2, "UPDATE" }, { row_count("UPDATE counted SET a = 0 WHERE a > 3") })
      assert.same({ 0, "DELETE" }, { row_count("DELETE FROM counted WHERE a = 99") })
      local returned = assert(lease:execute("DELETE FROM counted RETURNING a"))
      assert.equal(5, returned.row_count)
      assert.equal(5, #returned.rows)
      lease:release()
    end)

    it("keep odd column names as they are", function()
      local row = run([[SELECT 1 AS "é "" x", 2 AS "?column?", 3 AS "1"]]).rows[1]
      assert.same({ ['é " x'] = 1, ["?column?"] = 2, ["1"] = 3 }, row)
    end)
  end)
end)
