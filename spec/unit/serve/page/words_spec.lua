local words = require("lunashard.serve.page.words")

describe("words", function()
  it("give numbers three digits that count", function()
    local seen = {}
    for i, n in ipairs({ 0, 0.5, 4.256, 42.04, 818, 9999, 12345, 3.4e6, 2e9 }) do
      seen[i] = words.number(n)
    end
    assert.same({ "0", "0.5", "4.26", "42", "818", "9999", "12.3k", "3.4M", "2G" }, seen)
  end)

  it("give whole numbers in groups", function()
    local space = "\226\128\175"
    assert.equal("0", words.count(0))
    assert.equal("999", words.count(999))
    assert.equal("1" .. space .. "000", words.count(1000))
    assert.equal("123" .. space .. "456", words.count(123456))
    assert.equal("-12" .. space .. "345" .. space .. "678", words.count(-12345678))
  end)

  it("give latencies and durations units that fit", function()
    assert.equal("532 µs", words.latency(0.000532))
    assert.equal("4.26 ms", words.latency(0.00426))
    assert.equal("1.5 s", words.latency(1.5))
    assert.equal("119 s", words.duration(119.9))
    assert.equal("2 min", words.duration(120))
    assert.equal("3 h 20 min", words.duration(12000))
    assert.equal("2 d", words.duration(172800))
    assert.equal("4.77 MiB", words.bytes(4.77 * 2 ^ 20))
  end)
end)
