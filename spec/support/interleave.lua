--- Statements of all kinds, at random, over few shared connections, and an oracle of what each may come to.
--
-- A *round* has one pool, many tasks that draw statements, perhaps a saboteur, and an account (`outcome`) of every
-- effect: what was acknowledged must be there as often as it was acknowledged, what was refused must not, and what
-- is unknown may be there once for each such answer. Rows encode their keys, errors carry a marker.
local core = require("lunashard.core.task")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")
local works = require("spec.support.interleave_works")

local random = math.random

local interleave = {}

local HANG = 30 -- no statement may take so long

local Round = {}
Round.__index = Round

--- What the statements need; after `sharing.create`.
function interleave.create()
  sharing.define([[
    CREATE TABLE sharing.ledger (kind text, id int8);
    CREATE INDEX ON sharing.ledger (id);
    CREATE FUNCTION sharing.enter(kind text, id int8) RETURNS int8 VOLATILE LANGUAGE plpgsql AS $$
      BEGIN INSERT INTO sharing.ledger VALUES (kind, id); RETURN id; END $$;
    CREATE FUNCTION sharing.enter_in_secret(kind text, id int8) RETURNS int8 STABLE LANGUAGE plpgsql AS $$
      BEGIN RETURN sharing.enter(kind, id); END $$;
    CREATE FUNCTION sharing.admit(id int8) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
      BEGIN PERFORM sharing.enter('guarded', id); RETURN true; END $$;
    CREATE VIEW sharing.entering AS SELECT id, sharing.enter('view', id) AS entered FROM sharing.item;
    CREATE FUNCTION sharing.new_object() RETURNS int8 STABLE LANGUAGE plpgsql AS $$
      BEGIN RETURN lo_create(0)::int8; END $$;
    CREATE FUNCTION sharing.ticket_in_secret() RETURNS int8 STABLE LANGUAGE plpgsql AS $$
      BEGIN RETURN (SELECT ticket FROM sharing.next_ticket); END $$;
    CREATE TABLE sharing.admitted (id int8 PRIMARY KEY);
    INSERT INTO sharing.admitted SELECT id FROM sharing.item;
    ALTER TABLE sharing.admitted ENABLE ROW LEVEL SECURITY;
    CREATE POLICY watched ON sharing.admitted USING (sharing.admit(id));
    CREATE TABLE sharing.occupied (id int8 PRIMARY KEY);
    INSERT INTO sharing.occupied SELECT id FROM sharing.item;
    CREATE TABLE sharing.late (id int8 UNIQUE DEFERRABLE INITIALLY DEFERRED);
    INSERT INTO sharing.late SELECT id FROM sharing.item]])
end

function Round:complain(...)
  self.complaints[#self.complaints + 1] = (...):format(select(2, ...))
end

-- ---- the account of effects ----------------------------------------------------------

-- How often an entry may be there: `least` to `most` times.
function Round:entry(kind, id)
  self.ledger[kind] = self.ledger[kind] or {}
  local entries = self.ledger[kind]
  entries[id] = entries[id] or { least = 0, most = 0 }
  return entries[id]
end

-- Failures that say nothing about the statement itself.
local GIVEN_UP = { TIMEOUT = true, POOL_EXHAUSTED = true }
local LOST = { UNKNOWN_OUTCOME = true, SHARD_DOWN = true }

-- Was this failure possible? `expected` is the SQLSTATE of a statement that must fail.
function Round:judge(what, err, expected, marker)
  self.answers = self.answers + 1
  local sqlstate = err.sqlstate
  if expected and sqlstate == expected then
    local text = err.message .. (err.detail or "")
    if marker and not text:find(marker, 1, true) then
      self:complain("%s: expected an error about %s, got: %s", what, marker, text)
    end
  elseif GIVEN_UP[err.code] then
    self.given_up = self.given_up + 1
  elseif self.sabotage and (LOST[err.code] or sqlstate == "57P01") then
    self.lost = self.lost + 1
  elseif self.sabotage and err.code == "SQL" and sqlstate == "57014" then
    self.cancelled = self.cancelled + 1
  else
    self:complain("%s: unexpected %s (%s, %s)", what, tostring(err), err.code, tostring(sqlstate))
  end
end

-- Run a statement that makes an entry, and note what it came to.
-- The entry may be there from now on, must be once acknowledged, and must not once refused.
function Round:effect(what, kind, id, sql, params, opts)
  local account = self:entry(kind, id)
  account.most = account.most + 1
  local result, err = self:execute(sql, params, opts)
  if result then
    self.answers = self.answers + 1
    account.least = account.least + 1
    return result
  end
  self:judge(what, err)
  if err.code ~= "UNKNOWN_OUTCOME" then
    account.most = account.most - 1
  end
end

function Round:execute(sql, params, opts)
  opts = opts or {}
  local die = random(20)
  if die == 1 then
    opts.deadline = task.now() + random() * 0.005
  elseif die <= 3 then
    opts.deadline = task.now() + random() * 0.1
  end
  local result, err = self.pool:execute(sql, params, opts)
  if self.ended and not self.sabotage then
    self:complain("an answer after the end")
  end
  return result, err
end

-- ---- tasks ----------------------------------------------------------------------------------

-- A task of its own for each statement, so that it can be cancelled.
local function worker(round)
  while task.now() < round.till do
    local name = works.draw()
    if random(12) > 1 then
      works.run[name](round)
    else
      local running = task.spawn(works.run[name], round):watch()
      task.sleep(random() * 0.01)
      running:cancel()
      local ok, err = running:join(HANG)
      if not ok and err.code == "TIMEOUT" then
        round:complain("%s hangs", name)
      elseif not ok and err.code ~= "CANCELED" then
        round:complain("%s raised %s", name, tostring(err))
      end
    end
    if random(10) == 1 then
      task.sleep(random() * 0.01)
    end
  end
end

local function saboteur(round)
  while task.now() < round.till do
    task.sleep(random() * 0.06)
    local what = random(3) == 1 and "pg_terminate_backend" or "pg_cancel_backend"
    local sql = "SELECT %s(pid) FROM pg_stat_activity WHERE usename = $1 AND (state = 'active' OR random() < 0.3)"
      .. " ORDER BY random() LIMIT 1"
    local hit = #pools.admin(sql:format(what), { pools.server.user })
    if what == "pg_cancel_backend" then
      round.cancels = round.cancels + hit
    end
  end
end

-- ---- the end of a round ------------------------------------------------------------------------

local function check_ledger(round)
  local there = {}
  for _, row in ipairs(pools.admin("SELECT kind, id, count(*) AS n FROM sharing.ledger GROUP BY kind, id")) do
    there[row.kind] = there[row.kind] or {}
    there[row.kind][row.id] = row.n
    if not round.ledger[row.kind] or not round.ledger[row.kind][row.id] then
      round:complain("%s %d: there %d times, by nobody", row.kind, row.id, row.n)
    end
  end
  for kind, entries in pairs(round.ledger) do
    for id, account in pairs(entries) do
      local n = there[kind] and there[kind][id] or 0
      if n < account.least or n > account.most then
        round:complain("%s %d: there %d times, expected %d to %d", kind, id, n, account.least, account.most)
      end
    end
  end
  for _, row in ipairs(pools.admin("SELECT id, n FROM sharing.counter")) do
    local counter = round.counters[row.id]
    if row.n < counter.least or row.n > counter.most then
      round:complain("counter %d: %d, expected %d to %d", row.id, row.n, counter.least, counter.most)
    end
  end
  local drawn = pools.admin("SELECT last_value AS n FROM sharing.ticket")[1].n - 1
  if drawn < round.tickets or drawn > round.draws then
    round:complain("%d tickets are gone, %d were given to somebody, %d were asked for", drawn, round.tickets, round.draws)
  end
  local objects = pools.admin("SELECT oid::int8 AS oid FROM pg_largeobject_metadata")
  local exists = {}
  for _, row in ipairs(objects) do
    exists[row.oid] = true
  end
  for _, oid in ipairs(round.objects) do
    if not exists[oid] then
      round:complain("object %d was made, they said, and is not there", oid)
    end
  end
  if #objects > round.asked_for_objects then
    round:complain("%d objects are there, %d were asked for", #objects, round.asked_for_objects)
  end
  if round.cancelled > round.cancels then
    round:complain("%d statements were cancelled by %d cancels", round.cancelled, round.cancels)
  end
end

-- Before each round nothing is there, and after it nothing is left.
local function prepare(round)
  assert(pools.as_admin():execute([[
    TRUNCATE sharing.ledger, sharing.log;
    UPDATE sharing.counter SET n = 0;
    SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
    SELECT setval('sharing.ticket', 1, true)]], nil, { simple = true }))
  for id = 1, sharing.COUNTERS do
    round.counters[id] = { least = 0, most = 0 }
  end
  round.work_mem = pools.admin("SELECT current_setting('work_mem') AS v")[1].v
end

--- One round. Yields.
-- @tparam table options `seconds`, `tasks`, `sabotage`, and `pool`: options of its pool
-- @treturn {string,...} complaints
-- @treturn table counts: `answers`, `given_up`, `lost`, `cancelled`, `shared`, `batched`
function interleave.round(options)
  local round = setmetatable({
    complaints = {}, counters = {}, drawn = {}, sabotage = options.sabotage,
    ledger = {}, objects = {}, asked_for_objects = 0, first_failures = 0,
    answers = 0, given_up = 0, lost = 0, cancelled = 0, cancels = 0, tickets = 0, draws = 0,
  }, Round)
  prepare(round)
  local before = core.counts()
  round.pool = pools.open(options.pool)
  works.warm_up(round)
  round.till = task.now() + options.seconds
  local tasks = {}
  for i = 1, options.tasks do
    tasks[i] = task.spawn(worker, round):watch()
  end
  if options.sabotage then
    tasks[#tasks + 1] = task.spawn(saboteur, round):watch()
  end
  for _, one in ipairs(tasks) do
    local ok, err = one:join(round.till - task.now() + HANG)
    if not ok then
      round:complain("a task %s: %s", err.code == "TIMEOUT" and "hangs" or "raised", tostring(err))
      one:cancel()
    end
  end
  pools.wait_until("the pool is at rest", function()
    local stats = round.pool:stats()
    return stats.waiting == 0 and stats.connecting == 0 and stats.used <= stats.lanes
  end)
  local shared, batched = sharing.counts(round.pool)
  round.pool:close()
  pools.wait_until("no session is left", function()
    return pools.sessions() == 0
  end)
  check_ledger(round)
  pools.wait_until("no operation is left", function()
    return core.counts().ops <= before.ops and core.counts().tasks <= before.tasks
  end)
  return round.complaints, {
    answers = round.answers, given_up = round.given_up, lost = round.lost, cancelled = round.cancelled,
    shared = shared, batched = batched,
  }
end

return interleave
