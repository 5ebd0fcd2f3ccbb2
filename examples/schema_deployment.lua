-- Schema deployment to all shards: one script everywhere, a canary first, stop_on_error, and what was done where.
--
-- It makes (and replaces) the table demo_accounts on the shards of the sandbox.

local lunashard = require("lunashard")

local shard_ids = {}
for i, shard in ipairs(manager.shards) do
  shard_ids[i] = shard.shard_id
end

-- Deploy schema changes to all shards. Each shard runs the script as one transaction of its own.
local function deploy_schema_to_all_shards(migration_sql, options)
  local result, err = router:execute_on_all_shards(migration_sql, options)
  if not result then
    print("Schema deployment failed: " .. err.message)
    for _, failure in ipairs(err.failed) do
      print(("  %s: %s"):format(failure.shard_id, failure.error.message))
    end
    return nil, err
  end
  print(("Schema deployed to %d shards"):format(#result.done))
  return result
end

-- Which shards have a column? From the catalogs, not from memory.
local function shards_with(column)
  local result = assert(router:scatter_gather(
    "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('demo_accounts') AND attname = $1 AND NOT attisdropped",
    { column }))
  local names = {}
  for _, shard_id in ipairs(shard_ids) do
    names[#names + 1] = result.shard_results[shard_id].row_count > 0 and shard_id or nil
  end
  return names
end

local migration = [[
  DROP TABLE IF EXISTS demo_accounts;
  CREATE TABLE IF NOT EXISTS demo_accounts (
    user_id bigint PRIMARY KEY,
    name text NOT NULL,
    email text UNIQUE NOT NULL,
    created_at timestamptz DEFAULT now()
  );
  CREATE INDEX demo_accounts_name ON demo_accounts (name);
]]
local result = assert(deploy_schema_to_all_shards(migration))
assert(#result.done == #shard_ids)

-- With a canary one shard goes first and alone; the others follow when it has done well.
assert(deploy_schema_to_all_shards("ALTER TABLE demo_accounts ADD COLUMN country text", { canary = shard_ids[1] }))
print("Column country on: " .. table.concat(shards_with("country"), ", "))
assert(#shards_with("country") == #shard_ids)

-- A script that fails on the canary leaves the others alone, and nothing of it on the canary either.
local err
result, err = deploy_schema_to_all_shards([[
  ALTER TABLE demo_accounts ADD COLUMN plan text;
  ALTER TABLE demo_acounts ADD COLUMN plan_since date;
]], { canary = shard_ids[1] })
assert(not result and err.code == "SHARDS_FAILED")
print(("Canary failed with SQLSTATE %s; not run on %s; column plan on %d shards"):format(err.failed[1].error.sqlstate,
  table.concat(err.skipped, ", "), #shards_with("plan")))
assert(#err.skipped == #shard_ids - 1 and #shards_with("plan") == 0)

-- A failure in the middle: one shard has rows that the new constraint refuses. One shard at a time,
-- and no further after the failure.
assert(router:execute("INSERT INTO demo_accounts (user_id, name, email) VALUES (1, '', 'a@example.com')", nil,
  { shard_id = shard_ids[2] }))
local constraint = "ALTER TABLE demo_accounts ADD CONSTRAINT name_not_empty CHECK (name <> '')"
result, err = deploy_schema_to_all_shards(constraint, { parallel = false, stop_on_error = true })
assert(not result)
print(("Done on %s; failed on %s; not run on %s"):format(table.concat(err.done, ", "), err.failed[1].shard_id,
  table.concat(err.skipped, ", ")))
assert(err.done[1] == shard_ids[1] and err.failed[1].shard_id == shard_ids[2])

-- Mend the data and deploy to those that are left.
assert(router:execute("UPDATE demo_accounts SET name = 'unknown' WHERE name = ''", nil, { shard_id = shard_ids[2] }))
local left = { unpack(err.skipped) }
left[#left + 1] = err.failed[1].shard_id
assert(deploy_schema_to_all_shards(constraint, { shard_ids = left }))
local constrained = assert(router:scatter_gather([[
  SELECT count(*) AS n FROM pg_constraint WHERE conrelid = 'demo_accounts'::regclass AND conname = 'name_not_empty']], nil,
  { aggregation_func = lunashard.aggregate.concat() }))
for _, shard_id in ipairs(shard_ids) do
  assert(constrained.shard_results[shard_id].rows[1].n == 1, shard_id .. " has no constraint")
end
print(("All %d shards have the same schema"):format(#shard_ids))

-- expect: Schema deployed to 3 shards\nSchema deployed to 3 shards
-- expect: Column country on: shard1, shard2, shard3
-- expect: Schema deployment failed: .-\n  shard1: relation "demo_acounts" does not exist
-- expect: Canary failed with SQLSTATE 42P01; not run on shard2, shard3; column plan on 0 shards
-- expect: Schema deployment failed: .-\n  shard2: .-name_not_empty
-- expect: Done on shard1; failed on shard2; not run on shard3
-- expect: Schema deployed to 2 shards\nAll 3 shards have the same schema
