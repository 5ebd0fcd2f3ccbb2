-- Reference tables: the same few rows on every shard, written to all and read from any, so that joins stay local.
--
-- It makes (and replaces) the tables demo_countries and demo_orders on the shards of the sandbox.

local lunashard = require("lunashard")

-- What is a reference table stands in the cluster file; here a manager of our own says it.
local options = assert(require("lunashard.cluster").load(cluster.path))
local manager = lunashard.manager {
  shards = options.shards,
  strategy = lunashard.strategy.hash { shard_key = "user_id" },
  tables = {
    demo_countries = { reference = true },
    demo_orders = { shard_key = "user_id", type = "int8" },
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_countries, demo_orders;
  CREATE TABLE demo_countries (code text PRIMARY KEY, name text NOT NULL);
  CREATE TABLE demo_orders (order_id bigint PRIMARY KEY, user_id bigint NOT NULL, country text NOT NULL
    REFERENCES demo_countries (code), amount numeric NOT NULL);
]]))

-- A write goes to all shards.
local COUNTRIES = { table = "demo_countries" }
for code, name in pairs { AT = "Austria", BR = "Brazil", KE = "Kenya" } do
  local written = assert(router:execute("INSERT INTO demo_countries (code, name) VALUES ($1, $2)", { code, name },
    COUNTRIES))
  for _, shard in ipairs(manager.shards) do
    assert(written.shard_results[shard.shard_id].row_count == 1)
  end
end

-- Many rows at once by COPY, which also goes to all.
assert(router:copy_in("demo_countries", { "code", "name" }, { { "JP", "Japan" }, { "NZ", "New Zealand" } }))

local counts = assert(router:scatter_gather("SELECT count(*) AS count FROM demo_countries", nil,
  { aggregation_func = lunashard.aggregate.concat() })) -- each shard's own, instead of one count
for _, shard in ipairs(manager.shards) do
  print(("  %s has %d countries"):format(shard.shard_id, counts.shard_results[shard.shard_id].rows[1].count))
  assert(counts.shard_results[shard.shard_id].rows[1].count == 5)
end

-- A read goes to any shard: they take turns.
local answered = {}
for _ = 1, 3 * #manager.shards do
  local result = assert(router:execute("SELECT name FROM demo_countries WHERE code = $1", { "KE" }, COUNTRIES))
  assert(result.rows[1].name == "Kenya")
  answered[result.shard_id] = (answered[result.shard_id] or 0) + 1
end
for _, shard in ipairs(manager.shards) do
  print(("  %s answered %d of %d reads"):format(shard.shard_id, answered[shard.shard_id] or 0, 3 * #manager.shards))
  assert(answered[shard.shard_id] == 3)
end

-- Foreign keys and joins work on each shard by itself.
local codes, list = { "AT", "BR", "JP", "KE", "NZ" }, {}
for order_id = 1, 1000 do
  list[order_id] = { order_id, order_id % 200, codes[order_id % #codes + 1], order_id * 0.25 }
end
assert(router:execute_many("INSERT INTO demo_orders (order_id, user_id, country, amount) VALUES ($1, $2, $3, $4)",
  list, { key = 2, table = "demo_orders" }))
local refused, err = router:execute("INSERT INTO demo_orders VALUES (9999, 7, 'XX', 1)", nil,
  { routing_key = 7, table = "demo_orders" })
assert(not refused and err.sqlstate == "23503", "an unknown country must be refused")
print("Unknown country refused: SQLSTATE " .. err.sqlstate)

local totals = assert(router:scatter_gather([[
  SELECT c.name COLLATE "C" AS country, count(*) AS orders, sum(o.amount) AS amount
  FROM demo_orders AS o JOIN demo_countries AS c ON c.code = o.country GROUP BY c.name]], nil, {
  aggregation_func = lunashard.aggregate.chain {
    lunashard.aggregate.group_by { keys = { "country" }, orders = "count", amount = "sum" },
    lunashard.aggregate.top_n { n = 5, by = "amount desc" },
  },
}))
for _, row in ipairs(totals.rows) do
  print(("  %-12s %4d orders, %10s"):format(row.country, row.orders, row.amount))
  assert(row.orders == 200)
end

manager:shutdown()

-- expect: shard1 has 5 countries\n  shard2 has 5 countries\n  shard3 has 5 countries
-- expect: shard1 answered 3 of 9 reads\n  shard2 answered 3 of 9 reads\n  shard3 answered 3 of 9 reads
-- expect: Unknown country refused: SQLSTATE 23503
-- expect: Austria +200 orders, +25125%.00\n  New Zealand +200 orders, +25075%.00\n  Kenya +200 orders, +25025%.00
-- expect: Japan +200 orders, +24975%.00\n  Brazil +200 orders, +24925%.00
