-- Geographic sharding: a region's rows live on its shards; default_region for the rest, strict for data residency.
--
-- It makes (and replaces) the table demo_geo on the shards of the sandbox.

local lunashard = require("lunashard")

-- Shards must have a region: the sandbox's first two are put into one, the third into another.
local options = assert(require("lunashard.cluster").load(cluster.path))
local shards = options.shards
assert(#shards == 3, "this example is written for three shards, as the sandbox has")
for i, region in ipairs { "us-east-1", "us-east-1", "eu-west-1" } do
  shards[i].region = region
end

local manager = lunashard.manager {
  shards = shards,
  strategy = lunashard.strategy.geographic {
    shard_key = { "region", "user_id" },
    key_type = { "text", "int8" },
    default_region = "us-east-1",
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_geo;
  CREATE TABLE demo_geo (region text NOT NULL, user_id bigint NOT NULL, name text NOT NULL, PRIMARY KEY (region, user_id));
]]))

-- us-east-1 has two shards, over which user_id is hashed; eu-west-1 has one.
local homes = { "us-east-1", "eu-west-1", "ap-south-1" } -- nobody serves the last: its users go to the default region
for user_id = 1, 300 do
  local region = homes[user_id % #homes + 1]
  assert(router:execute("INSERT INTO demo_geo (region, user_id, name) VALUES ($1, $2, $3)",
    { region, user_id, "user " .. user_id }, { routing_key = { region, user_id } }))
end

local by_region = assert(router:scatter_gather("SELECT region, count(*) AS users FROM demo_geo GROUP BY region", nil,
  { aggregation_func = lunashard.aggregate.concat() }))
for _, shard in ipairs(manager.shards) do
  local parts, rows = {}, by_region.shard_results[shard.shard_id].rows
  table.sort(rows, function(a, b)
    return a.region < b.region
  end)
  for i, row in ipairs(rows) do
    parts[i] = ("%d from %s"):format(row.users, row.region)
    assert(row.region == shard.region or (row.region == "ap-south-1" and shard.region == "us-east-1"),
      "a row is outside of its region")
  end
  print(("  %s in %s: %s"):format(shard.shard_id, shard.region, table.concat(parts, ", ")))
end

local shard = assert(manager:get_shard_for_write({ "eu-west-1", 1 }))
print("A user in eu-west-1 is on " .. shard.shard_id)
shard = assert(manager:get_shard_for_write({ region = "ap-south-1", user_id = 2 })) -- columns may be named
print(("A user in ap-south-1 falls back to %s"):format(shard.region))

-- Compliance: with strict = true an unknown region is an error, never the default.
local strict = lunashard.strategy.geographic { shard_key = { "region", "user_id" }, key_type = { "text", "int8" },
  shards = shards, strict = true }
local shard_id, err = strict:route({ "eu-wst-1", 1 })
assert(shard_id == nil and err.code == "NO_SHARD", "strict must refuse an unknown region")
print("Strict: " .. tostring(err))

-- What a region says of itself needs no other region's shards.
local europeans = assert(router:scatter_gather("SELECT count(*) AS count FROM demo_geo", nil, {
  shard_ids = { shards[3].shard_id },
  aggregation_func = lunashard.aggregate.sum("count"),
}))
print(("Users in eu-west-1: %d"):format(europeans.rows[1].count))
assert(europeans.rows[1].count == 100)

manager:shutdown()

-- expect: shard1 in us%-east%-1: [3-6]%d from ap%-south%-1, [3-6]%d from us%-east%-1
-- expect: shard2 in us%-east%-1: [3-6]%d from ap%-south%-1, [3-6]%d from us%-east%-1
-- expect: shard3 in eu%-west%-1: 100 from eu%-west%-1\n
-- expect: A user in eu%-west%-1 is on shard3
-- expect: A user in ap%-south%-1 falls back to us%-east%-1
-- expect: Strict: NO_SHARD: no shard has region "eu%-wst%-1"; did you mean "eu%-west%-1"%?
-- expect: Users in eu%-west%-1: 100
