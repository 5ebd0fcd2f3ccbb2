local interleave = require("spec.support.interleave")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

-- Statements that fail, are slow, cancelled, timed out, or write in secret, and good ones, at random over one to
-- three connections: every answer, error and effect must be that of its own statement, exactly once.
-- LUNASHARD_SEED makes the same choices again; LUNASHARD_LONG=seconds makes each of the three run for so long.
describe("statements interleaved on shared connections", function()
  local LONG = tonumber(os.getenv("LUNASHARD_LONG"))
  local SEED = tonumber(os.getenv("LUNASHARD_SEED") or os.time() % 1000000)
  local ROUND = 1 -- seconds

  setup(function()
    pools.start()
    sharing.create()
    interleave.create()
  end)

  teardown(function()
    sharing.drop()
    pools.stop()
  end)

  after_each(pools.close_all)

  -- Rounds for so many seconds, each with a pool of another shape.
  local function run(seconds, options)
    math.randomseed(SEED)
    local total, till = {}, task.now() + (LONG or seconds)
    local n = 0
    repeat
      n = n + 1
      local pool = {
        max_size = (n - 1) % 3 + 1,
        statement_cache = math.random(3) == 1 and math.random(0, 12) or nil,
        read_batches = n % 4 > 0, -- not in every fourth
        pipeline = options.pipeline,
      }
      local complaints, counts = interleave.round({
        seconds = ROUND, tasks = math.random(20, 100), sabotage = options.sabotage, pool = pool,
      })
      if #complaints > 0 then
        error(("seed %d, round %d, max_size %d, statement_cache %s, read_batches %s: %d complaints, first of all:\n%s"):format(
          SEED, n, pool.max_size, tostring(pool.statement_cache), tostring(pool.read_batches), #complaints,
          table.concat(complaints, "\n", 1, math.min(#complaints, 8))))
      end
      for name, count in pairs(counts) do
        total[name] = (total[name] or 0) + count
      end
    until task.now() >= till
    assert.is_true(total.answers > 100 * n, total.answers .. " answers")
    assert.is_true(total.given_up > 0)
    return total
  end

  it(("are each answered rightly and done once (seed %d)"):format(SEED), function()
    local total = run(4, {})
    local said = ("%d answers, %d shared, %d batched"):format(total.answers, total.shared, total.batched)
    assert.is_true(total.shared > total.answers / 4 and total.batched > total.answers / 10, said)
  end)

  it(("also while somebody cancels statements and ends sessions (seed %d)"):format(SEED), function()
    local total = run(3, { sabotage = true })
    assert.is_true(total.lost > 0)
  end)

  it(("as they are without shared connections (seed %d)"):format(SEED), function()
    local total = run(2, { pipeline = false })
    assert.equal(0, total.shared)
  end)
end)
