-- Export and import: copy_out writes all shards' rows into one CSV file, copy_in deals such a file out again.
--
-- It makes (and replaces) the tables demo_accounts and demo_accounts_copy on the shards of the sandbox.

local lunashard = require("lunashard")

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_accounts, demo_accounts_copy;
  CREATE TABLE demo_accounts (user_id bigint PRIMARY KEY, note text, balance numeric(12, 2));
  CREATE TABLE demo_accounts_copy (LIKE demo_accounts)]]))

local COLUMNS = { "user_id", "note", "balance" }
local rows = {}
for user_id = 1, 20000 do
  rows[user_id] = { user_id, user_id % 10 > 0 and 'says "hello", and\nmore' or nil, user_id / 100 }
end
assert(router:copy_in("demo_accounts", COLUMNS, rows))

-- The file gets its name when it is complete. All shards are read at once; memory stays flat.
local path = os.tmpname()
local out = assert(router:copy_out("demo_accounts", path, { format = "csv", header = true, overwrite = true }))
print(("Exported %d accounts of %d shards"):format(out.row_count, #manager.shards))

-- The same file into another table: rows are found and routed in the bytes, without becoming Lua values.
local file = assert(io.open(path, "rb"))
local loaded = assert(router:copy_in("demo_accounts_copy", COLUMNS, file, { format = "csv", header = true }))
file:close()
os.remove(path)
print(("Imported %d accounts"):format(loaded.row_count))

local different = assert(router:scatter_gather([[
  (TABLE demo_accounts EXCEPT ALL TABLE demo_accounts_copy)
  UNION ALL (TABLE demo_accounts_copy EXCEPT ALL TABLE demo_accounts)]], nil,
  { aggregation_func = lunashard.aggregate.concat() })).rows -- each shard compares its own
print(("Rows that differ: %d"):format(#different))

-- A query, piece by piece, into a function.
local bytes = 0
local rich = assert(router:copy_out("SELECT user_id, balance FROM demo_accounts WHERE balance > 150", function(piece)
  bytes = bytes + #piece
end))
print(("Rich accounts: %d, in %d bytes"):format(rich.row_count, bytes))
assert(bytes == rich.bytes)

-- A row that cannot be right stops it all, and is named.
local ok, err = router:copy_in("demo_accounts_copy", COLUMNS, "30001,fine,1\n30002,too short\n", { format = "csv" })
assert(not ok)
print(err.message)

-- expect: Exported 20000 accounts of 3 shards
-- expect: Imported 20000 accounts
-- expect: Rows that differ: 0
-- expect: Rich accounts: 5000, in %d+ bytes
-- expect: row 2: it has 2 values for 3 columns
