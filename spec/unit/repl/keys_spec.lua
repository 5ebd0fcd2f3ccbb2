local keys = require("lunashard.repl.keys")

-- Events in short: "text", <paste>, {key}.
local function short(events)
  local parts = {}
  for i, event in ipairs(events) do
    parts[i] = event.text or event.paste and "<" .. event.paste .. ">" or "{" .. event.key .. "}"
  end
  return table.concat(parts)
end

local function decode(bytes)
  return short(keys.decoder():feed(bytes))
end

describe("the decoder of keys", function()
  it("knows text, controls, arrows and what is held with them", function()
    assert.equal("ab{enter}{C-a}{backspace}{tab}{C-_}", decode("ab\r\1\127\t\31"))
    assert.equal("{up}{down}{right}{left}{home}{end}", decode("\27[A\27OB\27[C\27[D\27[H\27OF"))
    assert.equal("{delete}{home}{end}{pageup}{S-tab}", decode("\27[3~\27[1~\27[8~\27[5~\27[Z"))
    assert.equal("{C-right}{M-left}{left}{C-delete}", decode("\27[1;5C\27[1;3D\27[1;2D\27[3;5~"))
    assert.equal("{M-b}{M-backspace}{M-enter}{M-<}", decode("\27b\27\127\27\r\27<"))
  end)

  it("passes over what it does not know", function()
    assert.equal("ab", decode("a\27[?1;2c\27[24~\27[M\27[200;1Rb"))
    assert.equal("a", decode("\0\28a"))
  end)

  it("gives pastes as they are, with newlines for carriage returns, however they are cut", function()
    local bytes = "x\27[200~one\rtwo\r\nthree\n\t\27[A \3日\27[201~y"
    assert.equal("x<one\ntwo\nthree\n\t\27[A \3日>y", decode(bytes))
    for cut = 1, #bytes - 1 do
      local decoder = keys.decoder()
      local events = decoder:feed(bytes:sub(1, cut))
      for _, event in ipairs(decoder:feed(bytes:sub(cut + 1))) do
        events[#events + 1] = event
      end
      assert.equal("x<one\ntwo\nthree\n\t\27[A \3日>y", short(events))
    end
  end)

  it("waits for the rest of a character or of a sequence", function()
    local decoder = keys.decoder()
    assert.equal("a", short(decoder:feed("a\230\151")))
    assert.is_false(decoder:is_unsure())
    assert.equal("日", short(decoder:feed("\165")))
    assert.equal("", short(decoder:feed("\27[1;")))
    assert.is_true(decoder:is_unsure())
    assert.equal("{C-up}", short(decoder:feed("5A")))
  end)

  it("takes an escape after which nothing comes for the key", function()
    local decoder = keys.decoder()
    assert.equal("", short(decoder:feed("\27")))
    assert.equal("{escape}", short(decoder:settle()))
    assert.equal("{escape}{up}", decode("\27\27[A"))
  end)

  it("takes any bytes, whole or one by one", function()
    local seed = tonumber(os.getenv("SEED")) or os.time()
    math.randomseed(seed)
    for _ = 1, 300 do
      local bytes = {}
      for i = 1, math.random(1, 40) do
        bytes[i] = string.char(math.random(3) == 1 and 27 or math.random(0, 255))
      end
      local ok, message = pcall(function()
        decode(table.concat(bytes))
        local decoder = keys.decoder()
        for _, byte in ipairs(bytes) do
          decoder:feed(byte)
        end
        decoder:settle()
      end)
      assert.is_true(ok, ("SEED=%d: %s"):format(seed, tostring(message)))
    end
  end)
end)
