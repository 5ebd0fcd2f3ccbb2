-- Transactions within one shard: commit, rollback on an error, savepoints, and what is refused.
--
-- It makes (and replaces) the table demo_wallets on the shards of the sandbox.

local lunashard = require("lunashard")
local errors = lunashard.errors

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_wallets;
  CREATE TABLE demo_wallets (
    user_id bigint, currency text, amount bigint NOT NULL CHECK (amount >= 0), PRIMARY KEY (user_id, currency));
]]))

local USER = 7
local function balance(currency, user_id)
  user_id = user_id or USER
  local result = assert(router:execute("SELECT amount FROM demo_wallets WHERE user_id = $1 AND currency = $2",
    { user_id, currency }, { routing_key = user_id }))
  return result.rows[1] and result.rows[1].amount
end
local function show(what)
  print(("%-28s EUR %s, USD %s"):format(what, tostring(balance("EUR")), tostring(balance("USD"))))
end

-- Both statements or neither; the function's values are returned after COMMIT.
local moved = assert(router:transaction({ routing_key = USER }, function(tx)
  assert(tx:execute("INSERT INTO demo_wallets VALUES ($1, 'EUR', 100), ($1, 'USD', 0)", { USER }))
  assert(tx:execute("UPDATE demo_wallets SET amount = amount - 30 WHERE user_id = $1 AND currency = 'EUR'", { USER }))
  assert(tx:execute("UPDATE demo_wallets SET amount = amount + 33 WHERE user_id = $1 AND currency = 'USD'", { USER }))
  return 30
end))
assert(moved == 30 and balance("EUR") == 70 and balance("USD") == 33)
show("Committed:")

local function transfer(tx, amount)
  assert(tx:execute("UPDATE demo_wallets SET amount = amount + $2 WHERE user_id = $1 AND currency = 'USD'",
    { USER, amount }))
  assert(tx:execute("UPDATE demo_wallets SET amount = amount - $2 WHERE user_id = $1 AND currency = 'EUR'",
    { USER, amount }))
  return true
end

-- A statement that fails rolls back what was done before it.
local ok, err = router:transaction({ routing_key = USER }, function(tx)
  return transfer(tx, 1000) -- more than there is
end)
assert(not ok and err.sqlstate == "23514" and balance("EUR") == 70 and balance("USD") == 33)
show("Rolled back, SQLSTATE " .. err.sqlstate .. ":")

-- So does an error of the program, and a reason that the function returns.
ok, err = router:transaction({ routing_key = USER }, function(tx)
  transfer(tx, 10)
  error("the mail server is away")
end)
assert(not ok and err.code == "PLUGIN_FAILED" and balance("EUR") == 70)
print("Raised and rolled back: " .. tostring(err.cause):gsub("^.-:%d+: ", ""))
ok, err = router:transaction({ routing_key = USER }, function(tx)
  transfer(tx, 10)
  return nil, "changed my mind"
end)
assert(not ok and err.cause == "changed my mind" and balance("EUR") == 70)

-- Savepoints: a part may fail without the whole.
assert(router:transaction({ routing_key = USER }, function(tx)
  transfer(tx, 20)
  local part, reason = tx:transaction(function(inner)
    return transfer(inner, 1000)
  end)
  assert(not part)
  print("Inner part undone: SQLSTATE " .. reason.sqlstate)
  assert(tx:transaction(function(inner)
    return transfer(inner, 5)
  end))
  return true
end))
assert(balance("EUR") == 45 and balance("USD") == 58)
show("After savepoints:")

-- A transaction is on one shard: a key of another is refused.
local stranger = USER
repeat
  stranger = stranger + 1
until manager:get_shard_for_write(stranger).shard_id ~= manager:get_shard_for_write(USER).shard_id
ok, err = router:transaction({ routing_key = USER }, function(tx)
  assert(tx:execute("INSERT INTO demo_wallets VALUES ($1, 'EUR', 1)", { stranger }, { routing_key = stranger }))
  return true
end)
assert(not ok and err.code == "KEY_MISMATCH")
print("A key of another shard: " .. err.code)

-- BEGIN through execute would leave a shared connection inside a transaction.
ok, err = router:execute("BEGIN", nil, { routing_key = USER })
assert(not ok and err.code == "INVALID")
print("execute(\"BEGIN\"): " .. err.code)

-- Twenty tasks at once, serializable: those that lose a race are run again, and no unit is lost.
local tasks = {}
for i = 1, 20 do
  tasks[i] = function()
    return assert(router:transaction({ routing_key = USER, isolation = "serializable", retries = 50 }, function(tx)
      local row = assert(tx:execute("SELECT amount FROM demo_wallets WHERE user_id = $1 AND currency = 'EUR'",
        { USER })).rows[1]
      assert(tx:execute("UPDATE demo_wallets SET amount = $2 WHERE user_id = $1 AND currency = 'EUR'",
        { USER, row.amount + 1 }))
      return true
    end))
  end
end
assert(lunashard.gather(tasks, { timeout = 60 }))
assert(balance("EUR") == 65, "an increment was lost")
show("20 increments at once:")

-- By hand, where a function does not fit.
local tx = assert(router:begin { routing_key = USER })
assert(tx:execute("UPDATE demo_wallets SET amount = 0 WHERE user_id = $1", { USER }))
assert(tx:rollback())
ok, err = tx:execute("SELECT 1")
assert(not ok and errors.is(err, "CLOSED") and balance("EUR") == 65)
show("begin and rollback:")

-- expect: Committed: +EUR 70, USD 33
-- expect: Rolled back, SQLSTATE 23514: +EUR 70, USD 33
-- expect: Raised and rolled back: the mail server is away
-- expect: Inner part undone: SQLSTATE 23514
-- expect: After savepoints: +EUR 45, USD 58
-- expect: A key of another shard: KEY_MISMATCH
-- expect: execute%("BEGIN"%): INVALID
-- expect: 20 increments at once: +EUR 65, USD 58
-- expect: begin and rollback: +EUR 65, USD 58
