local errors = require("lunashard.errors")
local lsn = require("lunashard.lsn")

describe("a position in the log", function()
  it("is what PostgreSQL writes, and nothing else", function()
    for _, text in ipairs({ "0/0", "0/16B3748", "16/b374d848", "FFFFFFFF/FFFFFFFF" }) do
      assert.is_true(lsn.is(text), text)
    end
    for _, value in ipairs({ "", "0", "0/", "/0", "0/16B3748 ", "0/G", "123456789/0", "0/123456789", 0, {}, true }) do
      assert.is_false(lsn.is(value), tostring(value))
    end
  end)

  it("is compared by all its 64 bits", function()
    local ascending = { "0/0", "0/9", "0/A", "0/10", "0/FFFFFFFF", "1/0", "9/FFFFFFFF", "A/0", "10/0",
      "FFFFFFFF/FFFFFFFE", "FFFFFFFF/FFFFFFFF" }
    for i, left in ipairs(ascending) do
      for k, right in ipairs(ascending) do
        assert.equal(i >= k, lsn.reached(left, right), left .. " and " .. right)
      end
    end
  end)

  it("does not depend on how it is written", function()
    assert.is_true(lsn.reached("0a/0B", "A/b"))
    assert.is_true(lsn.reached("A/b", "0a/0B"))
  end)
end)

describe("the position that a read must see", function()
  it("is the one that is given", function()
    assert.equal("0/10", (lsn.of("0/10", "shard1")))
  end)

  it("is that of the result, on its shard alone", function()
    local result = { shard_id = "shard1", lsn = "0/10" }
    assert.equal("0/10", (lsn.of(result, "shard1")))
    assert.is_nil((lsn.of(result, "shard2")))
  end)

  it("is that of each shard, of the result of several", function()
    local result = { shard_results = { shard1 = { lsn = "0/10" }, shard2 = { lsn = "0/20" } } }
    assert.equal("0/20", (lsn.of(result, "shard2")))
    assert.is_nil((lsn.of(result, "shard3")))
  end)

  it("is that of the last statement on the shard, of many", function()
    local result = { results = { { shard_id = "shard1", lsn = "0/10" }, { shard_id = "shard1", lsn = "0/30" },
      { shard_id = "shard2", lsn = "0/40" } } }
    assert.equal("0/30", (lsn.of(result, "shard1")))
  end)

  it("is false where something was written and nobody knows up to where", function()
    assert.is_false((lsn.of({ shard_id = "shard1" }, "shard1")))
    assert.is_false((lsn.of({ row_count = 3, rows_by_shard = {} }, "shard1")))
    assert.is_false((lsn.of({ shard_results = { shard1 = { success = false } } }, "shard1")))
  end)

  it("cannot be had when asking for it fails", function()
    local result = setmetatable({ shard_id = "shard1" }, lsn.lazily(function()
      return nil, errors.new("SHARD_DOWN", { message = "gone" })
    end))
    local position, err = lsn.of(result, "shard1")
    assert.is_nil(position)
    assert.equal("SHARD_DOWN", err.code)
  end)
end)

describe("a result with a position", function()
  local asked, result

  before_each(function()
    asked = 0
    result = setmetatable({ row_count = 1 }, lsn.lazily(function()
      asked = asked + 1
      return "0/10"
    end))
  end)

  it("asks for it when it is looked at, once", function()
    assert.equal(0, asked)
    assert.equal("0/10", result.lsn)
    assert.equal("0/10", result.lsn)
    assert.equal(1, asked)
  end)

  it("has no other field more, and looks like any table", function()
    assert.is_nil(result.rows)
    assert.is_nil(result[1])
    assert.equal('{"row_count":1}', require("cjson").encode(result))
    assert.equal("{\n  row_count = 1\n}", require("inspect")(result))
    assert.is_false(errors.is(result))
    assert.equal(0, asked)
  end)
end)
