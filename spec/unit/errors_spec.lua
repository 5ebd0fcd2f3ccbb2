local errors = require("lunashard.errors")

describe("errors", function()
  it("gives every code of the design an advice and an exit status", function()
    local listed = "INVALID NO_SHARD NULL_KEY NO_KEY KEY_MISMATCH NOT_MERGEABLE SQL TIMEOUT CANCELED "
      .. "POOL_EXHAUSTED SHARD_DOWN AUTH UNKNOWN_OUTCOME SHARDS_FAILED RESULT_TOO_LARGE READ_ONLY "
      .. "PLUGIN_FAILED PLACEMENT_CHANGED STALE_MAP JOB_OPEN LOCK_HELD CLOSED"
    local count = 0
    for code in listed:gmatch("%S+") do
      local kind = errors.codes[code]
      assert.is_table(kind, code)
      assert.is_true(#kind.advice > 0, code)
      assert.is_true(kind.exit > 0, code)
      count = count + 1
    end
    for _ in pairs(errors.codes) do
      count = count - 1
    end
    assert.equal(0, count)
  end)

  it("reads as code, message and where it happened, in one line", function()
    local err = errors.new("SQL", {
      message = 'relation "nope" does not exist',
      shard_id = "shard1",
      endpoint = "127.0.0.1:7001",
      sqlstate = "42P01",
    })
    assert.equal('SQL: relation "nope" does not exist (shard1 127.0.0.1:7001, SQLSTATE 42P01)', tostring(err))
    assert.equal("SHARD_DOWN: connection refused. Is it up? (s2)",
      tostring(errors.new("SHARD_DOWN", { message = "connection refused.\n\tIs it up?\n", shard_id = "s2" })))
    assert.equal("SQL: broken (SQLSTATE XX000)", tostring(errors.new("SQL", { message = "broken", sqlstate = "XX000" })))
  end)

  it("lists every failed shard of a scatter", function()
    local err = errors.new("SHARDS_FAILED", {
      message = "2 of 3 shards failed",
      total = 3,
      failed = {
        { shard_id = "shard1", error = errors.new("TIMEOUT", { message = "timed out after 5s", shard_id = "shard1" }) },
        { shard_id = "shard3", error = "odd\nthing" },
      },
    })
    assert.equal("SHARDS_FAILED: 2 of 3 shards failed: shard1: TIMEOUT: timed out after 5s; shard3: odd thing",
      tostring(err))
  end)

  it("raises on an unknown code and on a missing message", function()
    assert.error_matches(function() errors.new("OOPS") end, "unknown error code OOPS")
    assert.error_matches(function() errors.new("SQL", {}) end, "SQL needs a message")
    assert.equal("cancelled", errors.new("CANCELED").message)
  end)

  it("takes retryable from the kind, from the SQLSTATE, or from the caller", function()
    assert.is_true(errors.new("SHARD_DOWN").retryable)
    assert.is_false(errors.new("UNKNOWN_OUTCOME").retryable)
    assert.is_true(errors.new("SQL", { message = "x", sqlstate = "40001" }).retryable)
    assert.is_false(errors.new("SQL", { message = "x", sqlstate = "23505" }).retryable)
    assert.is_false(errors.new("SHARD_DOWN", { retryable = false }).retryable)
  end)

  it("knows its own errors from tables that look like them", function()
    local err = errors.new("TIMEOUT")
    assert.is_true(errors.is(err))
    assert.is_true(errors.is(err, "TIMEOUT"))
    assert.is_false(errors.is(err, "SQL"))
    assert.is_false(errors.is({ code = "TIMEOUT", message = "x" }))
    assert.is_false(errors.is("TIMEOUT"))
    assert.is_false(errors.is(nil))
  end)

  it("adds context in a copy, and lets what is known win", function()
    local err = errors.new("TIMEOUT", { shard_id = "a" })
    local wrapped = errors.wrap(err, { shard_id = "b", endpoint = "h:1" })
    assert.equal("a", wrapped.shard_id)
    assert.equal("h:1", wrapped.endpoint)
    assert.is_nil(err.endpoint)
    assert.is_true(errors.is(wrapped, "TIMEOUT"))
  end)

  it("makes an error of another kind the cause", function()
    local err = errors.new("SQL", { message = "division by zero", shard_id = "a", sqlstate = "22012" })
    local outer = errors.wrap(err, { code = "PLUGIN_FAILED", message = "aggregate failed" })
    assert.is_true(errors.is(outer, "PLUGIN_FAILED"))
    assert.equal(err, outer.cause)
    assert.equal("a", outer.shard_id)
    assert.equal("aggregate failed", outer.message)
    local raised = errors.wrap("x.lua:1: boom", {})
    assert.is_true(errors.is(raised, "PLUGIN_FAILED"))
    assert.equal("x.lua:1: boom", raised.message)
  end)

  it("hides passwords in texts and in JSON", function()
    assert.equal("host=h password=*** port=1", errors.redact("host=h password=s3cret port=1"))
    assert.equal("PASSWORD = *** user=u", errors.redact("PASSWORD = 'a b' user=u"))
    assert.equal("postgres://u:***@h/db", errors.redact("postgres://u:pw@h/db"))
    assert.equal("password authentication failed", errors.redact("password authentication failed"))
    local err = errors.new("AUTH", { message = "bad conninfo password=s3cret" })
    assert.not_matches("s3cret", tostring(err))
    assert.not_matches("s3cret", errors.to_table(err).message)
  end)

  it("becomes a plain tree, without values of rows unless asked, and without cycles", function()
    local err = errors.new("SQL", {
      message = "duplicate key",
      sqlstate = "23505",
      detail = "Key (email)=(a@b.c) already exists.",
      password = "s3cret",
    })
    local outer = errors.new("SHARDS_FAILED", { total = 2, failed = { { shard_id = "a", error = err } } })
    err.cause = outer
    local plain = errors.to_table(outer)
    assert.is_nil(getmetatable(plain))
    assert.equal("a", plain.failed[1].shard_id)
    assert.equal("23505", plain.failed[1].error.sqlstate)
    assert.is_nil(plain.failed[1].error.detail)
    assert.is_nil(plain.failed[1].error.password)
    assert.matches("already exists", errors.to_table(err, { detail = true }).detail)
    assert.same({ message = "plain text" }, errors.to_table("plain text"))
    local depth, level = 0, plain
    while level do
      depth, level = depth + 1, level.cause or level.failed and level.failed[1].error
    end
    assert.is_true(depth < 20)
  end)

  it("maps to exit statuses, partial only when some shard succeeded", function()
    local failed = { { shard_id = "a", error = "x" } }
    assert.equal(4, errors.exit_code(errors.new("SHARDS_FAILED", { total = 2, failed = failed })))
    assert.equal(1, errors.exit_code(errors.new("SHARDS_FAILED", { total = 1, failed = failed })))
    assert.equal(5, errors.exit_code(errors.new("LOCK_HELD")))
    assert.equal(2, errors.exit_code(errors.new("INVALID", { message = "x" })))
    assert.equal(1, errors.exit_code("raised"))
  end)

  it("finds the nearest name within a bound, a swap being one edit", function()
    local names = { "connection_timeout", "connection_pool_size", "retries", "host", "port" }
    assert.equal("connection_timeout", errors.nearest("conection_timeout", names))
    assert.equal("connection_timeout", errors.nearest("connection_timeotu", names))
    assert.equal("connection_pool_size", errors.nearest("Connection-Pool-Size", names))
    assert.equal("port", errors.nearest("prot", names))
    assert.equal("host", errors.nearest("hosts", { host = true, port = true }))
    assert.is_nil(errors.nearest("zzz", names))
    assert.is_nil(errors.nearest("x", names))
    assert.is_nil(errors.nearest(1, names))
  end)

  it("names the unknown option, whose it is, and the nearest or all valid ones", function()
    local names = { "connection_timeout", "retries" }
    assert.equal('unknown option "conection_timeout" of manager; did you mean "connection_timeout"?',
      errors.unknown_option("manager", "conection_timeout", names))
    assert.equal('unknown option "zzz" of manager; valid options: connection_timeout, retries',
      errors.unknown_option("manager", "zzz", names))
  end)
end)
