-- Composite shard keys: hash (tenant_id, user_id) to spread a large tenant, or hash user_id and filter by tenant inside.
--
-- It makes (and replaces) the table demo_documents on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local manager = lunashard.manager {
  shards = shards,
  strategy = lunashard.strategy.hash { shard_key = { "tenant_id", "user_id" } },
  tables = {
    demo_documents = { shard_key = { "tenant_id", "user_id" }, type = { "int8", "int8" } },
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_documents;
  CREATE TABLE demo_documents (
    tenant_id bigint NOT NULL,
    user_id bigint NOT NULL,
    document_id int NOT NULL,
    title text NOT NULL,
    PRIMARY KEY (tenant_id, user_id, document_id)
  );
]]))

-- Three tenants; the first is 20 times as large as the others. copy_in takes the key from the table's declaration.
local rows = {}
for tenant_id, users in ipairs { 2000, 100, 100 } do
  for user_id = 1, users do
    for document_id = 1, 2 do
      rows[#rows + 1] = { tenant_id, user_id, document_id, ("document %d"):format(document_id) }
    end
  end
end
assert(router:copy_in("demo_documents", { "tenant_id", "user_id", "document_id", "title" }, rows))
print(("Loaded %d documents of 3 tenants"):format(#rows))

-- A user of a tenant lives on one shard: all documents come from there. Columns by position or by name.
local by_position = assert(manager:get_shard_for_write({ 1, 77 }))
local by_name = assert(manager:get_shard_for_write({ user_id = 77, tenant_id = 1 }))
assert(by_position.shard_id == by_name.shard_id)
local documents = assert(router:execute(
  "SELECT title FROM demo_documents WHERE tenant_id = $1 AND user_id = $2 ORDER BY document_id", { 1, 77 },
  { routing_key = { 1, 77 } }))
print(("User 77 of tenant 1: %d documents, all on %s"):format(documents.row_count, documents.shard_id))
assert(documents.row_count == 2 and documents.shard_id == by_position.shard_id)

-- Half a key is no key.
local shard, err = manager:get_shard_for_write({ tenant_id = 1 })
assert(shard == nil and err.code == "NULL_KEY")
print("Half a key: " .. tostring(err))

-- The price: a question about a whole tenant goes to every shard.
local sizes = assert(router:scatter_gather(
  "SELECT tenant_id, count(*) AS documents FROM demo_documents GROUP BY tenant_id", nil,
  { aggregation_func = lunashard.aggregate.chain {
    lunashard.aggregate.group_by { keys = { "tenant_id" }, documents = "count" },
    lunashard.aggregate.top_n { n = 3, by = "documents desc, tenant_id" },
  } }))
for _, row in ipairs(sizes.rows) do
  print(("  tenant %d: %d documents"):format(row.tenant_id, row.documents))
end
assert(sizes.rows[1].documents == 4000)

-- The gain: the large tenant fills all shards alike. With tenant_id alone as the key it would fill one.
local composite, alone = {}, {}
for user_id = 1, 2000 do
  composite[user_id], alone[user_id] = { 1, user_id }, 1
end
local spread = assert(manager.strategy:get_distribution(composite))
local lump = assert(lunashard.strategy.hash { shard_key = "tenant_id", shards = shards }:get_distribution(alone))
for _, one in ipairs(manager.shards) do
  print(("  users of tenant 1 on %s: %4d by (tenant_id, user_id), %4d by tenant_id"):format(one.shard_id,
    spread[one.shard_id], lump[one.shard_id]))
  assert(spread[one.shard_id] > 550 and (lump[one.shard_id] == 0 or lump[one.shard_id] == 2000))
end

manager:shutdown()

-- expect: Loaded 4400 documents of 3 tenants
-- expect: User 77 of tenant 1: 2 documents, all on shard%d
-- expect: Half a key: NULL_KEY: .-user_id
-- expect: tenant 1: 4000 documents\n  tenant 2: 200 documents\n  tenant 3: 200 documents
-- expect: tenant 1 on shard1: +[67]%d%d by
-- expect: tenant 1 on shard3: +[67]%d%d by
