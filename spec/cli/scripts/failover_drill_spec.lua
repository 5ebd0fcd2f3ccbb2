local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

describe("scripts/failover_drill.lua", function()
  local own, cluster, name

  setup(function()
    own = sandbox.start({ shards = 1, replicas = 1 })
    -- Acknowledged is what the replica has, too: a drill that loses rows would be right to fail.
    cluster = cli.write(cli.directory(), "cluster.lua", ([[
      local options = dofile(%q)
      options.shards[1].passfile, options.shards[1].replicas[1].passfile = %q, %q
      options.health_check_interval, options.health_check_timeout = 0.3, 1
      return options]]):format(own.cluster_file, own.passfile, own.passfile))
    name = dofile(own.cluster_file).name
  end)

  teardown(function()
    own:destroy()
    scripts.release()
  end)

  local function drill(...)
    return scripts.run("failover_drill", { "--shard", "shard1", "--writers", "2", "--before", "0.2", ... }, { cluster = cluster })
  end

  local function command(text)
    return (text:gsub("SANDBOX", ("'%s' sandbox"):format(cli.binary)):gsub("HERE", "--name " .. own.place.name))
  end

  it("tells how long writes were refused, who took over, and that every answer was true", function()
    local switch = command("SANDBOX demote HERE shard1 && SANDBOX promote HERE shard1_replica1")
    local result = drill("--json", "--yes", name, "--break", switch, "--repair", command("SANDBOX rejoin HERE shard1"))
    assert.equal(0, result.code, result.stderr)
    local found = {}
    for _, row in ipairs(result.json.result.drill) do
      found[row.what] = row.value
    end
    assert.not_equal(found["primary before"], found["primary after"])
    assert.is_true(found["writes acknowledged"] > 0 and found["writes refused"] > 0 and found["reads"] > 0)
    assert.same({ 0, 0 }, { found["and lost"], found["but there"] })
    assert.is_true(found["longest gap between writes, s"] > 0.05)
    local router, manager = scripts.connect(cluster)
    assert.equal(0, assert(router:execute("SELECT 1 FROM pg_tables WHERE tablename LIKE 'lunashard_drill%'", nil,
      { shard_id = "shard1" })).row_count)
    manager:shutdown()
  end)

  it("does nothing in a dry run, without the cluster's name, or with a shard that there is not", function()
    local dry = drill("--break", "echo broken >&2; exit 1", "--dry-run")
    assert.equal(0, dry.code, dry.stderr)
    assert.matches("3%. echo broken", dry.stderr)
    local refused = drill("--break", "true")
    assert.equal(2, refused.code)
    assert.matches("this would break the primary of a shard", refused.stderr)
    local missing = scripts.run("failover_drill", { "--shard", "shard9", "--break", "true", "--yes", name },
      { cluster = cluster })
    assert.equal(1, missing.code)
    assert.matches("there is no shard shard9", missing.stderr)
  end)

  it("ends with 1 when a command fails, or the shard does not come back in time", function()
    local failed = drill("--yes", name, "--break", "echo no such server >&2; exit 7")
    assert.equal(1, failed.code)
    assert.matches("%-%-break ended with exit code 7: no such server", failed.stderr)
    local gone = drill("--yes", name, "--timeout", "2", "--break",
      ("kill -9 $(head -qn 1 '%s'/data/*/postmaster.pid)"):format(own.dir))
    assert.equal(1, gone.code)
    assert.matches("no write to shard1 was acknowledged within 2 s of the break", gone.stderr)
  end)
end)
