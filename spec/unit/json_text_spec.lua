local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local values = require("lunashard.values")

describe("values as JSON", function()
  local encode, list = json_text.encode, json_text.list

  it("know empty lists from empty objects", function()
    assert.equal('{"a":[],"b":{},"c":[[]]}', encode({ a = list({}), b = {}, c = { list() } }))
    assert.equal('{"found":[1],"gone":[],"x":{}}', encode(json_text.lists({ found = { 1 }, gone = {}, x = {} }, "found", "gone",
      "absent")))
  end)

  it("are read back as they were, fields in the order of the alphabet", function()
    local value = { z = { "a\"b\\\n\0é", true, false }, n = { 1, -2.5, 0.1, 1e300, 2 ^ 53 }, [7] = "seven" }
    assert.same({ z = value.z, n = value.n, ["7"] = "seven" }, cjson.decode(encode(value)))
    assert.equal('{"a":1,"b":2,"c":3}', encode({ c = 3, a = 1, b = 2 }))
  end)

  it("lose no digits", function()
    assert.equal("[9007199254740991,0.1,0.30000000000000004]", encode({ 9007199254740991, 0.1, 0.1 + 0.2 }))
    assert.equal('["9223372036854775807","18446744073709551615"]', encode({ 9223372036854775807LL, 18446744073709551615ULL }))
  end)

  it("say what JSON has no word for", function()
    assert.equal('["NaN","Infinity","-Infinity"]', encode({ 0 / 0, 1 / 0, -1 / 0 }))
    assert.equal('[null,2,null,4]', encode({ nil, 2, values.null, 4 }))
    assert.equal('{"10":1}', encode({ [10] = 1 }))
    local told = cjson.decode(encode({ error = errors.new("INVALID", { message = "no", cause = errors.new("AUTH", {}) }) }))
    assert.same({ "INVALID", "no", "AUTH" }, { told.error.code, told.error.message, told.error.cause.code })
    assert.has_error(function()
      encode({ print })
    end)
  end)
end)
