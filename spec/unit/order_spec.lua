local errors = require("lunashard.errors")
local order = require("lunashard.order")
local results = require("spec.support.shard_results")
local sortkey = require("lunashard.order.sortkey")

-- Values of a type in the order in which PostgreSQL sorts them; spec/pg asks the server itself.
local SORTED = {
  int8 = { -9223372036854775807LL - 1, -9007199254740993LL, -9007199254740992, -1, 0, 7, 9007199254740992,
    9007199254740993LL, 9223372036854775807LL },
  float8 = { -math.huge, -1e300, -0.5, 0, 1e-300, 0.5, 1e300, math.huge, 0 / 0 },
  numeric = { "-Infinity", "-100000000000000000000.5", "-100000000000000000000", "-9", "-1.01", "-1.0", "-0.1",
    "-0.01", "-0.0011", "-0.001", "0.00", "0.001", "0.0011", "0.01", "0.1", "0.9", "1", "1.0000000000000000000001",
    "9.99", "10", "99", "100.001", "100000000000000000000", "Infinity", "NaN" },
  bool = { false, true },
  date = { "-infinity", "4713-01-01 BC", "0044-03-15 BC", "0001-12-31 BC", "0001-01-01", "1969-12-31", "1970-01-01",
    "2000-02-28", "2000-02-29", "2000-03-01", "9999-12-31", "10000-01-01", "123456-07-08", "infinity" },
  timestamp = { "-infinity", "0044-03-15 00:00:00 BC", "0044-03-15 00:00:00.000001 BC", "0001-01-01 00:00:00",
    "1999-12-31 23:59:59.999999", "2000-01-01 00:00:00", "2000-01-01 00:00:00.05", "2000-01-01 00:00:00.5",
    "294276-12-31 23:59:59", "infinity" },
  timestamptz = { "-infinity", "0044-03-15 00:00:00+00 BC", "2000-01-01 00:30:00+01", "1999-12-31 23:30:01+00",
    "1999-12-31 20:00:00-03:30:02", "2000-01-01 05:30:03+05:30", "10000-01-01 00:00:00+00", "infinity" },
  time = { "00:00:00", "00:00:00.05", "00:00:00.5", "09:00:00", "23:59:59.999999", "24:00:00" },
  uuid = { "00000000-0000-0000-0000-000000000000", "0a000000-0000-0000-0000-000000000000",
    "A0000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff" },
  bytea = { "", "\0", "\0\0", "\0\1", "a", "ab", "\127", "\128", "\255" },
}

local EQUAL = {
  numeric = { "1", "1.0", "1.000", "01" },
  timestamptz = { "2000-01-01 00:00:00+00", "2000-01-01 01:00:00+01", "1999-12-31 19:30:00-04:30" },
  float8 = { 0, -0 },
  uuid = { "ABCDEF00-0000-0000-0000-000000000000", "abcdef00-0000-0000-0000-000000000000" },
  bpchar = { "a", "a  " },
}

local function bound_keys(spec, types, rows)
  local items = order.parse(spec)
  local bound = assert(order.bind(items, types))
  local keys = {}
  for i, row in ipairs(rows) do
    keys[i] = assert(bound:keys(row))
  end
  return items, keys
end

describe("sort keys", function()
  for sql_type, values in pairs(SORTED) do
    it("order " .. sql_type .. " as the server does", function()
      local key_of, keys = assert(sortkey.ordering(sql_type)), {}
      for i, value in ipairs(values) do
        keys[i] = key_of(value)
        assert.is_not_nil(keys[i], tostring(value))
      end
      for i = 1, #values do
        for j = 1, #values do
          local by = sortkey.compare(keys[i], keys[j])
          if by ~= (i < j and -1 or i > j and 1 or 0) then
            error(("%s against %s gave %d"):format(tostring(values[i]), tostring(values[j]), by))
          end
        end
      end
    end)

    it("give different " .. sql_type .. " values different identities", function()
      local identity, seen = assert(sortkey.identity(sql_type)), {}
      for _, value in ipairs(values) do
        local text = identity(value)
        assert.is_nil(seen[text], tostring(value))
        seen[text] = true
      end
    end)
  end

  for sql_type, values in pairs(EQUAL) do
    it("hold equal " .. sql_type .. " values equal, however written", function()
      local key_of, identity = assert(sortkey.ordering(sql_type, "C")), assert(sortkey.identity(sql_type))
      for _, value in ipairs(values) do
        assert.equal(0, sortkey.compare(key_of(values[1]), key_of(value)))
        assert.equal(identity(values[1]), identity(value))
      end
    end)
  end

  it("give an int64 and a number of the same value one identity", function()
    local identity = assert(sortkey.identity("int8"))
    assert.equal(identity(5), identity(5LL))
    assert.equal(identity(-2 ^ 53), identity(-9007199254740992LL))
  end)

  it("give every NaN one identity, whatever its sign bit", function()
    local identity = assert(sortkey.identity("float8"))
    assert.equal(identity(0 / 0), identity(-(0 / 0)))
  end)

  it("order text only when it is told that the server orders it bytewise", function()
    local key_of, reason = sortkey.ordering("text")
    assert.is_nil(key_of)
    assert.matches('collate = "C"', reason, 1, true)
    key_of, reason = sortkey.ordering("text", "en_US.utf8")
    assert.is_nil(key_of)
    assert.matches("en_US.utf8", reason, 1, true)
    key_of = assert(sortkey.ordering("text", "C"))
    assert.equal(-1, sortkey.compare(key_of("Z"), key_of("a")))
    assert.equal(-1, sortkey.compare(key_of("z"), key_of("\195\164")))
  end)

  it("refuse types whose order only the server knows", function()
    for _, sql_type in ipairs({ "interval", "jsonb", "money", "inet", "timetz", "oid:16400", "int8[]" }) do
      local key_of, reason = sortkey.ordering(sql_type)
      assert.is_nil(key_of, sql_type)
      assert.matches(sql_type, reason, 1, true)
      assert.is_nil((sortkey.identity(sql_type)), sql_type)
    end
  end)

  it("know the SQL names and modifiers of types", function()
    assert.equal("integer", sortkey.family("BIGINT"))
    assert.equal("numeric", sortkey.family("numeric(10,2)"))
    assert.equal("timestamptz", sortkey.family("timestamp with time zone"))
    assert.is_nil(sortkey.family("interval"))
  end)

  it("give nil for values that are not of the type", function()
    for sql_type, bad in pairs({ int8 = "5", float8 = "x", numeric = "1e5", bool = 1, date = "yesterday",
      timestamp = "2000-01-01", timestamptz = "2000-01-01 00:00:00", uuid = 5 }) do
      assert.is_nil(sortkey.ordering(sql_type)(bad), sql_type)
    end
  end)

  it("agree with comparing scaled integers on random numerics", function()
    results.seed()
    local key_of = assert(sortkey.ordering("numeric"))
    local function number()
      local scaled = math.random(-10 ^ math.random(0, 9), 10 ^ math.random(0, 9))
      local scale = math.random(0, 6)
      local text = ("%0" .. (scale + 1) .. ".0f"):format(math.abs(scaled))
      local whole, places = text:sub(1, #text - scale), text:sub(#text - scale + 1)
      return (scaled < 0 and "-" or "") .. whole .. (scale > 0 and "." .. places or ""), scaled * 10 ^ (6 - scale)
    end
    for _ = 1, results.rounds(2000) do
      local a, x = number()
      local b, y = number()
      local expected = x < y and -1 or x > y and 1 or 0
      assert.equal(expected, sortkey.compare(key_of(a), key_of(b)), a .. " against " .. b)
    end
  end)
end)

describe("order", function()
  it("reads SQL's way of saying it", function()
    local items = order.parse('created_at DESC, "My Column" COLLATE "C" asc nulls first,id desc nulls last')
    assert.same({
      { column = "created_at", desc = true, nulls_first = true },
      { column = "My Column", desc = false, nulls_first = true, collate = "C" },
      { column = "id", desc = true, nulls_first = false },
    }, items)
  end)

  it("reads lists of texts and tables, and a single item", function()
    assert.same({
      { column = "created_at", desc = true, nulls_first = false, collate = "C" },
      { column = "id", desc = false, nulls_first = false, collate = "C" },
    }, order.parse({ { "created_at", desc = true, nulls = "last" }, "id" }, "C"))
    assert.same({ { column = "id", desc = true, nulls_first = true } }, order.parse({ "id", desc = true }))
  end)

  it("raises on what it cannot read, naming the nearest option", function()
    for _, bad in ipairs({ "total dsc", "", "a,,b", "a nulls", "a nulls middle", "a desc asc", "a;b", {}, 5, { 5 } }) do
      assert.error_matches(function() order.parse(bad) end, "bad order")
    end
    assert.error_matches(function() order.parse({ { "id", dsc = true } }) end, 'did you mean "desc"')
    assert.has_error(function() order.parse({ { "id", nulls = "middle" } }) end)
  end)

  it("puts NULLs last when ascending and first when descending, unless told otherwise", function()
    local rows = { { a = 1 }, {}, { a = 2 } }
    local expected = { ["a"] = { 1, 3, 2 }, ["a desc"] = { 2, 3, 1 }, ["a nulls first"] = { 2, 1, 3 },
      ["a desc nulls last"] = { 3, 1, 2 } }
    for spec, indexes in pairs(expected) do
      local items, keys = bound_keys(spec, { a = "int8" }, rows)
      for i = 1, #indexes - 1 do
        assert.is_true(order.compare(items, keys[indexes[i]], keys[indexes[i + 1]]) < 0, spec)
      end
    end
  end)

  it("compares column after column, each in its direction", function()
    local items, keys = bound_keys("a, b desc", { a = "int8", b = "numeric" },
      { { a = 1, b = "10" }, { a = 1, b = "9.5" }, { a = 2, b = "99" } })
    assert.is_true(order.compare(items, keys[1], keys[2]) < 0)
    assert.is_true(order.compare(items, keys[2], keys[3]) < 0)
    assert.equal(0, order.compare(items, keys[3], keys[3]))
  end)

  it("names a column that the rows do not have, and the nearest", function()
    local bound, err = order.bind(order.parse("creatd_at"), { created_at = "timestamptz" }, "shard2")
    assert.is_nil(bound)
    assert.is_true(errors.is(err, "INVALID"))
    assert.equal('no column "creatd_at" in the rows; did you mean "created_at"?', err.message)
    assert.equal("shard2", err.shard_id)
  end)

  it("refuses text without a collation, and values that are not of their type", function()
    local bound, err = order.bind(order.parse("name"), { name = "text" }, "shard1")
    assert.is_nil(bound)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.matches('column "name"', err.message, 1, true)
    bound = assert(order.bind(order.parse("day"), { day = "date" }))
    local keys
    keys, err = bound:keys({ day = "31.12.1999" })
    assert.is_nil(keys)
    assert.is_true(errors.is(err, "NOT_MERGEABLE"))
    assert.matches("31.12.1999", err.message, 1, true)
  end)

  it("refuses to compare columns of different kinds on different shards", function()
    local items = order.parse("a")
    local x = assert(order.bind(items, { a = "int8" }, "s1"))
    local y = assert(order.bind(items, { a = "numeric" }, "s2"))
    local same, err = order.check_same(x, y)
    assert.is_nil(same)
    assert.equal('column "a" is integer on s1 but numeric on s2: cast it to one type', err.message)
    assert.is_true(order.check_same(x, assert(order.bind(items, { a = "int4" }, "s2"))))
  end)
end)
