-- A router in a process of its own that stands still with work in its hands, and goes on with it when it is woken:
--     lunashard run -c CLUSTER spec/moves/router.lua HISTORY KEYS HOW
-- HOW is `unsent` (it stops itself when writes are routed and not sent), `unanswered` (somebody is to stop it), or `open`
-- (it stops itself in a transaction that has written and is to write again). What it was told is in the history, as
-- spec.chaos.history has it.
package.path = "./?.lua;" .. package.path
local history = require("spec.chaos.history")
local lunashard = require("lunashard")
local signals = require("lunashard.process").signals
local system = require("lunashard.core.system")

local path, keys, how = arg[1], tonumber(arg[2]), arg[3]
local router = rawget(_G, "router")
local writer = history.open(path, "router")

local WRITE = "UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version"
local INSERT = "INSERT INTO tokens (k, token) VALUES ($1, $2)"

local function stop()
  system.kill(system.getpid(), signals.STOP)
end

local function told(kind, what, fn)
  local id = writer:begin(kind, what)
  local outcome, err = fn()
  if outcome then
    outcome.ok = true
  end
  writer:finish(id, outcome or { code = err.code, message = tostring(err) })
end

local function write(key)
  local value = "router-" .. key
  told("write", { key = key, value = value }, function()
    local result, err = router:execute(WRITE, { key, value }, { routing_key = key })
    return result and { version = result.rows[1] and result.rows[1].version or -1 }, err
  end)
end

local function insert(key)
  local token = "router-" .. key
  told("insert", { key = key, token = token }, function()
    local result, err = router:execute(INSERT, { key, token }, { routing_key = key })
    return result and {}, err
  end)
end

local function transact(key)
  local value = "router-" .. key
  told("write", { key = key, value = value }, function()
    local version, err = router:transaction({ routing_key = key, retries = 5 }, function(tx)
      assert(tx:execute(INSERT, { key, value .. "-unnoted" }))
      assert(tx:execute("DELETE FROM tokens WHERE k = $1 AND token = $2", { key, value .. "-unnoted" }))
      if how == "open" then
        how = "woken"
        stop()
      end
      return assert(tx:execute(WRITE, { key, value })).rows[1].version
    end)
    return version and { version = version }, err
  end)
end

-- Until it needs no guards, and has its connections.
while router.manager.guarding do
  lunashard.sleep(0.01)
end
for key = 1, keys do
  assert(router:execute("SELECT FROM registers WHERE k = $1", { key }, { routing_key = key }))
end
local tasks = {}
for key = 1, how == "open" and 1 or keys do
  tasks[#tasks + 1] = lunashard.spawn(how == "open" and transact or key % 2 == 0 and write or insert, key)
end
if how == "unsent" then
  lunashard.spawn(stop)
end
for _, one in ipairs(tasks) do
  assert(one:join(60))
end
writer:close()
