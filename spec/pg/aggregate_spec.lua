local aggregate = require("lunashard.aggregate")
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local results = require("spec.support.shard_results")
local sandbox = require("spec.support.sandbox")

-- What the shards' parts combine to, against what one server says of all rows at once.
describe("aggregates against the server", function()
  local router, shards

  local COLUMNS = "id int, k text, small int4, i int8, n numeric, f float8, flag bool, d date, ts timestamp, "
    .. "t timestamptz, tm time, u uuid, b bytea, c bpchar(4)"

  local EDGES = {
    k = { "a", "b", "B", "ä", "a b", "" },
    small = { "-2147483648", "2147483647", "0", "7", "8" },
    i = { "9223372036854775807", "-9223372036854775808", "9007199254740993", "9007199254740992", "-1", "0", "3" },
    n = { "0.1", "0.10", "-0.0000000000000000000000000001", "123456789012345678901234567890.5", "-7", "7.000", "0", "1e-15",
      "99999", "0.99999" },
    f = { "0.25", "-0.25", "1000000", "-3.5", "0" },
    flag = { "true", "false" },
    d = { "0044-03-15 BC", "2000-02-29", "10000-01-01", "infinity", "-infinity", "1999-12-31" },
    ts = { "0044-03-15 00:00:00.5 BC", "2000-01-01 00:00:00.000001", "2000-01-01", "294276-12-31 23:59:59", "infinity" },
    t = { "2000-01-01 00:00:00+05:30", "2000-01-01 00:00:00-03", "1999-12-31 23:59:59.999999+00", "-infinity",
      "0001-01-01 00:00:00+00 BC", "20000-01-01 00:00:00+00" },
    tm = { "00:00:00", "24:00:00", "12:00:00.5", "12:00:00.05" },
    u = { "00000000-0000-0000-0000-000000000001", "FFFFFFFF-0000-0000-0000-000000000000",
      "0a000000-0000-0000-0000-000000000000" },
    b = { "\\x", "\\x00", "\\x0001", "\\xff", "\\x61" },
    c = { "a", "ab", "A", "" },
  }
  local ORDERED = { "small", "i", "n", "f", "flag", "d", "ts", "t", "tm", "u", "b" }

  local function names()
    local list = {}
    for name in COLUMNS:gmatch("(%w+) [%w()]+") do
      list[#list + 1] = name
    end
    return list
  end

  local function insert(table_name, shard_id, rows)
    if #rows > 0 then
      assert(router:execute(("INSERT INTO %s VALUES %s"):format(table_name, table.concat(rows, ",")), nil,
        { shard_id = shard_id }))
    end
  end

  -- Rows of edge values at random, a quarter of them NULL: all on the first shard, and in parts.
  local function fill(n, parts)
    assert(router:execute_on_all_shards("TRUNCATE agg_part, agg_all"))
    local all, split = {}, { {}, {}, {} }
    for id = 1, n do
      local fields = {}
      for at, name in ipairs(names()) do
        local values = EDGES[name]
        local literal = values and math.random() < 0.75 and "'" .. values[math.random(#values)] .. "'" or "NULL"
        fields[at] = name == "id" and tostring(id) or literal
      end
      all[id] = "(" .. table.concat(fields, ",") .. ")"
      local part = split[math.random(parts)]
      part[#part + 1] = all[id]
    end
    insert("agg_all", shards[1], all)
    for at, shard_id in ipairs(shards) do
      insert("agg_part", shard_id, split[at])
    end
  end

  local function whole(sql)
    return assert(router:execute(sql:gsub("@", "agg_all"), nil, { shard_id = shards[1] })).rows
  end

  -- Both ways: as a stream into the reducer, and as a function of whole results.
  local function parts(sql, agg)
    local text = sql:gsub("@", "agg_part")
    local streamed = assert(router:scatter_gather(text, nil, { aggregation_func = agg })).rows
    local buffered = assert(router:scatter_gather(text, nil, { aggregation_func = function(list) return agg(list) end })).rows
    if agg.returns == "row" and next(streamed[1]) == nil then
      buffered = { {} } -- a plain function cannot say that an empty table is a row
    end
    assert.same(streamed, buffered)
    return streamed
  end

  -- cdata compares by identity in luassert: by text instead.
  local function plain(rows)
    local list = {}
    for at, row in ipairs(rows) do
      list[at] = {}
      for name, value in pairs(row) do
        list[at][name] = type(value) == "cdata" and tostring(value) or value
      end
    end
    return list
  end

  setup(function()
    local manager
    router, manager = cluster.connect()
    shards = {}
    for at, shard in ipairs(manager.shards) do
      shards[at] = shard.shard_id
    end
    assert.equal(3, #shards)
    assert(router:execute_on_all_shards(("DROP TABLE IF EXISTS agg_part, agg_all; CREATE TABLE agg_part (%s); "
      .. "CREATE TABLE agg_all (%s)"):format(COLUMNS, COLUMNS)))
    results.seed()
  end)

  teardown(function()
    router:execute_on_all_shards("DROP TABLE IF EXISTS agg_part, agg_all")
    cluster.close_all()
    sandbox.release()
  end)

  it("sums, counts and averages to the server's own digits, for any split", function()
    local partial = "SELECT count(*) AS rows, sum(small) AS small, sum(i) AS i, sum(n) AS n, sum(f) AS f, "
      .. "count(small) AS cs, count(i) AS ci, count(n) AS cn, count(f) AS cf FROM @"
    for _, n in ipairs({ 0, 1, 2, 7, 60, 200 }) do
      fill(n, math.random(1, 3))
      assert.same(plain(whole("SELECT sum(small) AS small, sum(i) AS i, sum(n) AS n, sum(f) AS f FROM @")),
        plain(parts(partial, aggregate.sum({ "small", "i", "n", "f" }))))
      assert.same(whole("SELECT count(*) AS rows, count(n) AS cn FROM @"), parts(partial, aggregate.count({ "rows", "cn" })))
      assert.same(whole("SELECT avg(small) AS small, avg(i) AS i, avg(n) AS n, avg(f) AS f FROM @"), parts(partial,
        aggregate.avg({
          small = { sum = "small", count = "cs" }, i = { sum = "i", count = "ci" },
          n = { sum = "n", count = "cn" }, f = { sum = "f", count = "cf" },
        })))
    end
  end)

  it("treats NaN and Infinity of numeric as the server does", function()
    for _, values in ipairs({ { "NaN", "1" }, { "Infinity", "1" }, { "Infinity", "-Infinity" }, { "-Infinity", "5" } }) do
      assert(router:execute_on_all_shards("TRUNCATE agg_part, agg_all"))
      for at, value in ipairs(values) do
        local row = { ("(%d, NULL, NULL, NULL, '%s')"):format(at, value) }
        insert("agg_all", shards[1], row)
        insert("agg_part", shards[at], row)
      end
      local sql = "SELECT sum(n) AS s, count(n) AS c, min(n) AS low, max(n) AS high FROM @"
      assert.same(whole("SELECT sum(n) AS s FROM @"), parts(sql, aggregate.sum "s"))
      assert.same(whole("SELECT avg(n) AS a FROM @"), parts(sql, aggregate.avg("a", { sum = "s", count = "c" })))
      assert.same(whole("SELECT min(n) AS low FROM @"), parts(sql, aggregate.min "low"))
      assert.same(whole("SELECT max(n) AS high FROM @"), parts(sql, aggregate.max "high"))
    end
  end)

  it("finds the server's min and max of every type that has them", function()
    for _ = 1, 4 do
      fill(40, 3)
      for _, column in ipairs({ "small", "i", "f", "d", "ts", "t", "tm" }) do
        local sql = ("SELECT min(%s) AS low, max(%s) AS high FROM @"):format(column, column)
        local expected = plain(whole(sql))
        assert.same(expected[1].low, plain(parts(sql, aggregate.min "low"))[1].low, column)
        assert.same(expected[1].high, plain(parts(sql, aggregate.max "high"))[1].high, column)
      end
      -- Equal numerics of different scale are one value: which of them is shown is chance.
      local sql = "SELECT min(n) AS low, max(n) AS high FROM @"
      local expected = whole(sql)[1]
      local decimal = require("lunashard.core.decimal")
      assert.equal(0, decimal.new(expected.low):compare(parts(sql, aggregate.min "low")[1].low))
      assert.equal(0, decimal.new(expected.high):compare(parts(sql, aggregate.max "high")[1].high))
    end
  end)

  local function ids(rows)
    local list = {}
    for at, row in ipairs(rows) do
      list[at] = row.id
    end
    return list
  end

  it("merges into the server's order, for every type, direction and place of NULLs", function()
    fill(60, 3)
    for _, column in ipairs(ORDERED) do
      for _, direction in ipairs({ "", " desc", " nulls first", " desc nulls last" }) do
        local by = column .. direction .. ", id"
        local sql = ("SELECT id, %s FROM @ ORDER BY %s"):format(column, by)
        assert.same(ids(whole(sql)), ids(parts(sql, aggregate.merge_sort(by))), by)
        local limited = aggregate.chain(aggregate.merge_sort(by), aggregate.limit({ n = 7, offset = 5 }))
        assert.same(ids(whole(sql .. " LIMIT 7 OFFSET 5")), ids(parts(sql, limited)), by)
        assert.same(ids(whole(sql .. " LIMIT 9")),
          ids(parts(("SELECT id, %s FROM @"):format(column), aggregate.top_n({ n = 9, by = by }))), by)
      end
    end
  end)

  it("merges text in the C collation, char(n) without its blanks", function()
    fill(50, 3)
    for _, column in ipairs({ "k", "c" }) do
      local by = ('%s collate "C" desc, id'):format(column)
      local sql = ("SELECT id, %s FROM @ ORDER BY %s"):format(column, by)
      assert.same(ids(whole(sql)), ids(parts(sql, aggregate.merge_sort(by))))
    end
    local result, err = router:scatter_gather("SELECT id, k FROM agg_part ORDER BY k", nil,
      { aggregation_func = aggregate.merge_sort "k" })
    assert.is_nil(result)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
  end)

  it("tells a shard that is not in the order promised", function()
    fill(30, 3)
    local result, err = router:scatter_gather("SELECT id FROM agg_part ORDER BY id", nil,
      { aggregation_func = aggregate.merge_sort "id desc" })
    assert.is_nil(result)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.is_string(err.shard_id)
  end)

  it("groups as GROUP BY does, NULL being a group, and filters as HAVING", function()
    for _ = 1, 3 do
      fill(80, 3)
      local agg = aggregate.chain(
        aggregate.group_by({
          keys = { "k", "flag" }, rows = "count", n = "sum", low = "min",
          mean = { avg = { sum = "n", count = "cn" } },
          having = function(row) return row.rows > 2 end,
        }),
        aggregate.top_n({ n = 100, by = "k nulls first, flag nulls first", collate = "C" }))
      local sql = "SELECT k, flag, count(*) AS rows, sum(n) AS n, count(n) AS cn, min(t) AS low FROM @ GROUP BY k, flag"
      assert.same(whole("SELECT k, flag, count(*) AS rows, sum(n) AS n, min(t) AS low, avg(n) AS mean FROM @ GROUP BY k, flag "
        .. 'HAVING count(*) > 2 ORDER BY k COLLATE "C" NULLS FIRST, flag NULLS FIRST'), parts(sql, agg))
    end
  end)

  it("finds the distinct values that the server finds, whatever their type", function()
    fill(60, 3)
    for _, column in ipairs({ "k", "small", "i", "n", "f", "flag", "d", "ts", "t", "tm", "u", "b", "c" }) do
      local expected = whole(("SELECT count(*) AS n FROM (SELECT DISTINCT %s FROM @) q"):format(column))[1].n
      assert.equal(expected, #parts(("SELECT %s FROM @"):format(column), aggregate.distinct(column)), column)
    end
  end)

  it("computes percentile_cont and percentile_disc", function()
    for _ = 1, 3 do
      fill(50, 3)
      for _, p in ipairs({ 0, 0.01, 0.25, 0.5, 0.9, 0.95, 1 }) do
        for _, column in ipairs({ "small", "i", "n", "f" }) do
          local expected = whole(("SELECT percentile_cont(%.17g) WITHIN GROUP (ORDER BY %s) AS v FROM @"):format(p, column))
          local found = parts(("SELECT %s AS v FROM @"):format(column), aggregate.percentile({ column = "v", p = p }))
          assert.same(expected, found, column)
        end
        local expected = whole(("SELECT percentile_disc(%.17g) WITHIN GROUP (ORDER BY t) AS v FROM @"):format(p))
        assert.same(expected, parts("SELECT t AS v FROM @", aggregate.percentile({ column = "v", p = p, discrete = true })))
      end
    end
  end)

  it("caches reads, and sees a write that goes through it", function()
    assert(router:execute_on_all_shards("TRUNCATE agg_part"))
    local cached = lunashard.cache({ router = router, ttl = 60 })
    local sql, opts = "SELECT count(*) AS n FROM agg_part WHERE id = $1", { routing_key = 7 }
    assert.equal(0, assert(cached:execute(sql, { 7 }, opts)).rows[1].n)
    assert(router:execute("INSERT INTO agg_part (id) VALUES ($1)", { 7 }, opts))
    local again = assert(cached:execute(sql, { 7 }, opts))
    assert.is_true(again.cached)
    assert.equal(0, again.rows[1].n)
    assert(cached:execute("INSERT INTO agg_part (id) VALUES ($1)", { 7 }, opts))
    assert.equal(2, assert(cached:execute(sql, { 7 }, opts)).rows[1].n)
  end)
end)
