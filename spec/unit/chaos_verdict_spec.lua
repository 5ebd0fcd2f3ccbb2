local history = require("spec.chaos.history")
local verdict = require("spec.chaos.verdict")

-- Operations as `history.read` gives them: { kind, from, to, fields }, unless said otherwise of key 1 and acknowledged.
local function ops_of(list)
  local ops = {}
  for i, one in ipairs(list) do
    local op = one[4] or {}
    op.kind, op.began, op.ended, op.process = one[1], one[2], one[3], "p" .. i
    op.key, op.outcome = op.key or 1, op.outcome or "ok"
    ops[i] = op
  end
  return ops
end

local function blamed(check)
  local found = verdict.new()
  check(found)
  local list = {}
  for column, n in pairs(found.counts) do
    if n > 0 then
      list[column] = n
    end
  end
  return list
end

local function registers(list, version, value)
  return blamed(function(found)
    found:check_registers(ops_of(list), { [1] = version and { version = version, value = value } })
  end)
end

local function tokens(list, there)
  return blamed(function(found)
    found:check_tokens(ops_of(list), there)
  end)
end

describe("the verdict of a chaos run on registers", function()
  local A, B = { version = 1, value = "a" }, { version = 2, value = "b" }
  local function copy(t, more)
    local new = {}
    for name, value in pairs(t) do new[name] = value end
    for name, value in pairs(more or {}) do new[name] = value end
    return new
  end

  it("finds nothing in a history that could have happened in some order", function()
    assert.same({}, registers({ { "write", 1, 4, copy(A) }, { "write", 2, 3, copy(B) }, { "read", 2, 5, copy(A) },
      { "read", 6, 7, copy(B) } }, 2, "b"))
    assert.same({}, registers({ { "read", 1, 2, { version = 0, value = "start" } } }, 0, "start"))
  end)

  it("finds a write that is not there in the end, or whose row is gone", function()
    assert.same({ lost = 1 }, registers({ { "write", 1, 2, copy(A) } }, 0, "start"))
    assert.same({ lost = 1 }, registers({ { "write", 1, 2, copy(A) } }))
  end)

  it("finds two writes with one version, and one that did not see what was acknowledged before", function()
    assert.same({ lost = 1, wrong_read = 1 }, registers({ { "write", 1, 4, copy(A) },
      { "write", 2, 3, copy(A, { value = "b" }) } }, 1, "a"))
    assert.same({ lost = 1 }, registers({ { "write", 1, 2, copy(B) }, { "write", 3, 4, copy(A) } }, 2, "b"))
  end)

  it("finds a read that is older than what had been read or acknowledged before it", function()
    local both = { { "write", 1, 2, copy(A) }, { "write", 3, 4, copy(B) } }
    assert.same({ stale = 1 }, registers({ both[1], both[2], { "read", 5, 6, copy(A) } }, 2, "b"))
    assert.same({ stale = 1 }, registers({ both[1], { "write", 3, 9, copy(B) }, { "read", 4, 5, copy(B) },
      { "read", 6, 7, copy(A) } }, 2, "b"))
    assert.same({}, registers({ both[1], both[2], { "read", 3.5, 6, copy(A) } }, 2, "b"))
  end)

  it("finds a value that was not written with its version, or not yet", function()
    assert.same({ wrong_read = 1 }, registers({ { "write", 1, 2, copy(A) }, { "read", 3, 4, copy(A, { value = "x" }) } }, 1, "a"))
    assert.same({ lost = 1, wrong_read = 1 }, registers({ { "read", 1, 2, copy(A) }, { "write", 3, 4, copy(A) } }, 1, "a"))
    assert.same({ resurrected = 1 }, registers({ { "read", 1, 2, { version = 3, value = "x" } }, { "write", 1, 4, copy(A) },
      { "write", 1, 5, copy(B) }, { "write", 1, 5, { version = 3, value = "y", outcome = "unknown" } } }, 3, "y"))
  end)

  it("lets a write of unknown outcome have happened once, and not twice", function()
    local unknown = { "write", 1, math.huge, { value = "u", outcome = "unknown" } }
    assert.same({}, registers({ unknown }, 0, "start"))
    assert.same({}, registers({ unknown }, 1, "u"))
    assert.same({ duplicated = 1 }, registers({ unknown }, 2, "u"))
    assert.same({ duplicated = 1 }, registers({ { "write", 1, 2, copy(A) }, { "write", 3, 4, { version = 3, value = "c" } } },
      3, "c"))
  end)
end)

describe("the verdict of a chaos run on tokens", function()
  local function insert(more) more = more or {}; more.token = "t"; return { "insert", 1, 2, more } end
  local function delete(more) more = more or {}; more.token, more.rows = "t", more.rows or 1; return { "delete", 3, 4, more } end

  it("finds nothing where each is there once, or not, as its fate is", function()
    assert.same({}, tokens({ insert() }, { t = 1 }))
    assert.same({}, tokens({ insert(), delete() }, {}))
    for n = 0, 1 do
      assert.same({}, tokens({ insert({ outcome = "unknown" }) }, { t = n > 0 and n or nil }))
      assert.same({}, tokens({ insert(), delete({ outcome = "unknown" }) }, { t = n > 0 and n or nil }))
    end
    assert.same({}, tokens({ insert({ outcome = "no" }) }, {}))
  end)

  it("finds those that are lost, there twice, back again, or from nowhere", function()
    assert.same({ lost = 1 }, tokens({ insert() }, {}))
    assert.same({ lost = 1 }, tokens({ insert(), delete({ rows = 0 }) }, {}))
    assert.same({ duplicated = 1 }, tokens({ insert() }, { t = 2 }))
    assert.same({ duplicated = 1 }, tokens({ insert({ outcome = "unknown" }) }, { t = 2 }))
    assert.same({ resurrected = 1 }, tokens({ insert(), delete() }, { t = 1 }))
    assert.same({ resurrected = 1 }, tokens({ insert({ outcome = "no" }) }, { t = 1 }))
    assert.same({ resurrected = 1 }, tokens({}, { t = 1 }))
  end)
end)

describe("the verdict of a chaos run on sums", function()
  it("finds those that are not what every transaction keeps", function()
    assert.same({ wrong_read = 1, wrong_scatter = 1 }, blamed(function(found)
      found:check_sums(ops_of({
        { "sum", 1, 2, { seen = 200, expected = 200 } }, { "sum", 1, 2, { seen = 190, expected = 200 } },
        { "scatter", 1, 2, { seen = "3", expected = "4" } }, { "scatter", 1, 2, { expected = "4", outcome = "no" } },
      }))
    end))
  end)
end)

describe("a history", function()
  local path

  before_each(function()
    path = os.tmpname()
  end)

  after_each(function()
    os.remove(path)
  end)

  local function write(text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
  end

  it("tells what ended well, what did nothing, and what nobody knows", function()
    local writer = history.open(path, "p")
    local ids = {}
    for i = 1, 4 do
      ids[i] = writer:begin("write", { key = i, value = "v" .. i })
    end
    writer:finish(ids[1], { ok = true, version = 7 })
    writer:finish(ids[2], { code = "SHARD_DOWN" })
    writer:finish(ids[3], { code = "UNKNOWN_OUTCOME" })
    writer:close()
    local ops = history.read(path, "p")
    local outcomes = {}
    for i, op in ipairs(ops) do
      outcomes[i] = op.outcome
    end
    assert.same({ "ok", "no", "unknown", "unknown" }, outcomes)
    assert.equal(7, ops[1].version)
    assert.is_true(ops[1].ended >= ops[1].began)
    assert.equal(math.huge, ops[4].ended)
  end)

  it("may be cut off in its last line, and nowhere else", function()
    write('{"id":1,"kind":"read","began":1}\n{"id":1,"en')
    assert.equal("unknown", history.read(path, "p")[1].outcome)
    write('{"id":1,"kind":"read","began":1}\n{"id":1,"en\n')
    assert.has_error(function() history.read(path, "p") end)
    write('{"id":2,"kind":"read","began":1}\n')
    assert.has_error(function() history.read(path, "p") end)
  end)
end)
