-- A process that reads and writes users at a steady rate until a file appears, and then says what it did:
-- `lunashard run -c cluster.lua spec/support/load_process.lua NUMBER OF KEYS RATE STOP_FILE`. Of the keys it has those that
-- leave NUMBER when they are divided by OF; nobody else writes these.
local cjson = require("cjson.safe")
local lunashard = require("lunashard")
local system = require("lunashard.core.system")

local number, of, keys, rate = tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])
local stop_file = arg[5]

local TASKS = 32
local TIMEOUT = 30 -- seconds; nothing may fail

local router = rawget(_G, "router")
local done = { reads = 0, writes = 0, scatters = 0, added = {}, steps = {}, failures = {}, seconds = 0 }
local next_key = keys + (number - keys) % of

local function fail(what, key, result, err)
  table.insert(done.failures, ("%s of %s: %s"):format(what, tostring(key),
    tostring(err or result.row_count .. " rows")))
end

local function options(key)
  return { routing_key = key, table = "users", timeout = TIMEOUT }
end

local function add()
  next_key = next_key + of
  local key = next_key
  local result, err = router:execute("INSERT INTO users (user_id, name) VALUES ($1, 'new')", { key }, options(key))
  if not result then
    return fail("insert", key, result, err)
  end
  done.added[#done.added + 1], done.writes = key, done.writes + 1
end

local function step(key)
  local result, err = router:execute("UPDATE users SET n = n + 1 WHERE user_id = $1", { key }, options(key))
  if not result or result.row_count ~= 1 then
    return fail("update", key, result, err)
  end
  local name = tostring(key)
  done.steps[name], done.writes = (done.steps[name] or 0) + 1, done.writes + 1
end

local function read(key)
  local before = done.steps[tostring(key)] or 0
  local result, err = router:execute("SELECT n FROM users WHERE user_id = $1", { key }, options(key))
  if not result or result.row_count ~= 1 or result.rows[1].n < before then
    return fail("read", key, result, err or result and result.rows[1] and ("%d after %d"):format(result.rows[1].n, before))
  end
  done.reads = done.reads + 1
end

local function count_all()
  local result, err = router:execute("SELECT count(*) AS n FROM orders", nil, { timeout = TIMEOUT })
  if not result or result.rows[1].n ~= keys then
    return fail("count", "all", result, err or result and result.rows[1].n .. " rows")
  end
  done.scatters = done.scatters + 1
end

local stopped = false
local started = lunashard.now()
local tasks = {}
for i = 1, TASKS do
  tasks[i] = lunashard.spawn(function()
    local at = lunashard.now() + math.random() * TASKS / rate
    while not stopped do
      local key = math.random(0, math.floor(keys / of) - 1) * of + number
      key = key == 0 and of or key
      local dice = math.random()
      if dice < 0.5 then
        read(key)
      elseif dice < 0.8 then
        step(key)
      else
        add()
      end
      at = at + TASKS / rate -- what was missed while keys were closed is made up for
      lunashard.sleep(math.max(0, at - lunashard.now()))
    end
  end)
end
print("ready")
io.stdout:flush()
while not system.stat(stop_file) do
  count_all()
  lunashard.sleep(0.5)
end
stopped = true
for _, one in ipairs(tasks) do
  assert(one:join(2 * TIMEOUT))
end
done.seconds = lunashard.now() - started
print(cjson.encode(done))
