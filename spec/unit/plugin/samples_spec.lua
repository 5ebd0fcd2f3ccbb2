local core = require("lunashard.core.placement")
local samples = require("lunashard.plugin.samples")

local TYPES = { "int8", "text", "uuid", "date", { "int8", "text" }, { "uuid", "date", "int8" } }

local function name_of(key_type)
  return type(key_type) == "table" and table.concat(key_type, ", ") or key_type
end

local function text_of(key_type, key)
  local canonical = assert(core.canonical(key_type, key))
  return type(canonical) == "table" and samples.describe(canonical) or tostring(canonical)
end

describe("sampled keys", function()
  it("are keys of their type, differ, and are the same for a seed", function()
    for _, key_type in ipairs(TYPES) do
      local keys, again, other = samples.keys(key_type, 500, 7), samples.keys(key_type, 500, 7), samples.keys(key_type, 500, 8)
      local seen, n = {}, 0
      for i, key in ipairs(keys) do
        local text = text_of(key_type, key)
        n = n + (seen[text] and 0 or 1)
        seen[text] = true
        assert.equal(text, text_of(key_type, again[i]))
      end
      assert.equal(500, #keys)
      assert.is_true(n > 400, name_of(key_type) .. ": " .. n)
      local same = 0
      for i, key in ipairs(other) do
        same = same + (text_of(key_type, key) == text_of(key_type, keys[i]) and 1 or 0)
      end
      assert.is_true(same < 300, name_of(key_type) .. ": " .. same)
    end
  end)

  it("are int8 keys where no type is declared, small ones, negative ones and some beyond 2^53 among them", function()
    local small, negative, beyond = 0, 0, 0
    for _, key in ipairs(samples.keys(nil, 1000, 1)) do
      small = small + (type(key) == "number" and key >= 1 and key <= 500 and 1 or 0)
      negative = negative + (key < 0 and 1 or 0)
      beyond = beyond + (type(core.canonical("int8", key)) == "cdata" and 1 or 0)
    end
    assert.is_true(small >= 500 and negative > 20 and beyond > 5, ("%d %d %d"):format(small, negative, beyond))
  end)

  it("reach the edges of their type", function()
    for _, key_type in ipairs(TYPES) do
      local edges = samples.edges(key_type)
      assert.is_true(#edges >= 4)
      for _, key in ipairs(edges) do
        assert.is_truthy(core.canonical(key_type, key), name_of(key_type) .. " " .. samples.describe(key))
      end
    end
    local texts = {}
    for i, key in ipairs(samples.edges("int8")) do
      texts[i] = samples.describe(key)
    end
    local all = " " .. table.concat(texts, " ") .. " "
    for _, wanted in ipairs({ "0", "-1", "9007199254740992", "9007199254740993LL", "9223372036854775807LL",
      "-9223372036854775808LL" }) do
      assert.is_truthy(all:find(" " .. wanted .. " ", 1, true), wanted)
    end
  end)

  it("come in all spellings of one key", function()
    local texts = {}
    for i, form in ipairs(samples.forms("int8", 42)) do
      texts[i] = samples.describe(form)
    end
    assert.same({ "42", "42LL", '"42"', "42ULL" }, texts)
    assert.equal(3, #samples.forms("int8", -9223372036854775807LL - 1LL))
    for _, key_type in ipairs(TYPES) do
      for _, key in ipairs(samples.keys(key_type, 100, 3)) do
        for _, form in ipairs(samples.forms(key_type, key)) do
          assert.equal(text_of(key_type, key), text_of(key_type, form))
        end
      end
    end
    assert.equal(4, #samples.forms({ "int8", "text" }, { 1, "a" }))
  end)

  it("are shown so that a number and a text that look alike differ, on one short line", function()
    assert.equal("9007199254740991", samples.describe(9007199254740991))
    assert.equal('(1, "a\\10b")', samples.describe({ 1, "a\nb" }))
    assert.is_true(#samples.describe(("x"):rep(5000)) < 80)
  end)
end)
