local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local moves = require("spec.support.moves")
local task = require("lunashard.task")

local KEYS, MOVES = 12, tonumber(os.getenv("LUNASHARD_MOVES")) or 8
local ADD = "UPDATE moving SET v = v + 1 WHERE k = $1"
local LEVELS = { "read committed", "repeatable read", "serializable" }

-- Guards come and go, and buckets move, under routers that count what they were told.
describe("statements of several routers while buckets move", function()
  local mover, acknowledged, complaints

  setup(function()
    mover = moves.install()
  end)

  teardown(function()
    cluster.close_all()
    moves.remove()
    cluster.release()
  end)

  local function complain(format, ...)
    complaints[#complaints + 1] = format:format(...)
  end

  local function added(key, result, err)
    if result then
      acknowledged[key] = acknowledged[key] + 1
    else
      complain("a write of key %d failed: %s", key, tostring(err))
    end
  end

  local WORKS = {}

  function WORKS.write(router, key)
    added(key, router:execute(ADD, { key }, { routing_key = key }))
  end

  function WORKS.write_extracted(router, key)
    added(key, router:execute(ADD, { key }))
  end

  function WORKS.write_many(router, key)
    added(key, router:execute_many(ADD, { { key } }, { key = 1 }))
  end

  function WORKS.transaction(router, key)
    local opts = { routing_key = key, retries = 20, isolation = LEVELS[math.random(#LEVELS)] }
    added(key, router:transaction(opts, function(tx)
      local found, err = tx:execute("SELECT v FROM moving WHERE k = $1", { key })
      if not found then
        return nil, err
      elseif #found.rows ~= 1 then
        return nil, errors.new("INVALID", { message = ("%d rows of key %d"):format(#found.rows, key) })
      end
      return tx:execute(ADD, { key })
    end))
  end

  function WORKS.read(router, key)
    local before = acknowledged[key]
    local found, err = router:execute("SELECT v FROM moving WHERE k = $1", { key })
    if not found or #found.rows ~= 1 then
      complain("key %d: %s", key, found and #found.rows .. " rows" or tostring(err))
    elseif found.rows[1].v < before then
      complain("key %d: %d was read after %d writes", key, found.rows[1].v, before)
    end
  end

  function WORKS.scatter(router)
    local found, err = router:scatter_gather("SELECT count(*) AS c FROM moving")
    if not found or found.rows[1].c ~= KEYS then
      complain("%s of %d rows", found and found.rows[1].c or tostring(err), KEYS)
    end
  end

  it("are all done once, and see every row once", function()
    local names, tasks, stop = {}, {}, false
    acknowledged, complaints = {}, {}
    for name in pairs(WORKS) do
      names[#names + 1] = name
    end
    for i = 1, 2 do
      local router = moves.connect()
      for key = 1, i == 1 and KEYS or 0 do
        acknowledged[key] = 0
        assert(router:execute("INSERT INTO moving (k, n) VALUES ($1, 1)", { key }))
      end
      for n = 1, 4 do
        tasks[#tasks + 1] = task.spawn(function()
          while not stop do
            WORKS[names[math.random(#names)]](router, math.random(KEYS))
          end
          return n
        end)
      end
    end
    for _ = 1, 2 do
      assert(moves.open_guards(mover))
      moves.arm(mover)
      for _ = 1, MOVES / 2 do
        moves.new(mover, math.random(KEYS)):run()
      end
      moves.disarm(mover)
      moves.close_guards(mover)
    end
    stop = true
    for _, one in ipairs(tasks) do
      assert(one:join(20))
    end
    for key = 1, KEYS do
      local sum = 0
      for _, member in ipairs(mover.members) do
        for _, row in ipairs(assert(member.primary.pool:execute("SELECT v FROM moving WHERE k = $1", { key })).rows) do
          sum = sum + row.v
        end
      end
      if sum ~= acknowledged[key] then
        complain("key %d has %d, %d writes were acknowledged", key, sum, acknowledged[key])
      end
    end
    assert.same({}, complaints)
    assert.same({}, moves.misplaced(mover))
  end)
end)
