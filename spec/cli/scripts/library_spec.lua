local cli = require("spec.support.cli")
local pty = require("spec.support.pty")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

-- A script of a user's, which does whatever its argument says.
local OWN = [[
local lunashard = require("lunashard")
local script = require("lunashard.script")
return script.main({
  summary = "what this spec needs",
  writes = "turn the world upside down", lock = "spec_own", shards = true, differences = true,
  arguments = function(parser) parser:argument("what", "to do"):args("?") end,
  run = function(job)
    local what = job.args.what
    if what == "bug" then
      local nothing
      return nothing.field
    elseif what == "fail" then
      return nil, lunashard.errors.new("TIMEOUT", { message = "too late" })
    elseif what == "wait" then
      job:say("waiting")
      lunashard.sleep(60)
    elseif what == "count" then
      local progress = job:progress("counting", 30, "sheep")
      for _ = 1, 30 do
        progress:add()
        lunashard.sleep(0.02)
      end
      progress:finish()
    end
    job:each_shard(function(shard)
      local name = shard:rows("SELECT current_database() AS name")[1].name
      if what == "refuse" and shard.number == 2 then
        return nil, lunashard.errors.new("INVALID", { message = "not with me" })
      end
      return job.dry_run and "ok" or "changed", { database = name }
    end, { parallel = 1, stop_on_error = what == "refuse" })
    job:difference(what == "differ" and 1 or 0)
    job:next("lunashard status")
    return job:table("rows", { "n" }, { { n = 2^53 + 2 }, { n = 9007199254740993LL } })
  end,
})
]]

describe("lunashard.script", function()
  local own

  setup(function()
    own = cli.write(cli.directory(), "own.lua", OWN)
  end)

  teardown(scripts.release)

  local function run(...)
    return scripts.run(own, { ... })
  end

  it("puts rows on stdout, and what became of each shard and what to type next on stderr", function()
    local result = run()
    assert.equal(0, result.code, result.stderr)
    assert.equal("        n\n------------------\n 9007199254740994\n 9007199254740993\n", result.stdout)
    assert.matches("own: 3 shards changed\nlunashard: own: next: lunashard status\n$", result.stderr)
  end)

  it("says all of it in one object with --json, no digit lost", function()
    local document = run("--json", "--shard", "shard2", "--dry-run").json
    assert.is_true(document.ok and document.dry_run)
    assert.same({ { shard_id = "shard2", state = "ok", detail = { database = "app_shard2" } } }, document.shards)
    assert.equal("9007199254740993", document.result.rows[2].n)
    assert.equal(1, document.counts.ok)
  end)

  it("ends with 4 when some shards failed, and passes over the rest when it was told to", function()
    local result = run("refuse")
    assert.equal(4, result.code)
    assert.matches("shard2 failed: INVALID: not with me\n", result.stderr)
    assert.matches("1 shard changed, 1 failed, 1 skipped\n", result.stderr)
  end)

  it("calls a shard that is down unreachable, and goes on with the others", function()
    local result = scripts.run(own, { "--json" }, { cluster = scripts.cluster_file({ down = 3 }) })
    assert.equal(4, result.code)
    assert.same({ 2, 1 }, { result.json.counts.changed, result.json.counts.unreachable })
    assert.equal("SHARD_DOWN", result.json.shards[3].error.code)
  end)

  it("ends with 1 and one line for a failure, with a traceback for a mistake, each in JSON as well", function()
    local failed = run("fail", "--json")
    assert.same({ 1, "TIMEOUT" }, { failed.code, failed.json.error.code })
    assert.matches("own: TIMEOUT: too late\n", failed.stderr)
    local bug = run("bug")
    assert.equal(1, bug.code)
    assert.matches("attempt to index local 'nothing'", bug.stderr)
  end)

  it("ends with 2 for a wrong command line, naming what was meant", function()
    for arguments, message in pairs({
      ["--jsn"] = "unknown option '%-%-jsn'; did you mean '%-%-json'",
      ["--shard=shrd1"] = 'there is no shard shrd1, did you mean "shard1"',
      ["--yes=other"] = '%-%-yes names "other", but this is the cluster',
    }) do
      local result = run(arguments)
      assert.equal(2, result.code, result.stderr)
      assert.matches(message, result.stderr)
      assert.equal("", result.stdout)
    end
    local without = cli.run({ "run", own, "--json" })
    assert.equal(2, without.code)
    assert.matches('"message":"give the cluster\'s file with %-c or LUNASHARD_CLUSTER"', without.stdout)
  end)

  it("ends with 3 for differences, but only when it is asked to", function()
    assert.equal(0, run("differ").code)
    assert.equal(3, run("differ", "--exit-code").code)
  end)

  it("shows its help without a cluster", function()
    local result = cli.run({ "run", own, "--help" })
    assert.equal(0, result.code)
    assert.matches("Usage: lunashard run .*own%.lua.*what this spec needs", result.stdout)
    assert.equal("", result.stderr)
  end)

  it("ends with 1 when its output cannot be written", function()
    local command = ('"$0" run -c "$1" "$2" %s >/dev/full')
    for _, option in ipairs({ "", "--json" }) do
      local argv = { "sh", "-c", command:format(option), cli.binary, sandbox.shared().cluster_file, own }
      local result = cli.run({}, { argv = argv })
      assert.equal(1, result.code, result.stderr)
      assert.matches("own: .*cannot write to stdout: No space left on device", result.stderr)
    end
  end)

  it("lets one run at a time have the lock, and lets go of it when it is interrupted", function()
    local first = scripts.run(own, { "wait" }, { spawn = true })
    cli.wait_until("it waits", function()
      return select(2, first:output()):find("own: waiting", 1, true)
    end)
    local second = run("--json")
    assert.same({ 5, "LOCK_HELD" }, { second.code, second.json.error.code })
    assert.equal(0, run("--lock", "another").code)
    first:signal("INT")
    local ended = assert(first:wait(20))
    assert.equal(130, ended.code)
    assert.matches("own: interrupted\n", ended.stderr)
    assert.equal(0, run().code)
  end)

  it("wants the name of a production cluster, unless nothing is changed", function()
    local cluster = scripts.cluster_file({ lines = 'name = "shop", environment = "production"' })
    local refused = scripts.run(own, {}, { cluster = cluster })
    assert.equal(2, refused.code)
    assert.matches('this would turn the world upside down on the production cluster "shop": say so with %-%-yes shop',
      refused.stderr)
    assert.equal(0, scripts.run(own, { "--dry-run" }, { cluster = cluster }).code)
    assert.equal(0, scripts.run(own, { "--yes", "shop" }, { cluster = cluster }).code)
  end)

  it("gives a program that has other things to do an error, and does not end it", function()
    local host = cli.write(cli.directory(), "host.lua", ([[
      arg = nil -- as it is where nobody gave arguments, such as in a job of `lunashard serve`
      local script = require("lunashard.script")
      local done, err = script.main({ summary = "fails", run = function() return nil, "too bad" end })
      print(done, err.message, script.main({ summary = "works", run = function() return true end }))
    ]]))
    local result = scripts.run(host)
    assert.equal(0, result.code, result.stderr)
    assert.equal("nil\tscript ended with exit code 1\ttrue\n", result.stdout)
    assert.matches("script: too bad\n", result.stderr)
  end)

  it("draws a bar on a terminal and clears it away, and writes lines elsewhere", function()
    local terminal = pty.lunashard({ "run", "-c", sandbox.shared().cluster_file, own, "count" })
    terminal:expect("] ")
    terminal:expect("of 30 sheep")
    assert.equal(0, terminal:wait())
    terminal:see("lunashard: own: counting: 30 sheep in ")
    assert.is_nil(terminal.view:text():find("###", 1, true))
    assert.is_true(terminal:is_sane())
    terminal:close()
    local plain = run("count")
    assert.matches("own: counting: 30 sheep in %d", plain.stderr)
    assert.is_nil(plain.stderr:find("\27", 1, true))
  end)
end)
