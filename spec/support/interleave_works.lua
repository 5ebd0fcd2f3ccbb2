--- What the tasks of `spec.support.interleave` do: statements that are good, fail, are slow, or write in secret.
-- Each works on a round: `execute` runs a statement, perhaps with a short deadline, `judge` looks at a failure,
-- `effect` notes what a write has come to, `complain` says what is wrong.
local sharing = require("spec.support.sharing")
local task = require("lunashard.task")

local random = math.random

local works = {}

--- The works by name.
local run = {}
works.run = run

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

function run.read(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "read", id, round:execute(sharing.READ, { id }, { read_only = random(2) == 1 }))
end

function run.read_several(round)
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

function run.slow_read(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "slow read", id, round:execute(sharing.SLOW_READ, { id, random(30000) }, { read_only = true }))
end

function run.sleep(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "sleep", id,
    round:execute("SELECT id, v, pg_sleep($2) FROM sharing.item WHERE id = $1", { id, random() * 0.02 }))
end

function run.nap(round)
  local id = random(sharing.ITEMS)
  expect_item(round, "nap", id,
    round:execute("SELECT id, v FROM sharing.item WHERE id = $1 AND sharing.nap($2)", { id, random() * 0.02 }))
end

function run.large(round)
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

function run.fail(round)
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

function run.fail_in_batch(round)
  round.first_failures = round.first_failures % FIRST_FAILURES + 1
  local result, err = round:execute(first_failure(round.first_failures), { 0 })
  if result then
    round:complain("divided by zero")
  else
    round:judge("division", err, "22012")
  end
end

function run.insert(round)
  local id = sharing.new_id()
  round:effect("insert", "insert", id, "INSERT INTO sharing.ledger VALUES ('insert', $1)", { id })
end

function run.count(round)
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

function run.look_at_counter(round)
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

function run.secret(round)
  local kind, sql = unpack(SECRETS[random(#SECRETS)])
  local id = (kind == "view" or kind == "guarded") and random(sharing.ITEMS) or sharing.new_id()
  local account = round:entry(kind, id)
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

function run.ticket(round)
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
function run.object(round)
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
function run.transaction(round)
  local lease, err = round.pool:acquire(task.now() + random() * 0.2)
  if not lease then
    round:judge("acquire", err)
    return
  end
  local id, counter = sharing.new_id(), random(sharing.COUNTERS)
  local account = round:entry("transaction", id)
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

function run.session(round)
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
for name in pairs(run) do
  NAMES[#NAMES + 1] = name
end
table.sort(NAMES) -- so that a seed always means the same
for _, name in ipairs(NAMES) do
  for _ = 1, WEIGHTS[name] or 1 do
    WEIGHTED[#WEIGHTED + 1] = name
  end
end

--- The name of a work, at random.
function works.draw()
  return WEIGHTED[random(#WEIGHTED)]
end

--- Each statement is run as often as it takes to be known to the pool.
function works.warm_up(round)
  for _, name in ipairs(NAMES) do
    for _ = 1, 4 do
      run[name](round)
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

return works
