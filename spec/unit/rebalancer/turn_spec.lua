local lunashard = require("lunashard")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")

describe("the turn for a cutover", function()
  it("is one move's at a time on each shard, whether it leaves or comes", function()
    local manager, at_work, most, done, tasks = {}, {}, 0, 0, {}
    for _, ids in ipairs({ { "a", "b" }, { "b", "a" }, { "b", "c" }, { "c", "a" }, { "a", "c" }, { "d", "b" } }) do
      tasks[#tasks + 1] = lunashard.spawn(function()
        local release = turn.take(manager, ids)
        for _, id in ipairs(ids) do
          at_work[id] = (at_work[id] or 0) + 1
          most = math.max(most, at_work[id])
        end
        task.sleep(0)
        for _, id in ipairs(ids) do
          at_work[id] = at_work[id] - 1
        end
        release()
        release() -- does nothing
        done = done + 1
      end)
    end
    for _, one in ipairs(tasks) do
      assert(one:join(10))
    end
    assert.same({ 6, 1 }, { done, most })
  end)

  it("lets others begin nothing until its first end, and not for long", function()
    local manager, told = {}, {}
    local context = { manager = manager, options = { strategy = "live_migration" } }
    turn.give_way(context)
    local release = turn.take(manager, { "a", "b" })
    local waiting = lunashard.spawn(function()
      turn.give_way(context)
      told[#told + 1] = "gave way"
    end)
    turn.give_way({ manager = manager, options = { strategy = "offline" } })
    task.sleep(0.01)
    assert.same({}, told)
    release("b")
    assert(waiting:join(5))
    release()
    turn.give_way(context)
    assert.same({ "gave way" }, told)

    release = turn.take(manager, { "a" })
    local began = task.now()
    turn.give_way(context)
    assert.is_true(task.now() - began >= 0.1)
    release()
  end)

  it("is given back by who is cancelled while it waits for it", function()
    local manager = {}
    local release = turn.take(manager, { "b" })
    local waiting = lunashard.spawn(function()
      turn.take(manager, { "a", "b" })
    end):watch()
    task.sleep(0)
    waiting:cancel()
    pcall(waiting.join, waiting, 5)
    turn.take(manager, { "a" })()
    release()
    turn.take(manager, { "a", "b" })()
  end)
end)
