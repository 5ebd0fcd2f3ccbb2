local cli = require("spec.support.cli")
local lunashard = require("lunashard")
local pool = require("lunashard.pool")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")

describe("scripts/drain_replica.lua", function()
  local own, cluster, replica, address, pools

  local function connect(server, user)
    local one = pool.new({ shard_id = "shard1", host = server.host, port = server.port, database = server.database,
      user = user or server.user, password = user and server.superuser_password or server.password, pipeline = false,
      application_name = "ops_reader" })
    pools[#pools + 1] = one
    return one
  end

  setup(function()
    own = sandbox.start({ shards = 1, replicas = 1 })
    replica = own.shards[1].replicas[1]
    address = ("%s:%d"):format(replica.host, replica.port)
    -- As it is when the replica was taken out.
    cluster = cli.write(cli.directory(), "cluster.lua", ([[
      local options = dofile(%q)
      for _, shard in ipairs(options.shards) do
        shard.replicas, shard.passfile = nil, %q
      end
      return options]]):format(own.cluster_file, own.passfile))
  end)

  before_each(function()
    pools = {}
  end)

  after_each(function()
    for _, one in ipairs(pools) do
      one:close()
    end
  end)

  teardown(function()
    own:destroy()
    scripts.release()
  end)

  local function drain(arguments, path)
    return scripts.run("drain_replica", arguments, { cluster = path or cluster })
  end

  it("ends sessions that do nothing, waits for one that works, and then says that the server may be stopped", function()
    local idle, busy = connect(replica), connect(replica)
    assert(idle:execute("SELECT 1"))
    local work = lunashard.spawn(function()
      return busy:execute("SELECT pg_sleep(1.5), 'done' AS word")
    end)
    cli.wait_until("it works", function()
      return busy:stats().used == 1
    end)
    local dry = drain({ address, "--shard", "shard1", "--dry-run", "--json" })
    assert.equal(0, dry.code, dry.stderr)
    assert.is_true(#dry.json.result.sessions >= 2)
    local result = drain({ address, "--shard", "shard1", "--grace", "0", "--json" })
    assert.equal(0, result.code, result.stderr)
    local _, answer = work:join(10)
    assert.equal("done", answer.rows[1].word)
    assert.is_true(result.json.shards[1].detail.ended >= 1)
    assert.matches("no other replica of shard1 is well: its reads go to the primary", result.stderr)
    assert.equal("stop the server at " .. address, result.json.next)
  end)

  it("gives up a session that goes on working, or ends it when it was told to", function()
    local busy = connect(replica)
    local work = lunashard.spawn(function()
      return { busy:execute("SELECT pg_sleep(60)") }
    end)
    cli.wait_until("it works", function()
      return busy:stats().used == 1
    end)
    local result = drain({ address, "--shard", "shard1", "--grace", "0", "--timeout", "0.3" })
    assert.equal(1, result.code)
    assert.matches("1 session is there still after 0.3 s", result.stderr)
    assert.matches("ops_reader.*pg_sleep", result.stdout)
    assert.equal(0, drain({ address, "--shard", "shard1", "--grace", "0", "--timeout", "0.3", "--terminate" }).code)
    local _, answer = work:join(10)
    assert.equal("57P01", answer[2].sqlstate)
  end)

  it("refuses a replica that commits wait for, a primary, one that is listed still, and one that is not there", function()
    local primary = own.shards[1]
    local admin = connect(primary, primary.superuser)
    assert(admin:execute("ALTER SYSTEM SET synchronous_standby_names = '*'", nil, { simple = true }))
    assert(admin:execute("SELECT pg_reload_conf()"))
    cli.wait_until("it is synchronous", function()
      return assert(admin:execute("SELECT sync_state FROM pg_stat_replication")).rows[1].sync_state == "sync"
    end)
    local refused = drain({ address, "--shard", "shard1" })
    assert(admin:execute("ALTER SYSTEM RESET synchronous_standby_names", nil, { simple = true }))
    assert(admin:execute("SELECT pg_reload_conf()"))
    assert.equal(2, refused.code)
    assert.matches("commits on shard1 wait for this replica", refused.stderr)

    local listed = drain({ address }, own.cluster_file)
    assert.equal(2, listed.code)
    assert.matches("is in the cluster file: take it out", listed.stderr)
    local wrong = drain({ ("%s:%d"):format(primary.host, primary.port) })
    assert.equal(2, wrong.code)
    assert.matches("is the primary of shard1: promote a replica first", wrong.stderr)
    local gone = drain({ "127.0.0.1:1", "--shard", "shard1" })
    assert.equal(1, gone.code)
    assert.matches("SHARD_DOWN: cannot connect", gone.stderr)
    local unknown = drain({ "127.0.0.1:1" })
    assert.equal(2, unknown.code)
    assert.matches("is not in the cluster file; say with %-%-shard", unknown.stderr)
  end)
end)
