local cluster = require("spec.support.cluster")
local expression = require("lunashard.catalog.expression")
local strategy = require("lunashard.strategy")
local buckets = require("lunashard.catalog.buckets")

local SHARDS = { { shard_id = "s1", region = "eu" }, { shard_id = "s2", region = "it's" }, { shard_id = "s3", region = "eu" } }

describe("the bucket of a row in SQL", function()
  local pool

  setup(function()
    local _, manager = cluster.connect()
    pool = manager.members[1].primary.pool
  end)

  teardown(cluster.release)

  -- Each key through Lua and through SQL, as a column of the given type.
  local function compare(bound, column_types, keys)
    local columns, select_list, params, texts = {}, {}, {}, {}
    for i, column_type in ipairs(column_types) do
      columns[i] = ('t."Key %d"'):format(i)
      select_list[i] = ('k%d::%s AS "Key %d"'):format(i, column_type, i)
      params[i], texts[i] = {}, ("$%d::text[]"):format(i)
      for n, key in ipairs(keys) do
        params[i][n] = tostring(type(key) == "table" and key[i] or key):gsub("LL$", "")
      end
    end
    local sql = ("SELECT %s AS bucket FROM (SELECT %s FROM unnest(%s) WITH ORDINALITY AS u(%s, n) ORDER BY n) t"):format(
      assert(expression.bucket(bound, columns)), table.concat(select_list, ", "), table.concat(texts, ", "),
      #columns == 1 and "k1" or "k1, k2")
    local rows = assert(pool:execute(sql, params)).rows
    for n, key in ipairs(keys) do
      local bucket = bound:bucket(key)
      assert.equal(bucket and buckets.text(bucket), rows[n].bucket, tostring(params[1][n]))
    end
    assert.equal(#keys, #rows)
  end

  local NUMBERS = { 0, 1, -1, 2147483647, -2147483648 }
  local BIG = { 9007199254740993LL, -9223372036854775807LL - 1, 9223372036854775807LL }
  local TEXTS = { "", "a", "A", "it's", "back\\slash", "\195\164", "\240\159\152\128", (" x"):rep(200), "tab\tand\nline" }
  local UUIDS, DATES = {}, { "2000-01-01", "1999-12-31", "0001-01-01", "2026-11-22", "9999-12-31", "1970-01-01" }
  for i = 1, 300 do
    NUMBERS[#NUMBERS + 1] = i * 7919 - 50000
    TEXTS[#TEXTS + 1] = "key " .. i
    UUIDS[i] = ("%08x-0000-4000-8000-%012x"):format(i * 104729, i)
    DATES[#DATES + 1] = os.date("!%Y-%m-%d", i * 8640000)
  end

  local function bind(spec, key_type)
    return strategy.bind(spec, SHARDS, { shard_key = "k", key_type = key_type })
  end

  it("is the router's own for every type of key and of column", function()
    for _, name in ipairs({ "hash", "consistent_hash", "rendezvous" }) do
      for _, column in ipairs({ "int8", "int4", "numeric", "text" }) do
        compare(bind({ name }, "int8"), { column }, NUMBERS)
      end
      compare(bind({ name }, "int8"), { "int8" }, BIG)
      for _, column in ipairs({ "text", "varchar(500)" }) do
        compare(bind({ name }, "text"), { column }, TEXTS)
      end
      compare(bind({ name }, "uuid"), { "uuid" }, UUIDS)
      compare(bind({ name }, "date"), { "date" }, DATES)
    end
  end)

  it("is the router's own for keys of two columns", function()
    local keys = {}
    for i = 1, 200 do
      keys[i] = { "tenant " .. i % 17, i * 31 - 900 }
    end
    compare(strategy.bind({ "hash" }, SHARDS, { shard_key = { "a", "b" }, key_type = { "text", "int8" } }),
      { "text", "int8" }, keys)
  end)

  it("knows ranges, their open ends and their gaps", function()
    compare(bind({ "range", ranges = { s1 = { { nil, -1 }, { 100, 199 } }, s2 = { 0, 99 }, s3 = { 300 } }, allow_gaps = true },
      "int8"), { "int8" }, { -5, -1, 0, 99, 100, 199, 200, 299, 300, 9007199254740993LL })
    compare(bind({ "range", ranges = { s1 = { nil, below = "it's" }, s2 = { "it's" } } }, "text"), { "text" },
      { "", "a", "it's", "it'", "zz", "\195\164" })
    compare(bind({ "range", ranges = { s1 = { nil, "2020-12-31" }, s2 = { "2021-01-01" } } }, "date"), { "date" },
      { "1999-01-01", "2020-12-31", "2021-01-01", "2030-01-01" })
  end)

  it("knows regions, those with several shards and the default one", function()
    local keys = {}
    for i = 1, 50 do
      keys[i] = { i % 3 == 0 and "it's" or i % 3 == 1 and "eu" or "unknown", i }
    end
    local both = strategy.bind({ "geographic", default_region = "it's" }, SHARDS,
      { shard_key = { "r", "k" }, key_type = { "text", "int8" } })
    compare(both, { "text", "int8" }, keys)
    compare(strategy.bind({ "geographic" }, { SHARDS[1], SHARDS[2] }, { shard_key = "r", key_type = "text" }), { "text" },
      { "eu", "it's", "asia" })
  end)

  it("is not to be had where only Lua can tell", function()
    assert.is_nil(expression.bucket(bind({ "pins", entries = { [1] = "s1" } }, "int8"), { '"k"' }))
    assert.is_nil(expression.bucket(bind({ "hash" }), { '"k"' }))
  end)

  it("may stand in the WHEN clause of a trigger", function()
    local lease = assert(pool:acquire())
    assert(lease:execute("CREATE TEMPORARY TABLE when_clause (k int8, note text)"))
    assert(lease:execute(([[
      CREATE FUNCTION pg_temp.mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'marked'; RETURN NEW; END $$;
      CREATE TRIGGER mark BEFORE INSERT ON when_clause FOR EACH ROW WHEN (%s = ANY (%s)) EXECUTE FUNCTION pg_temp.mark()]]
    ):format(expression.bucket(bind({ "hash" }, "int8"), { 'NEW."k"' }),
      "'{" .. buckets.text(bind({ "hash" }, "int8"):bucket(42)) .. "}'::text[]"), nil, { simple = true }))
    assert(lease:execute("INSERT INTO when_clause SELECT generate_series(40, 44)"))
    local rows = assert(lease:execute("SELECT k FROM when_clause WHERE note = 'marked'")).rows
    lease:discard()
    assert.same({ { k = 42 } }, rows)
  end)
end)
