--- What people do to the databases of a chaos run while rows move, past Lunashard.
-- @module spec.chaos.meddling

local history = require("spec.chaos.history")
local lunashard = require("lunashard")
local pool = require("lunashard.pool")
local servers = require("spec.chaos.servers")

local meddling = {}

local PATIENCE = 60 -- seconds until something is given up
local MEMBERS = { "registers", "tokens", "accounts", "parents", "children", "extras", "sweeps" }

-- Do something on a connection of one's own to a shard's primary, as who owns the tables or as a superuser. What the
-- servers do meanwhile ends it, and that is all right.
local function on(run, number, is_superuser, fn)
  local server = servers.primary(run, number)
  local connections = pool.new({ host = server.host, port = server.port, database = server.database,
    user = is_superuser and server.superuser or server.user, max_size = 1, pipeline = false,
    password = is_superuser and server.superuser_password or server.password, application_name = "meddling" })
  local lease, err = connections:acquire(lunashard.now() + 5)
  local value
  if lease then
    value, err = fn(function(sql, params)
      return lease:execute(sql, params, { deadline = lunashard.now() + 20 })
    end)
    lease:release()
  end
  connections:close()
  return value, err
end

local function any(run, dice)
  return dice:int(1, #run.servers.shards)
end

-- A program that writes past the router. With a job open it is refused (LS003), also as a replication role; otherwise
-- what it says is true.
local function bypass(run, dice)
  local number, is_superuser, keys = any(run, dice), dice:chance(0.5), {}
  for i = 1, 40 do
    keys[i] = dice:int(1, run.options.keys)
  end
  return ("somebody writes to shard%d past the router%s"):format(number, is_superuser and " as a replica does" or ""),
    function()
      run.bypassed = (run.bypassed or 0) + 1
      local name = "bypass" .. run.bypassed
      local told, refused = history.open(run:add_history(name), name), 0
      on(run, number, is_superuser, function(ask)
        local _, err = ask(is_superuser and "SET session_replication_role = replica" or "SELECT 1")
        for i, key in ipairs(err and {} or keys) do
          local value = ("%s-%d"):format(name, i)
          local id = told:begin("write", { key = key, value = value })
          local result, problem = ask("UPDATE registers SET version = version + 1, value = $2 WHERE k = $1 RETURNING version",
            { key, value })
          local row = result and result.rows[1]
          refused = refused + (problem and problem.sqlstate == "LS003" and 1 or 0)
          told:finish(id, row and { ok = true, version = row.version }
            or { code = problem and not problem.sqlstate and "UNKNOWN_OUTCOME" or "NONE" })
          lunashard.sleep(0.02)
        end
        return true
      end)
      told:close()
      run:log(("%d of its writes were refused"):format(refused))
    end
end

local NOTED = [[
  SELECT count(*) AS n FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
   WHERE c.relname = $1 AND c.relnamespace = 'public'::regnamespace AND NOT tgisinternal]]

-- Whoever has rows noted must refuse what would be missed. It is rolled back where there is no job.
local function truncate(run, dice)
  local number, name = any(run, dice), dice:pick({ "tokens", "accounts", "sweeps", "extras" })
  return ("somebody truncates %s on shard%d"):format(name, number), function()
    local outcome = on(run, number, false, function(ask)
      if not ask("BEGIN") or not ask("SET LOCAL lock_timeout = '2s'") then
        return nil
      end
      local done, err = ask("TRUNCATE " .. name)
      local noted = done and ask(NOTED, { name })
      ask("ROLLBACK")
      if noted and noted.rows[1].n > 0 then
        run:complain("TRUNCATE %s was accepted while its rows were noted", name)
      end
      return done and "would be done" or err.sqlstate or err.code
    end)
    run:log("truncate: " .. tostring(outcome))
  end
end

local CHANGES = {
  { "ALTER TABLE %s ADD COLUMN IF NOT EXISTS later int DEFAULT 7", "ALTER TABLE %s DROP COLUMN IF EXISTS later" },
  { "CREATE INDEX IF NOT EXISTS %s_later ON %s (k, (1))", "DROP INDEX IF EXISTS %s_later" },
}

-- A change of a table's definition, on one shard after the other as all such changes are, and back again.
local function change(run, dice)
  local name, pauses, order = dice:pick(MEMBERS), {}, {}
  for i = 1, 2 * #run.servers.shards do
    pauses[i] = dice:real()
    order[i] = (i - 1) % #run.servers.shards + 1
  end
  local sql = dice:pick(CHANGES)
  return ("the definition of %s is changed"):format(name), function()
    for i, number in ipairs(order) do
      local one = sql[i <= #run.servers.shards and 1 or 2]:format(name, name)
      local until_then = lunashard.now() + PATIENCE
      while true do
        local done, err = on(run, number, false, function(ask)
          local ok, problem = ask("SET lock_timeout = '500ms'")
          if ok then
            ok, problem = ask(one)
          end
          return ok, problem
        end)
        if done then
          break
        elseif lunashard.now() > until_then then
          error(("%s on shard%d: %s"):format(one, number, tostring(err)), 0)
        end
        lunashard.sleep(0.1)
      end
      lunashard.sleep(pauses[i])
    end
  end
end

-- Somebody holds a lock, or looks at the rows as they were, and takes time.
local function linger(statements, longest)
  return function(run, dice)
    local number, pause = any(run, dice), dice:between(1, longest)
    local sql = dice:pick(statements)
    return ("%s stays open on shard%d for %.1f s"):format(sql, number, pause), function()
      on(run, number, false, function(ask)
        if ask(sql:find("^BEGIN") and sql:match("^[^;]*") or "BEGIN") then
          ask(sql:match(";%s*(.*)$") or sql)
          lunashard.sleep(pause)
        end
        return ask("ROLLBACK")
      end)
    end
  end
end

local long_transaction = linger({
  "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM tokens",
  "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM accounts",
  "BEGIN; SELECT count(*) FROM registers",
}, 12)

local held_lock = linger({
  "LOCK TABLE accounts IN SHARE ROW EXCLUSIVE MODE",
  "LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE",
  "SELECT count(*) FROM (SELECT FROM registers FOR UPDATE) AS r",
}, 10)

-- Whoever listens is cut off: news must not be needed.
local function deafen(run, dice)
  local times = dice:int(1, 5)
  return ("listeners are cut off %d times"):format(times), function()
    for _ = 1, times do
      for number = 1, #run.servers.shards do
        on(run, number, true, function(ask)
          return ask("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query ILIKE 'listen%' "
            .. "AND pid <> pg_backend_pid()")
        end)
      end
      lunashard.sleep(0.5)
    end
  end
end

-- Whoever moves loses the session that makes him the only one, and another one comes, with the first still there.
local function second_mover(run, dice)
  local before, after, stands_still = dice:between(0, 0.5), dice:between(0, 3), dice:chance(0.5)
  return ("a second mover comes, %.1f s after the first has lost its lock"):format(before), function()
    local first = run.mover
    if first and stands_still then
      first:signal("STOP")
    end
    on(run, 1, true, function(ask)
      return ask("SELECT count(pg_terminate_backend(pid)) FROM (SELECT DISTINCT pid FROM pg_locks WHERE locktype = 'advisory' "
        .. "AND mode = 'ExclusiveLock' AND granted) AS l WHERE pid <> pg_backend_pid()")
    end)
    lunashard.sleep(before)
    local second = run:spawn({ "rebalance", "resume", "-c", run.larger_file })
    lunashard.sleep(after)
    if first then
      first:signal("CONT")
    end
    local result = second:wait(300)
    run:log(("the second mover: %s %s"):format(result and tostring(result.code or result.signal) or "no end",
      result and result.stderr or ""))
  end
end

meddling.FAULTS = {
  bypass = { plan = bypass }, truncate = { plan = truncate }, change = { plan = change }, deafen = { plan = deafen },
  long_transaction = { plan = long_transaction }, held_lock = { plan = held_lock }, second_mover = { plan = second_mover },
}

return meddling
