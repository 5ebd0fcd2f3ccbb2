local bit = require("bit")
local sums = require("lunashard.rebalancer.sums")

local function random_hash()
  return bit.bor(bit.lshift(math.random(0, 2 ^ 32 - 1) + 0LL, 32), math.random(0, 2 ^ 32 - 1) + 0LL)
end

describe("the checksum of rows", function()
  it("is what PostgreSQL computes of the same hashes", function()
    -- SELECT count(h), bit_xor(h), sum(h >> 32), sum(h & 4294967295) FROM unnest('{...}'::bigint[]) AS h
    local check = sums.check(sums.of({ -9223372036854775807LL - 1, 9223372036854775807LL, -1, 4294967296, 5 }))
    assert.equal("5 4294967301 -1 8589934595", check.checksum)
    assert.equal(5, check.rows)
    assert.equal("2 -4294967296 -1 8589934590", sums.check(sums.of({ -1, 4294967295 })).checksum)
  end)

  it("survives being written and read", function()
    for _, text in ipairs({ "0 0 0 0", "3 -9223372036854775808 -6442450944 12884901885",
      "1000000007 9223372036854775807 1 2" }) do
      assert.equal(text, sums.check(sums.parse(text)).checksum)
    end
  end)

  it("of some rows, and of others added and taken away, is that of what is left", function()
    local kept, gone = {}, {}
    for i = 1, 200 do
      kept[i], gone[i] = random_hash(), random_hash()
    end
    local both = sums.add(sums.of(kept), sums.of(gone))
    assert.not_equal(sums.check(sums.of(kept)).checksum, sums.check(both).checksum)
    assert.equal(sums.check(sums.of(kept)).checksum, sums.check(sums.subtract(both, sums.of(gone))).checksum)
    assert.equal("0 0 0 0", sums.check(sums.zero()).checksum)
  end)
end)
