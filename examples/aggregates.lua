-- Aggregates over all shards: sum, avg, min, max, group_by, top_n, merge_sort, distinct, percentile, and a function of one's own.
--
-- It makes (and replaces) the table demo_sales on the shards of the sandbox.

local lunashard = require("lunashard")
local aggregate = lunashard.aggregate

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_sales;
  CREATE TABLE demo_sales (
    sale_id bigint PRIMARY KEY, user_id bigint NOT NULL, country text NOT NULL, price numeric(12, 2), points bigint NOT NULL);
]]))

-- 6,000 sales; every tenth has no price. What the shards should say together is added up here, in cents.
local COUNTRIES = { "AT", "BR", "KE" }
local rows, cents, priced, by_country = {}, 0, 0, { AT = 0, BR = 0, KE = 0 }
for sale_id = 1, 6000 do
  local country = COUNTRIES[sale_id % 3 + 1]
  local price = sale_id % 10 ~= 0 and (sale_id * 37) % 10000 + 1 or nil
  if price then
    cents, priced = cents + price, priced + 1
    by_country[country] = by_country[country] + price
  end
  rows[sale_id] = { sale_id = sale_id, user_id = sale_id % 500, country = country,
    price = price and ("%d.%02d"):format(math.floor(price / 100), price % 100), points = 9007199254740993LL }
end
local function decimal(value)
  return ("%d.%02d"):format(math.floor(value / 100), value % 100)
end
assert(router:copy_in("demo_sales", { "sale_id", "user_id", "country", "price", "points" }, rows, { key = "user_id" }))

local function ask(sql, func, params)
  return assert(router:scatter_gather(sql, params, { aggregation_func = func })).rows
end

-- One row of several sums: exact, for sums of numeric and int8 never pass through a double.
local row = ask("SELECT count(*) AS sales, sum(price) AS price, sum(points) AS points FROM demo_sales",
  aggregate.sum { "sales", "price", "points" })[1]
print(("Sales: %s, sum of prices: %s, sum of points: %s"):format(tostring(row.sales), row.price, tostring(row.points)))
assert(row.price == decimal(cents) and tostring(row.points) == "54043195528445958000")

-- The mean needs each shard's sum and count; a mean of means would be wrong and is refused.
row = ask("SELECT sum(price) AS price_sum, count(price) AS price_count FROM demo_sales",
  aggregate.avg("price", { sum = "price_sum", count = "price_count" }))[1]
print(("Mean price: %s"):format(row.price))
assert(math.abs(tonumber(row.price) - cents / priced / 100) < 1e-9)
local refused, err = router:scatter_gather("SELECT avg(price) AS price FROM demo_sales", nil,
  { aggregation_func = aggregate.avg "price" })
assert(not refused and err.code == "NOT_MERGEABLE")
print("A mean of the shards' means: " .. err.code)

row = ask("SELECT min(price) AS cheapest FROM demo_sales", aggregate.min "cheapest")[1]
local dearest = ask("SELECT max(price) AS dearest FROM demo_sales", aggregate.max "dearest")[1].dearest
print(("Prices from %s to %s"):format(row.cheapest, dearest))

-- Groups that span shards, put together and then ordered.
local groups = ask("SELECT country, count(*) AS sales, sum(price) AS total FROM demo_sales GROUP BY country",
  aggregate.chain {
    aggregate.group_by { keys = { "country" }, sales = "count", total = "sum" },
    aggregate.top_n { n = 2, by = "total desc" },
  })
for _, group in ipairs(groups) do
  print(("  %s: %d sales, %s"):format(group.country, group.sales, group.total))
  assert(group.sales == 2000 and group.total == decimal(by_country[group.country]))
end
assert(#groups == 2 and tonumber(groups[1].total) >= tonumber(groups[2].total))

-- The ten dearest: each shard sends its own ten, in the order that they are merged in.
local dear = ask("SELECT sale_id, price FROM demo_sales WHERE price IS NOT NULL ORDER BY price DESC, sale_id LIMIT 10",
  aggregate.chain { aggregate.merge_sort "price desc, sale_id", aggregate.limit(10) })
print(("The dearest: sale %d for %s, then sale %d for %s"):format(dear[1].sale_id, dear[1].price, dear[2].sale_id,
  dear[2].price))
assert(#dear == 10 and dear[1].price == dearest)
for i = 2, #dear do
  assert(tonumber(dear[i - 1].price) >= tonumber(dear[i].price))
end

local countries = ask("SELECT DISTINCT country FROM demo_sales", aggregate.distinct { "country" })
print(("Different countries: %d"):format(#countries))
assert(#countries == 3)

row = ask("SELECT price FROM demo_sales", aggregate.percentile { column = "price", p = 0.5 })[1]
print(("Median price: %.2f"):format(row.price))

-- A function of one's own gets the list of the shards' results, as in the guide.
local busiest = ask("SELECT count(*) AS count FROM demo_sales", function(results)
  local most = results[1]
  for _, result in ipairs(results) do
    if result.success and result.rows[1].count > most.rows[1].count then
      most = result
    end
  end
  return { shard = most.shard_id, count = most.rows[1].count }
end)[1]
print(("The fullest shard is %s with %d sales"):format(busiest.shard, busiest.count))

-- expect: Sales: 6000, sum of prices: %d+%.%d%d, sum of points: 54043195528445958000
-- expect: Mean price: %d+%.%d+
-- expect: A mean of the shards' means: NOT_MERGEABLE
-- expect: Prices from 0%.%d+ to %d+%.%d%d
-- expect: %u%u: 2000 sales, %d+%.%d%d\n  %u%u: 2000 sales
-- expect: The dearest: sale %d+ for %d+%.%d%d, then sale
-- expect: Different countries: 3
-- expect: Median price: %d+%.%d%d
-- expect: The fullest shard is shard%d with 2%d%d%d sales
