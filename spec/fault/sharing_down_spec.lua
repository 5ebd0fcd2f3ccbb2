local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

describe("statements that share connections to a server that is killed", function()
  setup(function()
    pools.start({})
    sharing.create()
  end)

  teardown(function()
    pools.stop()
  end)

  after_each(pools.close_all)

  -- Failures that a dead server causes.
  local function is_loss(err)
    return err.code == "UNKNOWN_OUTCOME" or err.code == "SHARD_DOWN" or err.sqlstate == "57P01" or err.sqlstate == "57P02"
      or err.sqlstate == "57P03"
  end

  -- Reads are repeated until they succeed, writes never.
  local function patient(pool)
    return function(sql, params, opts)
      local deadline = task.now() + 15
      while true do
        local result, err = pool:execute(sql, params, opts)
        if result or not is_loss(err) or not (opts and opts.read_only) or task.now() > deadline then
          return result, err
        end
        task.sleep(0.02)
      end
    end
  end

  for _, size in ipairs({ 1, 2, 4 }) do
    it(("end with their true outcome, and go on with the next server (%d)"):format(size), function()
      local pool = pools.open({ max_size = size })
      local neighbours = sharing.neighbours(pool, { n = 16, execute = patient(pool), may_fail = is_loss, pause = 0.002 })
      for _ = 1, 2 do
        neighbours:go_on(10)
        pools.private:kill("shard1")
        task.sleep(0.2)
        pools.private:start()
        neighbours:go_on(10)
      end
      neighbours:stop()
      assert.is_true(#neighbours.failures > 0)
    end)
  end
end)
