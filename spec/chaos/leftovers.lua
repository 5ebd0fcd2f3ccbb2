--- What must not be left when no job is open.
-- @module spec.chaos.leftovers

local leftovers = {}

local LOOKS = {
  { "in transition", "SELECT in_transition AS n FROM lunashard.state" },
  { "staging or holding tables", [[SELECT count(*) AS n FROM pg_class
      WHERE relkind = 'r' AND relnamespace = 'lunashard_staging'::regnamespace]] },
  { "triggers", [[SELECT count(*) AS n FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
      WHERE NOT tgisinternal AND relnamespace = 'public'::regnamespace]] },
  { "functions", "SELECT count(*) AS n FROM pg_proc WHERE pronamespace = 'lunashard_staging'::regnamespace" },
  { "steps of moves", "SELECT count(*) AS n FROM lunashard.move" },
  { "an epoch ahead", [[SELECT abs(s.version - e.last_value) AS n FROM lunashard.state s, lunashard.epoch e]] },
  { "sessions of movers", [[SELECT count(*) AS n FROM pg_stat_activity
      WHERE datname = current_database() AND application_name LIKE 'lunashard mover%']] },
  { "advisory locks", [[SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())]] },
  { "prepared transactions", "SELECT count(*) AS n FROM pg_prepared_xacts" },
}

local OWNED = "SELECT bucket, version FROM lunashard.bucket WHERE grp = 'int8'"
local GUARDS = "SELECT count(*) AS n FROM lunashard_catalog.cluster WHERE guards"

local function check_owners(shard, map, owners, verdict)
  for _, row in ipairs(assert(shard.ask(OWNED))) do
    local said = map[row.bucket]
    if owners[row.bucket] then
      verdict:blame("leftovers", "bucket %s is owned by %s and %s", row.bucket, owners[row.bucket], shard.shard_id)
    elseif not said or said.shard_id ~= shard.shard_id or said.version ~= row.version then
      verdict:blame("leftovers", "bucket %s is %s's at version %d, the catalog says %s's at %s", row.bucket,
        shard.shard_id, row.version, said and said.shard_id or "nobody", said and tostring(said.version) or "none")
    end
    owners[row.bucket] = shard.shard_id
  end
end

--- Look for it. Yields.
-- @tparam {table,...} shards as `world.read` has them; the first has the catalog
-- @tparam table map bucket -> `shard_id`, `version`, by the catalog
-- @tparam Verdict verdict
function leftovers.check(shards, map, verdict)
  local owners = {}
  for i, shard in ipairs(shards) do
    for _, look in ipairs(LOOKS) do
      local n = tonumber(assert(shard.ask(look[2]))[1].n)
      if n ~= 0 then
        verdict:blame("leftovers", "%s has %d %s", shard.shard_id, n, look[1])
      end
    end
    if i == 1 and assert(shard.ask(GUARDS))[1].n ~= 0 then
      verdict:blame("leftovers", "guards are on")
    end
    check_owners(shard, map, owners, verdict)
  end
  for bucket, said in pairs(map) do
    if not owners[bucket] then
      verdict:blame("leftovers", "bucket %s is nobody's, the catalog says %s's", bucket, said.shard_id)
    end
  end
end

return leftovers
