local answers = require("lunashard.pool.answers")
local attempt = require("lunashard.router.attempt")
local checking = require("lunashard.router.checking")
local cluster = require("spec.support.cluster")
local extraction = require("lunashard.extraction")
local routing = require("lunashard.router.routing")
local util = require("jit.util")

-- The compiler refuses to end a function over whose locals another was closed, and to make that other one. A
-- single one on the way of a statement doubles what it costs.
describe("the way of a statement", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect()
  end)

  teardown(function()
    cluster.release()
  end)

  local function operations(fn)
    local list, pc = {}, 1
    while true do
      local instruction = util.funcbc(fn, pc)
      if not instruction then
        return list
      end
      list[pc], pc = instruction % 256, pc + 1
    end
  end

  local REFUSED = {}
  for _, operation in ipairs({ 1, 2 }) do -- FNEW and UCLO
    REFUSED[operations(function(a)
      return function()
        return a
      end
    end)[operation]] = true
  end

  local function locals_of(fn, found)
    found = found or {}
    local i = 1
    while true do
      local name, value = debug.getupvalue(fn, i)
      if not name then
        return found
      end
      found[name], i = value, i + 1
    end
  end

  it("makes no closure and ends none", function()
    local pool = manager.members[1].primary.pool
    for _, step in ipairs({
      { "router:execute", router.execute },
      { "router:execute_extracted", router.execute_extracted },
      { "checking.check", checking.check },
      { "extraction.plan", extraction.plan },
      { "routing.owner", routing.owner },
      { "router:run_on", router.run_on },
      { "run_plainly", locals_of(router.run_on).run_plainly },
      { "attempt.run", attempt.run },
      { "succeeded", locals_of(attempt.run).succeeded },
      { "statistics:record", router.statistics.record },
      { "statements:ended", router.statements.ended },
      { "pool:execute", pool.execute },
      { "the pool's run", locals_of(pool.execute).run },
      { "answers.request", answers.request },
      { "answers.result", answers.result },
    }) do
      assert.is_function(step[2], step[1])
      for pc, operation in ipairs(operations(step[2])) do
        assert.is_nil(REFUSED[operation], ("%s, instruction %d"):format(step[1], pc))
      end
    end
  end)
end)
