local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")

describe("router:stream with order_by", function()
  local router, manager, random
  local shards = {}

  setup(function()
    local seed = tonumber(os.getenv("SEED")) or os.time()
    print(("seed %d (repeat with SEED=%d)"):format(seed, seed))
    math.randomseed(seed)
    random = math.random
    router, manager = cluster.connect()
    for i, info in ipairs(manager.shards) do
      shards[i] = info.shard_id
    end
    assert(router:execute_on_all_shards("DROP SCHEMA IF EXISTS e_merge CASCADE; CREATE SCHEMA e_merge"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_merge CASCADE"))
    cluster.release()
  end)

  local function word()
    local letters = { "a", "b", "A", "B", " ", "é", "z", "\t", "0", "🐘", "~" }
    local parts = {}
    for i = 1, random(0, 4) do
      parts[i] = letters[random(#letters)]
    end
    return table.concat(parts)
  end

  local function digits(n)
    local parts = {}
    for i = 1, n do
      parts[i] = tostring(random(0, 9))
    end
    return table.concat(parts)
  end

  local function hex(n)
    return ((digits(n)):gsub("%d", function(digit)
      return ("0189abefcd"):sub(digit + 1, digit + 1)
    end))
  end

  local function one_of(list)
    return list[random(#list)]
  end

  local function day()
    local bc = random(6) == 1
    local year = one_of(bc and { 1, 2, 44, 4712 } or { 1, 44, 1900, 1969, 1970, 2000, 2024, 9999, 12345 })
    return ("%04d-%02d-%02d%s"):format(year, random(12), random(28), bc and " BC" or "")
  end

  local function clock()
    return ("%02d:%02d:%02d%s"):format(random(0, 23), random(0, 59), random(0, 59),
      one_of({ "", ".5", ".500001", ".000001", ".25" }))
  end

  local function moment(zone)
    local date, era = day():match("^(%S+)(.*)$")
    return ("%s %s%s%s"):format(date, clock(), zone or "", era)
  end

  local TYPES = {
    int2 = function() return tostring(random(-5, 5)) end,
    int4 = function() return one_of({ tostring(random(-20, 20)), "2147483647", "-2147483648" }) end,
    int8 = function()
      return one_of({ tostring(random(-20, 20)), "9007199254740993", "9007199254740992", "-9223372036854775808",
        "9223372036854775807" })
    end,
    numeric = function()
      return one_of({ one_of({ "", "-" }) .. digits(random(1, 3)) .. one_of({ "", "." .. digits(random(1, 4)) }),
        one_of({ "NaN", "Infinity", "-Infinity", "0", "0.000", "-0.00", "1e30", "-1e-30" }),
        digits(30) .. "." .. digits(10) })
    end,
    float4 = function() return one_of({ tostring(random(-3, 3) / 10), "NaN", "Infinity", "-Infinity", "1e-40", "-0" }) end,
    float8 = function()
      return one_of({ tostring(random(-30, 30) / 7), "NaN", "Infinity", "-Infinity", "1e300", "-1e-300", "0", "-0" })
    end,
    bool = function() return one_of({ "true", "false" }) end,
    text = word, varchar = word, ["char(6)"] = word, name = word,
    uuid = function()
      return one_of({ "00000000-0000-0000-0000-000000000000", hex(8) .. "-1234-1234-1234-" .. hex(12) })
    end,
    bytea = function() return "\\x" .. hex(2 * random(0, 3)) end,
    date = function() return one_of({ day(), "infinity", "-infinity" }) end,
    time = function() return one_of({ clock(), "24:00:00", "00:00:00" }) end,
    timestamp = function() return one_of({ moment(), "infinity", "-infinity" }) end,
    timestamptz = function() return one_of({ moment(one_of({ "+00", "-08", "+05:30" })), "infinity", "-infinity" }) end,
  }

  local COLLATED = { text = true, varchar = true, ["char(6)"] = true }

  -- Rows of a type on all shards, and all of them together on the first.
  local function fill(sql_type, n)
    assert(router:execute_on_all_shards(([[
      DROP TABLE IF EXISTS e_merge.part, e_merge.whole;
      CREATE TABLE e_merge.part (id int8, v %s, w int); CREATE TABLE e_merge.whole (LIKE e_merge.part)]]):format(sql_type)))
    local lists = { {}, {}, {} }
    local whole = {}
    for id = 1, n do
      local value = random(8) == 1 and lunashard.null or TYPES[sql_type]()
      local entry = { id, value, random(0, 3) }
      table.insert(lists[random(3)], entry)
      whole[id] = entry
    end
    local function insert(into, list, shard_id)
      local ids, values, others = {}, {}, {}
      for i, entry in ipairs(list) do
        ids[i], values[i], others[i] = entry[1], entry[2], entry[3]
      end
      assert(router:execute(("INSERT INTO e_merge.%s SELECT id, v::%s, w FROM unnest($1::int8[], $2::text[], $3::int[]) "
        .. "AS t(id, v, w)"):format(into, sql_type), { ids, values, others }, { shard_id = shard_id }))
    end
    for i, list in ipairs(lists) do
      insert("part", list, shards[i])
    end
    insert("whole", whole, shards[1])
  end

  local function ids_of(rows)
    local ids = {}
    for i, row in ipairs(rows) do
      ids[i] = tostring(row.id)
    end
    return table.concat(ids, " ")
  end

  for sql_type in pairs(TYPES) do
    it(("gives %s as one server's ORDER BY does, NULLs and all"):format(sql_type), function()
      fill(sql_type, 300)
      for _, direction in ipairs({ "", " ASC", " DESC" }) do
        for _, nulls in ipairs({ "", " NULLS FIRST", " NULLS LAST" }) do
          local by = "v" .. (COLLATED[sql_type] and ' COLLATE "C"' or "") .. direction .. nulls .. ", w DESC, id"
          local expected = assert(router:execute("SELECT id FROM e_merge.whole ORDER BY " .. by, nil,
            { shard_id = shards[1] })).rows
          local got = {}
          for row, shard_id in router:stream("SELECT w, v, id FROM e_merge.part ORDER BY " .. by, nil,
            { order_by = by, fetch_size = random(40) }) do
            got[#got + 1] = row
            assert.is_string(shard_id)
          end
          assert.equal(ids_of(expected), ids_of(got), by)
        end
      end
    end)
  end

  it("asks each shard for limit + offset rows, and gives those of the whole", function()
    fill("int4", 200)
    local expected = assert(router:execute("SELECT id FROM e_merge.whole ORDER BY v, id", nil, { shard_id = shards[1] })).rows
    for _, case in ipairs({ { 10, 0 }, { 25, 30 }, { 0, 5 }, { 300, 190 }, { 7, 300 }, { 1 }, { nil, 150 } }) do
      local limit, offset = case[1], case[2]
      local got, wanted = {}, {}
      for row in router:stream("SELECT v, id FROM e_merge.part ORDER BY v, id", nil,
        { order_by = "v, id", limit = limit, offset = offset, fetch_size = random(20) }) do
        got[#got + 1] = row
      end
      for i = (offset or 0) + 1, math.min(#expected, (offset or 0) + (limit or math.huge)) do
        wanted[#wanted + 1] = expected[i]
      end
      assert.equal(ids_of(wanted), ids_of(got))
    end
    local most = 0
    for row in router:stream("SELECT max(n) AS most FROM (SELECT count(*) OVER () AS n FROM (SELECT 1 FROM e_merge.part) p) c") do
      most = math.max(most, row.most)
    end
    assert.is_true(most > 40)
    local n = 0
    for row in router:stream("SELECT pg_sleep(CASE WHEN i > 5 THEN 30 ELSE 0 END), i FROM generate_series(1, 100) i", nil,
      { order_by = "i", limit = 2, offset = 1, timeout = 5 }) do
      n = n + 1
      assert.equal(1, row.i)
    end
    assert.equal(2, n)
  end)

  it("refuses a limit for a statement that writes", function()
    local ok, err = pcall(router:stream("INSERT INTO e_merge.part VALUES (1) RETURNING id", nil,
      { shard_id = shards[1], limit = 1 }))
    assert.is_false(ok)
    assert.equal("INVALID", err.code)
  end)

  local function raised(sql, order_by, params)
    local rows = {}
    local ok, err = pcall(function()
      for row in router:stream(sql, params, { order_by = order_by, fetch_size = 7 }) do
        rows[#rows + 1] = row
      end
    end)
    assert.is_false(ok)
    assert.is_true(errors.is(err), tostring(err))
    return err, rows
  end

  it("refuses what only the server can order, and columns that are not there", function()
    local err = raised("SELECT 'a'::text AS v ORDER BY v", "v")
    assert.equal("NOT_MERGEABLE", err.code)
    assert.match("COLLATE \"C\"", err.message, 1, true)
    assert.equal("NOT_MERGEABLE", raised("SELECT '1 day'::interval AS v ORDER BY v", "v").code)
    err = raised("SELECT 1 AS vale ORDER BY 1", "value")
    assert.equal("INVALID", err.code)
    assert.match("vale", err.message, 1, true)
    err = raised("SELECT CASE WHEN current_database() = (SELECT min(d) FROM unnest($1::text[]) d) THEN 1 ELSE 2 END AS v",
      { { "v", type = "date" } }, { { "x" } })
    assert.equal("NOT_MERGEABLE", err.code)
    assert.match("no place in the order of its type (date)", err.message, 1, true)
  end)

  it("names the row that is not in order, after those before it", function()
    local err, rows = raised("SELECT CASE WHEN i = 500 THEN 0 ELSE i END AS v FROM generate_series(1, 1000) i", "v")
    assert.equal("NOT_MERGEABLE", err.code)
    assert.equal(500, err.row_number)
    assert.is_true(#rows > 1400 and #rows < 1500, #rows)
    for i, row in ipairs(rows) do
      assert.equal(math.floor((i + 2) / 3), row.v)
    end
  end)

  it("raises a shard's error in the middle, and not before its rows", function()
    local rows = {}
    local ok, err = pcall(function()
      for row in router:stream("SELECT i, CASE WHEN i > 5000 AND current_database() LIKE '%2' THEN 1 / (i - 6000) END AS q "
        .. "FROM generate_series(1, 20000) i", nil, { order_by = "i" }) do
        rows[#rows + 1] = row.i
      end
    end)
    assert.is_false(ok)
    assert.equal("22012", err.sqlstate)
    assert.equal(shards[2], err.shard_id)
    assert.is_true(#rows > 3 * 4000 and #rows < 3 * 6000, #rows)
  end)

  it("cancels what still runs on the servers after an early break", function()
    local stream = router:stream("SELECT i, repeat('e_merge_early', 100) AS pad FROM generate_series(1, 100000000) i", nil,
      { order_by = "i" })
    for row in stream do
      if row.i == 1000 then
        break
      end
    end
    stream:close()
    cluster.wait_until("the servers have stopped", function()
      local n = 0
      for _, row in ipairs(assert(router:scatter_gather([[
        SELECT count(*) AS n FROM pg_stat_activity WHERE state <> 'idle' AND query LIKE '%e_merge_early%'
          AND pid <> pg_backend_pid()]])).rows) do
        n = n + row.n
      end
      return n == 0
    end)
  end)

  -- In a process of its own, for what other specs have left in this one would blur it.
  it("keeps the memory of the process flat, whatever the number of rows", function()
    local dir = cli.directory()
    local script = cli.write(dir, "memory.lua", [[
      local function resident()
        for line in assert(io.open("/proc/self/status")):lines() do
          local kib = line:match("^VmRSS:%s*(%d+)")
          if kib then
            return tonumber(kib)
          end
        end
      end
      local sql = "SELECT i, repeat('x', 200) AS pad FROM generate_series(1, $1::int) i"
      for _, rows in ipairs({ 10000, 80000 }) do
        local peak, n = 0, 0
        for _ in router:stream(sql, { rows }, { order_by = "i" }) do
          n = n + 1
          if n % 10000 == 0 then
            peak = math.max(peak, resident())
          end
        end
        print(n, peak)
      end
    ]])
    local out = cli.run({ "run", "-c", sandbox.shared().cluster_file, script })
    cli.remove_all()
    local rows, small, all_rows, large = out.stdout:match("^(%d+)\t(%d+)\n(%d+)\t(%d+)\n$")
    assert.equal("30000", rows, out.stdout .. out.stderr)
    assert.equal("240000", all_rows)
    -- 240,000 rows of 200 bytes are 48 MB
    assert.is_true(tonumber(large) < tonumber(small) + 16 * 1024, out.stdout)
  end)
end)
