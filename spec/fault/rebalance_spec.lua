-- A rebalance job whose process is killed at every state of a move, and what `resume` and `rollback` make of it.
local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local moving = require("spec.support.moving")
local sandbox = require("spec.support.sandbox")

local KEYS = 600

-- After each of these the process ends; the names are the movers'.
local POINTS = { "planned:after-saved", "capturing:after-saved", "copying:after-saved", "catchup:after-saved",
  "fencing:before-saved", "fencing:after-saved", "fenced:after-saved", "verified:before-saved", "verified:after-saved",
  "merged:before-commit", "merged:after-commit", "flipped:before-saved", "flipped:after-saved" }

describe("a rebalance job that is killed #long", function()
  local cluster, four, before

  local function owners()
    return cluster:on(1, [[SELECT md5(string_agg(bucket || ' ' || shard_id, ',' ORDER BY bucket)) AS owners
      FROM lunashard_catalog.bucket]]).rows[1].owners
  end

  -- Each row exactly once, and where the map says.
  local function check(what)
    local rows = 0
    for i = 1, 4 do
      rows = rows + cluster:on(i, "SELECT count(*) AS n FROM users").rows[1].n
    end
    assert.equal(KEYS, rows, what)
    local verified = cli.run({ "cluster", "verify", "-c", four, "--exit-code" })
    assert.equal(0, verified.code, what .. ": " .. verified.stderr .. verified.stdout)
  end

  setup(function()
    cluster = moving.new({ shards = 4, strategy = "hash" })
    four = cluster:file(4)
    cluster:fill(3, 1, KEYS)
    cluster:init(3)
    before = owners()
  end)

  teardown(function()
    cluster:destroy()
    sandbox.release()
  end)

  for _, point in ipairs(POINTS) do
    it(("at %s is completed by resume and undone by rollback"):format(point), function()
      local killed = cli.run({ "run", "-c", four, "spec/support/job_process.lua", point })
      assert.equal(9, killed.signal, killed.stderr)
      local result = cli.run({ "rebalance", "resume", "-c", four, "--json" })
      assert.equal(0, result.code, result.stderr)
      assert.equal("completed", cjson.decode(result.stdout).status)
      check("after resume")
      result = cli.run({ "rebalance", "rollback", "-c", four, "--json" })
      assert.equal(0, result.code, result.stderr)
      assert.equal("rolled_back", cjson.decode(result.stdout).status)
      check("after rollback")
      assert.equal(before, owners())
      for i = 1, 4 do
        assert.same({ n = 0, m = 0 }, cluster:on(i, "SELECT count(*) AS n, (SELECT count(*) FROM lunashard.move) AS m "
          .. "FROM pg_trigger WHERE tgname LIKE 'lunashard%'").rows[1])
      end
    end)
  end
end)
