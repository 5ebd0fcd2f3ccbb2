-- Unique ids: 64-bit, in order of time, carrying their shard, so that a row is found by its id alone; and a 53-bit variant.
--
-- It makes (and replaces) the table demo_invoices on the shards of the sandbox.

local lunashard = require("lunashard")

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_invoices;
  CREATE TABLE demo_invoices (invoice_id bigint PRIMARY KEY, user_id bigint NOT NULL, amount int NOT NULL);
]]))

-- One generator for each shard, numbered in the cluster file's order. No server is asked.
local number_of, generators = {}, {}
for i, shard in ipairs(manager.shards) do
  number_of[shard.shard_id] = i
  generators[shard.shard_id] = lunashard.ids.new { shard = i }
end

-- An invoice lives with its user, and its id says where that is.
local function create_invoice(user_id, amount)
  local shard_id = assert(manager:get_shard_for_write(user_id)).shard_id
  local invoice_id = assert(generators[shard_id]:next())
  assert(router:execute("INSERT INTO demo_invoices (invoice_id, user_id, amount) VALUES ($1, $2, $3)",
    { invoice_id, user_id, amount }, { routing_key = user_id }))
  return invoice_id
end
local function get_invoice(invoice_id)
  local shard = manager.shards[lunashard.ids.new():decode(invoice_id).shard]
  local result = assert(router:execute("SELECT * FROM demo_invoices WHERE invoice_id = $1", { invoice_id },
    { shard_id = shard.shard_id }))
  return result.rows[1], shard.shard_id
end

local ids = {}
for user_id = 1, 300 do
  ids[user_id] = create_invoice(user_id, user_id * 10)
end
local invoice, shard_id = get_invoice(ids[123])
print(("Invoice of user 123: amount %d, found on %s by its id alone"):format(invoice.amount, shard_id))
for user_id, id in ipairs(ids) do
  invoice = get_invoice(id)
  assert(invoice and invoice.user_id == user_id and invoice.invoice_id == id, "an id lost digits on its way")
end
print(("All %d invoices are found by their ids"):format(#ids))

local decoded = lunashard.ids.new():decode(ids[123])
print(("Id %s: made on %s, shard %d, sequence %d"):format(tostring(ids[123]):gsub("LL$", ""),
  os.date("!%Y-%m-%d", decoded.time), decoded.shard, decoded.sequence))
assert(math.abs(decoded.time - os.time()) < 60 and decoded.shard == number_of[shard_id])

-- Never twice, never backwards, also when the clock goes back.
local generator = lunashard.ids.new { shard = 1 }
local last = assert(generator:next(os.time() + 5))
for i = 1, 100000 do
  local id = assert(generator:next(i % 2 == 0 and os.time() or nil)) -- a clock that jumps
  assert(id > last, "an id is not greater than the one before")
  last = id
end
print("100000 ids of one generator are all different and increase")

-- The server agrees about the order: by id is by time.
local newest = assert(router:scatter_gather("SELECT invoice_id, user_id FROM demo_invoices ORDER BY invoice_id DESC LIMIT 5",
  nil, { aggregation_func = lunashard.aggregate.top_n { n = 5, by = "invoice_id desc" } }))
for i = 2, #newest.rows do
  assert(newest.rows[i - 1].invoice_id > newest.rows[i].invoice_id)
end
print(("The newest of all shards: %d invoices"):format(#newest.rows))

-- Within 2^53 for JSON readers and languages whose numbers are doubles.
local small = lunashard.ids.new { width = 53, shard = 2 }
local id = assert(small:next())
print(("53 bits: %d, below 2^53: %s, shard %d"):format(id, tostring(id < 2 ^ 53), small:decode(id).shard))
assert(type(id) == "number" and id % 1 == 0)

-- expect: Invoice of user 123: amount 1230, found on shard%d by its id alone
-- expect: All 300 invoices are found by their ids
-- expect: Id %d+: made on 20%d%d%-%d%d%-%d%d, shard %d, sequence %d+
-- expect: 100000 ids of one generator are all different and increase
-- expect: The newest of all shards: 5 invoices
-- expect: 53 bits: %d+, below 2%^53: true, shard 2
