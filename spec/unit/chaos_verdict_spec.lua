local errors = require("lunashard.errors")
local faults = require("spec.chaos.faults")
local history = require("spec.chaos.history")
local verdict = require("spec.chaos.verdict")
local world = require("spec.chaos.world")

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

  it("finds a first write, or read, that met no row", function()
    assert.same({ lost = 1 }, registers({ { "write", 1, 2, { version = -1, value = "a" } } }, 0, "start"))
    assert.same({ stale = 1, resurrected = 1 }, registers({ { "read", 1, 2, { version = -1, value = "gone" } } }, 0, "start"))
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

describe("the verdict of a chaos run on answers", function()
  local function answered(err)
    local path = os.tmpname()
    local writer = history.open(path, "p")
    writer:finish(writer:begin("write", { key = 1 }), history.failure(err))
    writer:close()
    local ops = history.read(path, "p")
    os.remove(path)
    return blamed(function(found)
      found:check_answers(ops)
    end), ops[1].outcome
  end

  local function said(state)
    return errors.new("SQL", { message = "bucket 7 of group int8 is being moved", sqlstate = state })
  end

  it("finds those that were for the router, also behind an unknown outcome or among those of several shards", function()
    for _, state in ipairs({ "LS001", "LS002", "LS003", "LS005" }) do
      assert.same({ leaked = 1 }, (answered(said(state))))
    end
    local found, outcome = answered(errors.wrap(said("LS001"), { code = "UNKNOWN_OUTCOME" }))
    assert.same({ { leaked = 1 }, "unknown" }, { found, outcome })
    assert.same({ leaked = 2 }, (answered(errors.new("SHARDS_FAILED", { message = "3 of 4 shards failed", failed = {
      { shard_id = "s1", error = said("LS001") }, { shard_id = "s2", error = said("23505") },
      { shard_id = "s3", error = said("LS003") } } }))))
  end)

  it("finds nothing in what the router says itself, and in what is for users", function()
    assert.same({}, (answered(errors.new("STALE_MAP", { message = "the map could not be had", cause = said("LS001") }))))
    assert.same({}, (answered(errors.new("SQL", { message = "run it again", sqlstate = "40001", cause = said("LS001") }))))
    assert.same({}, (answered(said("LS004"))))
    assert.same({}, (answered(said("23505"))))
  end)
end)

describe("the verdict of a chaos run on counters", function()
  local function counters(list, there, sweeps)
    return blamed(function(found)
      found:check_counters(ops_of(list), there, sweeps or {})
    end)
  end

  local inserted = { "insert", 1, 2, { token = "t", id_at = 1000 } }
  local function step(counter, n, outcome)
    return { "step", 3, 4, { token = "t", counter = counter, n = n, outcome = outcome } }
  end

  it("finds nothing where each step was done once, and one of unknown outcome at most once", function()
    assert.same({}, counters({ inserted, step("n", 1), step("n", 2), step("id", 1001) }, { t = { n = 2, id = 1001 } }))
    for n = 1, 2 do
      assert.same({}, counters({ inserted, step("n", nil, "unknown"), step("n", n) }, { t = { n = n, id = 1000 } }))
    end
    assert.same({}, counters({ inserted, step("n", 1), step("n", nil, "no") }, { t = { n = 1, id = 1000 } }))
    assert.same({}, counters({ inserted, step("n", 1) }, {}))
  end)

  it("finds steps that are lost, or were done twice", function()
    assert.same({ lost = 1 }, counters({ inserted, step("n", 1) }, { t = { n = 0, id = 1000 } }))
    assert.same({ lost = 1 }, counters({ inserted, step("n", 1), step("n", 1) }, {}))
    assert.same({ lost = 1 }, counters({ inserted, step("n", -1) }, {}))
    assert.same({ duplicated = 1 }, counters({ inserted }, { t = { n = 0, id = 1001 } }))
    assert.same({ duplicated = 1 }, counters({ inserted, step("n", 2) }, {}))
    assert.same({ duplicated = 1 }, counters({ inserted, step("n", nil, "unknown"), step("n", 3) }, {}))
  end)

  it("finds a row that a write on all rows has passed by, or met twice", function()
    local sweep, maybe = { "sweep", 1, 2 }, { "sweep", 3, 4, { outcome = "unknown" } }
    assert.same({}, counters({ sweep, maybe }, {}, { { n = 1 }, { n = 2 } }))
    assert.same({ lost = 1 }, counters({ sweep, maybe }, {}, { { n = 0 }, { n = 1 } }))
    assert.same({ duplicated = 1 }, counters({ sweep, maybe }, {}, { { n = 3 }, { n = 1 } }))
  end)
end)

describe("the verdict of a chaos run on what was not seen", function()
  it("is that nothing is proved", function()
    local ops = ops_of({ { "read", 1, 2 }, { "write", 1, 2, { outcome = "unknown" } } })
    local found = verdict.new()
    assert.is_true(found:is_clean())
    found:demand(ops, { "read", "write", "scatter" })
    assert.equal(2, found.counts.unproved)
    assert.is_false(found:is_clean())
  end)
end)

describe("what is read at the end of a chaos run", function()
  -- A shard that has no rows but says of one table that there are some, or does not answer.
  local function read(answer)
    local shard = { shard_id = "s1", ask = function(sql)
      if answer and sql:find("accounts", 1, true) then
        return answer(sql)
      elseif sql:find("md5('", 1, true) then
        return { { m = "" } }
      end
      return sql:find("count(*) AS n", 1, true) and { { n = 0 } } or {}
    end }
    return pcall(world.read, { shard }, verdict.new(), function() return "s1" end, 0)
  end

  it("is an error where rows break off or a shard does not answer, and never the absence of rows", function()
    assert.is_true((read()))
    local ok, err = read(function(sql)
      return sql:find("count(*) AS n", 1, true) and { { n = 2 } } or { { k = 1, balance = 1 } }
    end)
    assert.is_false(ok)
    assert.matches("2 rows in accounts and gave 1", err, 1, true)
    ok, err = read(function() return nil, "the connection was lost" end)
    assert.is_false(ok)
    assert.matches("the connection was lost", err, 1, true)
  end)
end)

describe("the faults of a chaos run", function()
  local function schedule(seed, shape)
    local run = { options = { seed = seed, shape = shape, keys = 300, routers = 3 }, servers = { shards = { {}, {}, {}, {} } } }
    local list = {}
    for _, lane in ipairs({ "servers", "others" }) do
      local names = faults.names(lane, shape)
      for n = 1, 30 do
        local pause, text = faults.choose(run, lane, n, names)
        list[#list + 1] = ("%.6f %s"):format(pause, text)
      end
    end
    return table.concat(list, "\n")
  end

  it("are the same for the same seed, and others for another one", function()
    assert.equal(schedule(7, "replicas"), schedule(7, "replicas"))
    assert.are_not.equal(schedule(7, "replicas"), schedule(8, "replicas"))
  end)

  it("are those that the shape of the servers allows", function()
    assert.matches("fails over", schedule(7, "replicas"), 1, true)
    assert.is_nil(schedule(7, "disk"):find("fails over", 1, true))
    assert.matches("disk is full", schedule(7, "disk"), 1, true)
    assert.matches("the network", schedule(7, "network"), 1, true)
    assert.equal("fail_over", faults.names("servers", "replicas", "fail_over,bypass")[1])
    assert.same({}, faults.names("servers", "disk", "fail_over,bypass"))
    assert.same({ "bypass" }, faults.names("others", "replicas", "fail_over,bypass"))
    assert.equal("replicas", faults.shape("router,fail_over"))
    assert.has_error(function() faults.shape("flood") end, 'there is no fault "flood"')
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
