--- Statements of all kinds, at random, over few shared connections, and an oracle of what each may come to.
--
-- A *round* has one pool, many tasks that draw statements, perhaps a saboteur, and an account (`outcome`) of every
-- effect: what was acknowledged must be there as often as it was acknowledged, what was refused must not, and what
-- is unknown may be there once for each such answer. Rows encode their keys, errors carry a marker.
local core = require("lunashard.core.task")
local pools = require("spec.support.pools")
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

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
local function entry(round, kind, id)
  local entries = round.ledger[kind]
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
  local account = entry(self, kind, id)
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

-- ---- what tasks do ----------------------------------------------------------------------

local works = {}

-- A good read: its row says whether it is the right one.
local function expect_item(round, what, id, result, err)
  if not result then
    round:judge(what, err)
    return
  end
  round.answers = round.answers + 1
  local row = result.rows[1]
  if #result.rows ~= 1 or row.v ~= id * 7 + 3 or (row.id and row.id ~= id) then
    round:complain("%s of %d: got %s", what, id, row and tostring(row.v) or "nothing")
  end
end

function works.read(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "read", id, round:execute(sharing.READ, { id }, { read_only = random(2) == 1 }))
end

function works.read_several(round)
  local from = random(sharing.ITEMS - 20)
  local result, err = round:execute("SELECT id, v FROM sharing.item WHERE id BETWEEN $1 AND $1 + 19 ORDER BY id", { from })
  if not result then
    round:judge("read of several", err)
    return
  end
  round.answers = round.answers + 1
  for i = 1, 20 do
    if not result.rows[i] or result.rows[i].v ~= (from + i - 1) * 7 + 3 then
      round:complain("read of several from %d: row %d is wrong", from, i)
    end
  end
end

function works.slow_read(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "slow read", id, round:execute(sharing.SLOW_READ, { id, random(30000) }, { read_only = true }))
end

function works.sleep(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "sleep", id,
    round:execute("SELECT id, v, pg_sleep($2) FROM sharing.item WHERE id = $1", { id, random() * 0.02 }))
end

function works.nap(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "nap", id,
    round:execute("SELECT id, v FROM sharing.item WHERE id = $1 AND sharing.nap($2)", { id, random() * 0.02 }))
end

function works.large(round)
  local id = random(26)
  local result, err = round:execute("SELECT repeat(chr(96 + $1::int), 2000) AS v FROM sharing.item", { id },
    { max_result_bytes = random(2) == 1 and 50000 or nil, read_only = true })
  if not result then
    if err.code ~= "RESULT_TOO_LARGE" then
      round:judge("large", err)
    end
    return
  end
  local expected = string.char(96 + id):rep(2000)
  for _, row in ipairs(result.rows) do
    if row.v ~= expected then
      round:complain("large %d: got %s", id, row.v:sub(1, 10))
      break
    end
  end
end

-- Statements that must fail, with a marker where the server repeats a parameter.
local FAILING = {
  { "22P02", "SELECT $1::text::int8 + v AS v FROM sharing.item WHERE id = 1", "text" },
  { "22P02", "INSERT INTO sharing.ledger SELECT 'refused', $1::text::int8", "text" },
  { "22012", "SELECT id FROM sharing.item WHERE id = $1 AND v / (id - id) > 0", "item" },
  { "23505", "INSERT INTO sharing.occupied VALUES ($1)", "item" },
  { "23505", "INSERT INTO sharing.late VALUES ($1)", "item" }, -- fails after its CommandComplete
  { "22012", "SELECT sharing.enter('refused', id) / (id - id) FROM sharing.item WHERE id = $1", "item" },
  { "42601", "SELEC v FROM sharing.item WHERE id = $1", "item" },
  { "42P01", "SELECT v FROM sharing.nowhere WHERE id = $1", "item" },
}

function works.fail(round)
  local sqlstate, sql, kind = unpack(FAILING[random(#FAILING)])
  local id = random(sharing.ITEMS)
  local marker = kind == "text" and ("marker-%d-%d"):format(id, random(1e6)) or nil
  local result, err = round:execute(sql, { marker or id })
  if result then
    round:complain("succeeded: %s", sql)
  else
    round:judge(sql, err, sqlstate, marker or sqlstate == "23505" and ("(id)=(%d)"):format(id) or nil)
  end
end

-- One that has failed in a batch goes by itself for long: these fail for the first time.
local FIRST_FAILURES = 60

local function first_failure(n)
  return ("SELECT v / $1::int8 + %d AS v FROM sharing.item WHERE id = 1"):format(n)
end

function works.fail_in_batch(round)
  round.first_failures = round.first_failures % FIRST_FAILURES + 1
  local result, err = round:execute(first_failure(round.first_failures), { 0 })
  if result then
    round:complain("divided by zero")
  else
    round:judge("division", err, "22012")
  end
end

function works.insert(round)
  local id = sharing.new_id()
  round:effect("insert", "insert", id, "INSERT INTO sharing.ledger VALUES ('insert', $1)", { id })
end

function works.count(round)
  local id = random(sharing.COUNTERS)
  local counter = round.counters[id]
  local least = counter.least
  counter.most = counter.most + 1
  local result, err = round:execute(sharing.COUNT, { id })
  if result then
    round.answers = round.answers + 1
    counter.least = counter.least + 1
    if result.rows[1].n <= least then
      round:complain("counter %d: at least %d before, %d after", id, least, result.rows[1].n)
    end
  else
    round:judge("count", err)
    if err.code ~= "UNKNOWN_OUTCOME" then
      counter.most = counter.most - 1
    end
  end
end

function works.look_at_counter(round)
  local id = random(sharing.COUNTERS)
  local least = round.counters[id].least
  local result, err = round:execute("SELECT n FROM sharing.counter WHERE id = $1", { id })
  if not result then
    round:judge("counter", err)
  elseif result.rows[1].n < least then
    round:complain("counter %d: at least %d was acknowledged, %d was read", id, least, result.rows[1].n)
  end
end

-- Reads that write. Whoever was told of an entry must find it.
local SECRETS = {
  { "function", "SELECT sharing.enter('function', $1::int8) AS id" },
  { "mislabelled", "SELECT sharing.enter_in_secret('mislabelled', $1::int8) AS id" },
  { "view", "SELECT entered AS id FROM sharing.entering WHERE id = $1" },
  { "guarded", "SELECT id FROM sharing.admitted WHERE id = $1" },
  { "slow", "SELECT sharing.enter_in_secret('slow', $1::int8) AS id FROM pg_sleep(0.003)" },
}

function works.secret(round)
  local kind, sql = unpack(SECRETS[random(#SECRETS)])
  local id = (kind == "view" or kind == "guarded") and random(sharing.ITEMS) or sharing.new_id()
  local account = entry(round, kind, id)
  local result = round:effect("secret " .. kind, kind, id, sql, { id })
  if not result then
    return
  elseif result.rows[1].id ~= id then
    round:complain("secret %s of %d: got %s", kind, id, tostring(result.rows[1].id))
  end
  local least = account.least
  local found, err = round:execute("SELECT count(*) AS n FROM sharing.ledger WHERE id = $1 AND kind = $2", { id, kind })
  if not found then
    round:judge("look for a secret", err)
  elseif found.rows[1].n < least then
    round:complain("secret %s of %d: %d acknowledged, %d read", kind, id, least, found.rows[1].n)
  end
end

local TICKETS = {
  "SELECT ticket FROM sharing.next_ticket", "SELECT nextval('sharing.ticket') AS ticket",
  "SELECT sharing.ticket_in_secret() AS ticket",
}

function works.ticket(round)
  round.draws = round.draws + 1
  local result, err = round:execute(TICKETS[random(#TICKETS)])
  if not result then
    round:judge("ticket", err)
    return
  end
  local ticket = result.rows[1].ticket
  if round.drawn[ticket] then
    round:complain("ticket %d was drawn twice", ticket)
  end
  round.drawn[ticket] = true
  round.tickets = round.tickets + 1
end

-- An effect that a read-only session allows.
function works.object(round)
  round.asked_for_objects = round.asked_for_objects + 1
  local result, err = round:execute("SELECT sharing.new_object() AS oid")
  if result then
    round.answers = round.answers + 1
    round.objects[#round.objects + 1] = result.rows[1].oid
  else
    round:judge("object", err)
  end
end

-- A transaction of one's own; what it wrote is seen by nobody else when it is undone.
function works.transaction(round)
  local lease, err = round.pool:acquire(task.now() + random() * 0.2)
  if not lease then
    round:judge("acquire", err)
    return
  end
  local id, counter = sharing.new_id(), random(sharing.COUNTERS)
  local account = entry(round, "transaction", id)
  local result
  result, err = lease:execute("BEGIN")
  if result then
    result, err = lease:execute("INSERT INTO sharing.ledger VALUES ('transaction', $1)", { id })
  end
  if result and random(3) == 1 then -- others wait for its row lock
    result, err = lease:execute("SELECT n FROM sharing.counter WHERE id = $1 FOR UPDATE", { counter })
    task.sleep(random() * 0.08)
  end
  if result and random(2) == 1 then
    local found = round.pool:execute("SELECT count(*) AS n FROM sharing.ledger WHERE id = $1 AND kind = $2",
      { id, "transaction" }, { deadline = task.now() + 0.3 })
    if found and found.rows[1].n ~= 0 then
      round:complain("an open transaction's entry was read")
    end
  end
  if result and random(2) == 1 then
    account.most = account.most + 1
    result, err = lease:execute("COMMIT")
    if result then
      account.least = account.least + 1
    elseif err.code ~= "UNKNOWN_OUTCOME" then
      account.most = account.most - 1
    end
  elseif result and random(2) == 1 then
    result, err = lease:execute("ROLLBACK")
  end -- or it is given back as it is
  if not result and not (round.sabotage and err.sqlstate == "25P02") then
    round:judge("transaction", err)
  end
  lease:release()
end

function works.session(round)
  local statements = { "SET work_mem = '77MB'", "BEGIN", "ROLLBACK", "DISCARD ALL", "LISTEN sharing" }
  local result, err = round:execute(statements[random(#statements)])
  if not result then
    round:judge("session", err)
  end
  result, err = round:execute("SELECT current_setting('work_mem') AS v", nil, { read_only = true })
  if not result then
    round:judge("setting", err)
  elseif result.rows[1].v ~= round.work_mem then
    round:complain("work_mem is %s", result.rows[1].v)
  end
end

-- How often of what; those that keep a connection to themselves are rare, for there are few.
local NAMES, WEIGHTED = {}, {}
local WEIGHTS = { read = 12, read_several = 3, insert = 6, count = 6, look_at_counter = 5, fail = 6, secret = 4,
  slow_read = 2, ticket = 2, object = 3, fail_in_batch = 3 }
for name in pairs(works) do
  NAMES[#NAMES + 1] = name
end
table.sort(NAMES) -- so that a seed always means the same
for _, name in ipairs(NAMES) do
  for _ = 1, WEIGHTS[name] or 1 do
    WEIGHTED[#WEIGHTED + 1] = name
  end
end

-- ---- tasks ----------------------------------------------------------------------------------

-- A task of its own for each statement, so that it can be cancelled.
local function worker(round)
  while task.now() < round.till do
    local name = WEIGHTED[random(#WEIGHTED)]
    if random(12) > 1 then
      works[name](round)
    else
      local running = task.spawn(works[name], round):watch()
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
    if not rawget(round.ledger, row.kind) or not round.ledger[row.kind][row.id] then
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
  for _, secret in ipairs(SECRETS) do
    round.ledger[secret[1]] = {}
  end
  round.work_mem = pools.admin("SELECT current_setting('work_mem') AS v")[1].v
end

-- Each statement is run as often as it takes to be known to the pool.
local function warm_up(round)
  for _, name in ipairs(NAMES) do
    for _ = 1, 4 do
      works[name](round)
    end
  end
  for _, failing in ipairs(FAILING) do
    for _ = 1, 4 do
      round.pool:execute(failing[2], { failing[3] == "text" and "text" or 1 })
    end
  end
  for n = 1, FIRST_FAILURES do
    for _ = 1, 4 do
      round.pool:execute(first_failure(n), { 1 })
    end
  end
  for _, secret in ipairs(SECRETS) do
    for _ = 1, 4 do
      round:effect("secret " .. secret[1], secret[1], 1, secret[2], { 1 })
    end
  end
end

--- One round. Yields.
-- @tparam table options `seconds`, `tasks`, `sabotage`, and `pool`: options of its pool
-- @treturn {string,...} complaints
-- @treturn table counts: `answers`, `given_up`, `lost`, `cancelled`, `shared`, `batched`
function interleave.round(options)
  local round = setmetatable({
    complaints = {}, counters = {}, drawn = {}, sabotage = options.sabotage,
    ledger = { insert = {}, transaction = {} }, objects = {}, asked_for_objects = 0, first_failures = 0,
    answers = 0, given_up = 0, lost = 0, cancelled = 0, cancels = 0, tickets = 0, draws = 0,
  }, Round)
  prepare(round)
  local before = core.counts()
  round.pool = pools.open(options.pool)
  warm_up(round)
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
