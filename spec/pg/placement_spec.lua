-- Placement against the server's own word: satisfies_hash_partition, its hashes and its readers of texts.
local core = require("lunashard.core.placement")
local ids = require("lunashard.ids")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local strategy = require("lunashard.strategy")

local KEYS = 10000

local function shards(n)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "shard" .. i }
  end
  return list
end

local function random_int8()
  local choice = math.random(4)
  if choice == 1 then
    return math.random(-100000, 100000)
  elseif choice == 2 then
    return math.random(0, 2 ^ 31) * 2 ^ 21 + math.random(0, 2 ^ 20)
  end
  return math.random(-2 ^ 31, 2 ^ 31) * 4294967296LL + math.random(0, 2 ^ 32 - 1)
end

local PIECES = { "a", "Z", "0", " ", "'", '"', "\\", "{", ",", "ü", "☃", "🌙", "\n", "é", "\127" }

local function random_text()
  local parts = {}
  for i = 1, math.random(0, 40) do
    parts[i] = PIECES[math.random(#PIECES)]
  end
  return table.concat(parts)
end

local function random_uuid()
  local digits = {}
  for i = 1, 32 do
    digits[i] = ("0123456789abcdefABCDEF"):sub(math.random(22)):sub(1, 1)
  end
  local text = table.concat(digits)
  if math.random(2) == 1 then
    text = text:gsub("^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)", "%1-%2-%3-%4-")
  end
  return text
end

local function random_date()
  return ("%04d-%02d-%02d"):format(math.random(1, 4000), math.random(12), math.random(28))
end

describe("placement on a server", function()
  local db, seed

  local function run(sql, params)
    return assert(db:execute(sql, params)).rows
  end

  setup(function()
    local shard = sandbox.shared().shards[1]
    db = pool.new({
      shard_id = "admin",
      host = shard.host,
      port = shard.port,
      database = shard.database,
      user = shard.superuser,
      password = shard.superuser_password,
      max_size = 2,
    })
    seed = os.time()
    math.randomseed(seed)
    run("DROP SCHEMA IF EXISTS placement_spec CASCADE")
    run("CREATE SCHEMA placement_spec")
    for name, columns in pairs({ int8 = "a int8", text = "a text", uuid = "a uuid", date = "a date", pair = "a int8, b text" }) do
      run(("CREATE TABLE placement_spec.%s_key (%s) PARTITION BY HASH (%s)"):format(name, columns,
        name == "pair" and "a, b" or "a"))
    end
  end)

  teardown(function()
    if db then
      run("DROP SCHEMA IF EXISTS placement_spec CASCADE")
      db:close()
    end
    sandbox.release()
  end)

  -- How many of the keys the server puts where we do: $1 parts, $2 the part of each, then the key's columns.
  local function agreeing(name, columns, modulus, remainders)
    local names = columns[2] and "a, b" or "a"
    local types = columns[2] and "$3::int8[], $4::text[]" or ("$3::%s[]"):format(name)
    return run(([[
      SELECT count(*) FILTER (WHERE satisfies_hash_partition('placement_spec.%s_key'::regclass, $1, part, %s)) AS n
      FROM unnest($2::int4[], %s) AS t(part, %s)
    ]]):format(name, names, types, names), { modulus, remainders, columns[1], columns[2] })[1].n
  end

  -- Do the server and we agree on the shard of every key, for 1 to 16 shards, and on its bucket?
  local function agrees(name, types, keys, columns)
    for n = 1, 16 do
      local bound = strategy.bind("hash", shards(n), { key_type = types, shard_key = columns[2] and { "a", "b" } or "a" })
      local what = ("%s, %d shards, seed %d"):format(name, n, seed)
      local parts = {}
      for i, shard_id in ipairs(assert(bound:route_many(keys))) do
        parts[i] = tonumber(shard_id:sub(6)) - 1
      end
      assert.equal(#keys, agreeing(name, columns, n, parts), what)
      if n == 3 or n == 16 then
        for i, key in ipairs(keys) do
          parts[i] = bound:bucket(key)
        end
        assert.equal(#keys, agreeing(name, columns, bound.map:buckets(), parts), "buckets, " .. what)
      end
    end
  end

  local function collect(make)
    local keys = {}
    for i = 1, KEYS do
      keys[i] = make()
    end
    return keys
  end

  it("agrees with satisfies_hash_partition for int8 keys", function()
    local keys = collect(random_int8)
    agrees("int8", "int8", keys, { keys })
  end)

  it("agrees with satisfies_hash_partition for text keys", function()
    local keys = collect(random_text)
    agrees("text", "text", keys, { keys })
  end)

  it("agrees with satisfies_hash_partition for uuid keys", function()
    local keys = collect(random_uuid)
    agrees("uuid", "uuid", keys, { keys })
  end)

  it("agrees with satisfies_hash_partition for date keys", function()
    local keys = collect(random_date)
    agrees("date", "date", keys, { keys })
  end)

  it("agrees with satisfies_hash_partition for keys of two columns", function()
    local keys, a, b = {}, collect(random_int8), collect(random_text)
    for i = 1, KEYS do
      keys[i] = { a[i], b[i] }
    end
    agrees("pair", { "int8", "text" }, keys, { a, b })
  end)

  it("puts a row where a partitioned table of the server puts it", function()
    for i = 0, 2 do
      run(("CREATE TABLE placement_spec.part%d PARTITION OF placement_spec.int8_key FOR VALUES WITH (MODULUS 3, REMAINDER %d)")
        :format(i, i))
    end
    run("INSERT INTO placement_spec.int8_key SELECT generate_series(-500, 500)")
    local bound = strategy.bind("hash", shards(3), { key_type = "int8" })
    local rows = run("SELECT a, right(tableoid::regclass::text, 1)::int4 + 1 AS part FROM placement_spec.int8_key")
    assert.equal(1001, #rows)
    for _, row in ipairs(rows) do
      assert.equal("shard" .. row.part, (bound:route(row.a)))
    end
  end)

  -- What the server makes of each text as a value of the type, or nothing.
  local function read_by_server(key_type, texts)
    run(([[
      CREATE OR REPLACE FUNCTION placement_spec.read_%s(t text) RETURNS text LANGUAGE plpgsql AS $$
      BEGIN RETURN t::%s::text; EXCEPTION WHEN data_exception THEN RETURN NULL; END $$
    ]]):format(key_type, key_type))
    local answers = {}
    local sql = "SELECT placement_spec.read_%s(t) AS v FROM unnest($1::text[]) WITH ORDINALITY AS u(t, i) ORDER BY i"
    for i, row in ipairs(run(sql:format(key_type), { texts })) do
      answers[i] = row.v or false
    end
    return answers
  end

  local function spoil(text, alphabet)
    for _ = 1, math.random(0, 2) do
      local at, i = math.random(0, #text), math.random(#alphabet)
      text = text:sub(1, at) .. alphabet:sub(i, i) .. text:sub(at + math.random(1, 2))
    end
    return text
  end

  local function reads_like_the_server(key_type, make, alphabet)
    local texts = {}
    for i = 1, 5000 do
      texts[i] = spoil(make(), alphabet)
    end
    local taken = 0
    for i, theirs in ipairs(read_by_server(key_type, texts)) do
      local ours = core.canonical(key_type, texts[i])
      ours = type(ours) == "cdata" and tostring(ours):sub(1, -3) or ours ~= nil and ("%s"):format(
        type(ours) == "number" and ("%d"):format(ours) or ours)
      assert.equal(theirs, ours, ("%q, seed %d"):format(texts[i], seed))
      taken = taken + (theirs and 1 or 0)
    end
    assert.is_true(taken > 500 and taken < 4900, taken .. " of the texts were good")
  end

  it("reads int8 texts exactly as the server does", function()
    reads_like_the_server("int8", function()
      return (tostring(math.random(3) == 1 and random_int8() or math.random(-1000, 1000)):gsub("LL$", ""))
    end, "0123456789+- \t.ex_")
  end)

  it("reads uuid texts exactly as the server does", function()
    reads_like_the_server("uuid", function()
      local text = random_uuid()
      return math.random(4) == 1 and "{" .. text .. "}" or text
    end, "0123456789abcdef-{} g")
  end)

  it("takes no date for another than the server does", function()
    local texts, ours = {}, {}
    for i = 1, 5000 do
      texts[i] = spoil(random_date(), "0123456789-")
      ours[i] = core.canonical("date", texts[i]) or false
    end
    local taken = 0
    for i, theirs in ipairs(read_by_server("date", texts)) do
      if ours[i] then
        assert.equal(theirs, ours[i], ("%q, seed %d"):format(texts[i], seed))
        taken = taken + 1
      end
    end
    assert.is_true(taken > 1000, taken .. " of the texts were good")
  end)

  it("places ring buckets as the ring computed in SQL does", function()
    local bound = strategy.bind({ "consistent_hash" }, shards(4))
    local rows = run([[
      WITH point AS MATERIALIZED (
        SELECT s, h + CASE WHEN h < 0 THEN 18446744073709551616 ELSE 0 END AS p
        FROM unnest($1::text[]) s, generate_series(0, 149) i, LATERAL (SELECT hashtextextended(s, i)::numeric AS h) x
      )
      SELECT b, coalesce((SELECT s FROM point WHERE p >= b * 1125899906842624::numeric ORDER BY p LIMIT 1),
                         (SELECT s FROM point ORDER BY p LIMIT 1)) AS owner
      FROM generate_series(0, 16383, 13) b
    ]], { { "shard1", "shard2", "shard3", "shard4" } })
    assert.equal(1261, #rows)
    for _, row in ipairs(rows) do
      assert.equal(row.owner, (bound:place(row.b)), "bucket " .. row.b)
    end
  end)

  it("places rendezvous buckets as the scores computed in SQL do", function()
    local list = shards(3)
    list[1].weight, list[2].weight, list[3].weight = 1, 2.5, 4
    local bound = strategy.bind("rendezvous", list)
    local rows = run([[
      WITH hashed AS (
        SELECT s, w, b, hashtextextended(s, b)::numeric AS h
        FROM unnest($1::text[], $2::float8[]) AS t(s, w), generate_series(0, 16383) b
      ), ranked AS (
        SELECT s, w, b, rank() OVER (PARTITION BY s ORDER BY h + CASE WHEN h < 0 THEN 18446744073709551616 ELSE 0 END) AS r
        FROM hashed
      )
      SELECT DISTINCT ON (b) b, s AS owner FROM ranked ORDER BY b, w / -ln((r - 0.5) / 16384::float8) DESC, s
    ]], { { "shard1", "shard2", "shard3" }, { 1, 2.5, 4 } })
    assert.equal(16384, #rows)
    for _, row in ipairs(rows) do
      assert.equal(row.owner, (bound:place(row.b)), "bucket " .. row.b)
    end
  end)

  it("looks tenants up in a table", function()
    run('CREATE TABLE placement_spec."tenant directory" ("tenant id" int8 PRIMARY KEY, shard text)')
    run([[INSERT INTO placement_spec."tenant directory" VALUES (1, 'shard2'), (9007199254740993, 'shard3')]])
    local bound = strategy.bind({
      "directory",
      table = { "placement_spec", "tenant directory" },
      on = "shard1",
      key_column = "tenant id",
      shard_column = "shard",
      default_shard = "shard1",
    }, shards(3), { key_type = "int8" })
    bound:attach(function(_, sql, params)
      return db:execute(sql, params)
    end)
    assert.equal("shard2", (bound:route("1")))
    assert.equal("shard3", (bound:route(9007199254740993LL)))
    assert.equal("shard1", (bound:route(2)))
    run([[UPDATE placement_spec."tenant directory" SET shard = 'shard3' WHERE "tenant id" = 1]])
    assert.equal("shard2", (bound:route(1)))
    bound:invalidate(1)
    assert.equal("shard3", (bound:route(1)))
    run('DROP TABLE placement_spec."tenant directory"')
    bound:invalidate()
    assert.equal("SQL", select(2, bound:route(1)).code)
  end)

  it("makes ids that the server stores and orders as bigint", function()
    local gen, list = ids.new({ shard = 77 }), {}
    for i = 1, 3000 do
      list[i] = gen:next()
    end
    local row = run([[
      SELECT count(DISTINCT v) AS n, bool_and(v > 0) AS positive, bool_and((v >> 10) & 8191 = 77) AS shard,
             array_agg(v ORDER BY v) = array_agg(v ORDER BY i) AS ordered
      FROM unnest($1::int8[]) WITH ORDINALITY AS t(v, i)
    ]], { list })[1]
    assert.same({ n = 3000, positive = true, shard = true, ordered = true }, row)
  end)
end)
