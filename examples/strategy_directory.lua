-- Directory sharding: each tenant's shard is looked up in a table, so that one tenant can be moved by itself.
--
-- It makes (and replaces) the tables demo_directory, on the first shard of the sandbox, and demo_tenant_data on all.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
assert(#shards == 3, "this example is written for three shards, as the sandbox has")
local first, second, third = shards[1].shard_id, shards[2].shard_id, shards[3].shard_id

local manager = lunashard.manager {
  shards = shards,
  strategy = lunashard.strategy.directory {
    shard_key = "tenant_id",
    key_type = "text",
    table = "demo_directory", -- asked on this shard, and cached:
    on = first,
    key_column = "tenant_id",
    shard_column = "shard_id",
    ttl = 60, -- seconds that an answer is kept
    negative_ttl = 5, -- seconds that "not there" is kept
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_directory, demo_tenant_data;
  CREATE TABLE demo_tenant_data (tenant_id text NOT NULL, item text NOT NULL, PRIMARY KEY (tenant_id, item));
]]))
assert(router:execute("CREATE TABLE demo_directory (tenant_id text PRIMARY KEY, shard_id text NOT NULL)", nil,
  { shard_id = first }))

local function settle(tenant_id, shard_id)
  assert(router:execute([[
    INSERT INTO demo_directory (tenant_id, shard_id) VALUES ($1, $2)
    ON CONFLICT (tenant_id) DO UPDATE SET shard_id = excluded.shard_id
  ]], { tenant_id, shard_id }, { shard_id = first }))
end
settle("acme", second)
settle("globex", second)
settle("initech", third)

for _, tenant_id in ipairs { "acme", "globex", "initech" } do
  for i = 1, 4 do
    assert(router:execute("INSERT INTO demo_tenant_data VALUES ($1, $2)", { tenant_id, "item " .. i },
      { routing_key = tenant_id }))
  end
  print(("%s is on %s"):format(tenant_id, assert(manager:get_shard_for_write(tenant_id)).shard_id))
end

-- A tenant that nobody has settled is an error, not a guess.
local shard, err = manager:get_shard_for_write("hooli")
assert(shard == nil and err.code == "NO_SHARD")
print("hooli: " .. tostring(err))

-- Move acme: copy its rows, point the directory at the new shard, forget the cached answer, delete the old rows.
-- (A live system stops acme's writes for that moment, or lets the rebalancer do all of this.)
local rows = {}
for row in router:stream("SELECT tenant_id, item FROM demo_tenant_data WHERE tenant_id = $1", { "acme" },
  { routing_key = "acme" }) do
  rows[#rows + 1] = row
end
assert(router:copy_in("demo_tenant_data", { "tenant_id", "item" }, rows, { shard_id = third }))
settle("acme", third)
manager.strategy:invalidate("acme")
assert(router:execute("DELETE FROM demo_tenant_data WHERE tenant_id = $1", { "acme" }, { shard_id = second }))

local result = assert(router:execute("SELECT count(*) AS items FROM demo_tenant_data WHERE tenant_id = $1", { "acme" },
  { routing_key = "acme" }))
print(("acme moved to %s with %d items; globex stayed on %s"):format(result.shard_id, result.rows[1].items,
  assert(manager:get_shard_for_write("globex")).shard_id))
assert(result.shard_id == third and result.rows[1].items == 4)

-- Look-ups are cached: routing 1,000 times asks the directory at most once more.
local started = lunashard.now()
for _ = 1, 1000 do
  assert(manager:get_shard_for_write("initech"))
end
print(("1000 look-ups of initech took %.1f ms: cached"):format((lunashard.now() - started) * 1000))

manager:shutdown()

-- expect: acme is on shard2\nglobex is on shard2\ninitech is on shard3
-- expect: hooli: NO_SHARD: the directory has no entry for key hooli
-- expect: acme moved to shard3 with 4 items; globex stayed on shard2
-- expect: 1000 look%-ups of initech took
