-- Plug-ins of one's own: a folder of Lua files that route, find keys and aggregate, changed while they are at work.
local lunashard = require("lunashard")

-- A copy of examples/plugins, since we are going to edit it.
local folder = os.tmpname()
os.remove(folder)
assert(os.execute(("cp -r '%s/plugins' '%s'"):format(arg[0]:match("^(.*)/") or ".", folder)) == 0)

-- What a plug-in does is told on stderr; here it is part of what we show.
lunashard.set_warn(function(message)
  print("  " .. message)
end)

local function edit(file, from, to)
  local path = folder .. "/" .. file
  local handle = assert(io.open(path))
  local text = handle:read("*a"):gsub(from, to)
  handle:close()
  handle = assert(io.open(path, "w"))
  handle:write(text)
  handle:close()
end

-- The cluster file's servers, with another strategy. Usually the cluster file itself says `plugins = "plugins"`.
local options = dofile(cluster.path)
options.plugins = folder
options.strategy = { "big_tenants", shard_key = "tenant_id" }
options.tables = { plugin_orders = { shard_key = "tenant_id", type = "int8" } }
options.extractor = { "first_of", "by_column", "order_reference" }
local own_manager = lunashard.manager(options)
assert(own_manager:initialize())
local own_router = lunashard.router({ shard_manager = own_manager })

print("Tenant 42 lives on " .. own_manager:get_shard_for_write(42).shard_id)
print("Tenant 43 lives on " .. own_manager:get_shard_for_write(43).shard_id)

assert(own_router:execute_on_all_shards([[
  DROP TABLE IF EXISTS plugin_orders;
  CREATE TABLE plugin_orders (reference text PRIMARY KEY, tenant_id int8 NOT NULL, amount int4 NOT NULL)]]))
for tenant_id = 1, 50 do -- by_column finds the key
  assert(own_router:execute("INSERT INTO plugin_orders (reference, tenant_id, amount) VALUES ($1, $2, $3)",
    { ("T%d-1001"):format(tenant_id), tenant_id, 100 }))
end
local order = assert(own_router:execute("SELECT amount FROM plugin_orders WHERE reference = $1", { "T42-1001" }))
print(("Order T42-1001 of %d is on %s alone"):format(order.rows[1].amount, order.shard_id))
local function revenue()
  local total = assert(own_router:scatter_gather("SELECT tenant_id, amount FROM plugin_orders", nil,
    { aggregation_func = lunashard.aggregate.revenue() }))
  return ("big tenants %d, others %d"):format(total.rows[1].big, total.rows[1].others)
end
print("Revenue: " .. revenue())

-- `lunashard run --watch` loads what is saved by itself; `reload` does it by hand.
print("A change that moves nothing:")
edit("strategies/big_tenants.lua", "all others share what is left", "the others share the rest")
assert(lunashard.reload())

print("A typo:")
edit("aggregates/revenue.lua", "row%.tenant_id", "rwo.tenant_id")
print("reload returns: " .. select(2, lunashard.reload()).code)
print("Revenue: " .. revenue())
edit("aggregates/revenue.lua", "rwo%.tenant_id", "row.tenant_id")
assert(lunashard.reload())

print("A third big tenant, whose rows are elsewhere:")
edit("tiers.lua", "%[42%] = true", "[42] = true, [43] = true")
local _, err = lunashard.reload()
print("reload returns: " .. err.code)
print("Tenant 43 still lives on " .. own_manager:get_shard_for_write(43).shard_id)

for _, plugin in ipairs(own_manager:get_cluster_status().plugins) do
  print(("%s %s, generation %d, %s"):format(plugin.kind, plugin.name, plugin.generation, plugin.state))
end
assert(own_router:execute_on_all_shards("DROP TABLE plugin_orders"))
own_manager:shutdown()
os.execute(("rm -r '%s'"):format(folder))

-- expect: ^Tenant 42 lives on shard3\nTenant 43 lives on shard[12]\n
-- expect: Order T42%-1001 of 100 is on shard3 alone\n
-- expect: Revenue: big tenants 200, others 4800\n
-- expect: moves nothing:\n[^\n]*strategy big_tenants reloaded %(generation 2%)\n
-- expect: A typo:\n[^\n]*rwo[^\n]*\nreload returns: PLUGIN_FAILED\nRevenue: big tenants 200, others 4800\n
-- expect: third big tenant[^\n]*\n.-43 from shard[12] to shard3.-reload returns: PLACEMENT_CHANGED\n
-- expect: Tenant 43 still lives on shard[12]\n
-- expect: aggregate revenue, generation %d, active\n
-- expect: extractor order_reference, generation 1, active\n
-- expect: strategy big_tenants, generation 2, active\n
