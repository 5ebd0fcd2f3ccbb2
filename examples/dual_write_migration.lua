-- Migration from a single database: dual-write, back-fill in batches, comparison by counts and checksums, switching reads.
--
-- The old database is the one of the sandbox's first shard, seen through a manager of its own. It makes (and
-- replaces) the table demo_old_users there, and demo_members on every shard.

local lunashard = require("lunashard")

local OLD_USERS, BATCH = 5000, 500

-- The old system: one database, one table.
local first = assert(require("lunashard.cluster").load(cluster.path)).shards[1]
first.shard_id = "old"
local old_manager = lunashard.manager { shards = { first }, strategy = { "hash", shard_key = "user_id" } }
assert(old_manager:initialize())
local old_db = lunashard.router { shard_manager = old_manager }
local OLD = { shard_id = "old" }

assert(old_db:execute_on_all_shards(([[
  DROP TABLE IF EXISTS demo_old_users;
  CREATE TABLE demo_old_users (
    user_id bigint PRIMARY KEY, name text NOT NULL, email text, version bigint NOT NULL DEFAULT 1);
  INSERT INTO demo_old_users SELECT i, 'user ' || i, 'user' || i || '@example.com' FROM generate_series(1, %d) AS i;
]]):format(OLD_USERS)))

-- ---- 1. set up the sharding infrastructure; no traffic yet -----------------------------------

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_members;
  CREATE TABLE demo_members (user_id bigint PRIMARY KEY, name text NOT NULL, email text, version bigint NOT NULL);
]]))

-- Dual writes and back-fill meet on the same rows in any order, so both say the same upsert, in which the newer
-- version wins: running it late, or twice, changes nothing.
local UPSERT = [[
  INSERT INTO demo_members (user_id, name, email, version) VALUES ($1, $2, $3, $4)
  ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, email = excluded.email, version = excluded.version
  WHERE demo_members.version < excluded.version]]

local function values_of(row)
  return { row.user_id, row.name, row.email or lunashard.null, row.version }
end

-- ---- 2. dual-write phase: the old database decides, the shards follow -------------------------

local to_repair = {} -- users whose write reached the old database but not their shard

local function save_user_dual_write(user_id, name, email)
  local saved, err = old_db:execute([[
    INSERT INTO demo_old_users (user_id, name, email) VALUES ($1, $2, $3)
    ON CONFLICT (user_id) DO UPDATE SET name = excluded.name, email = excluded.email,
      version = demo_old_users.version + 1
    RETURNING user_id, name, email, version]], { user_id, name, email }, OLD)
  if not saved then
    return nil, err
  end
  if not router:execute(UPSERT, values_of(saved.rows[1]), { routing_key = user_id }) then
    to_repair[user_id] = true -- the user is not lost: the comparison would find the row as well
  end
  return true
end

-- Live traffic during the whole back-fill: changes of old users and new ones.
local writes, traffic_on = 0, true
local traffic = lunashard.spawn(function()
  while traffic_on do
    writes = writes + 1
    local user_id = writes % 2 == 0 and OLD_USERS + writes or (writes * 7919) % OLD_USERS + 1
    assert(save_user_dual_write(user_id, "changed " .. writes, ("changed%d@example.com"):format(writes)))
  end
end)

-- ---- 3. back-fill historical data, by key and in batches --------------------------------------

local after, copied, batches = 0, 0, 0
while true do
  local batch = assert(old_db:execute(
    "SELECT user_id, name, email, version FROM demo_old_users WHERE user_id > $1 ORDER BY user_id LIMIT $2",
    { after, BATCH }, OLD))
  if batch.row_count == 0 then
    break
  end
  local list = {}
  for i, row in ipairs(batch.rows) do
    list[i] = values_of(row)
  end
  assert(router:execute_many(UPSERT, list, { key = 1 }))
  after, copied, batches = batch.rows[#batch.rows].user_id, copied + batch.row_count, batches + 1
  if after >= OLD_USERS then
    traffic_on = false -- enough of it for an example; a real one never stops
  end
end
assert(traffic:join(30))
print(("Back-filled %d users in %d batches of %d, during %d dual writes"):format(copied, batches, BATCH, writes))
assert(copied >= OLD_USERS and writes > 0)

-- ---- 4. verify consistency: counts and checksums, range by range -------------------------------

local SUMS = [[
  SELECT user_id / %d AS range, count(*) AS count,
         sum(hashtextextended(concat_ws('|', user_id, name, coalesce(email, 'NULL'), version), 0)::numeric) AS checksum
  FROM %s GROUP BY 1]]

-- Ranges that differ. The sums of numeric are exact, whatever the order and whoever adds them up.
local function compare()
  local old_sums = assert(old_db:execute(SUMS:format(BATCH, "demo_old_users"), nil, OLD))
  local new_sums = assert(router:scatter_gather(SUMS:format(BATCH, "demo_members"), nil, {
    aggregation_func = lunashard.aggregate.group_by { keys = { "range" }, count = "count", checksum = "sum" },
  }))
  local by_range, differing = {}, {}
  for _, row in ipairs(new_sums.rows) do
    by_range[row.range] = row
  end
  for _, row in ipairs(old_sums.rows) do
    local other = by_range[row.range]
    if not other or other.count ~= row.count or other.checksum ~= row.checksum then
      differing[#differing + 1] = row.range
    end
    by_range[row.range] = nil
  end
  for range in pairs(by_range) do
    differing[#differing + 1] = range -- rows that the old database does not have
  end
  return differing, #old_sums.rows
end

local differing, ranges = compare()
print(("Compared %d ranges: %d differ"):format(ranges, #differing))
assert(#differing == 0 and next(to_repair) == nil)

-- Would it notice? Lose one write on a shard, find its range, and repair from the old database.
assert(router:execute("UPDATE demo_members SET email = 'wrong', version = 0 WHERE user_id = $1", { 1234 },
  { routing_key = 1234 }))
differing = compare()
assert(#differing == 1 and differing[1] == math.floor(1234 / BATCH), "the damage was not found")
print(("After a lost write: range %d differs"):format(differing[1]))
local damaged = assert(old_db:execute(
  "SELECT user_id, name, email, version FROM demo_old_users WHERE user_id / $1 = $2", { BATCH, differing[1] }, OLD))
local list = {}
for i, row in ipairs(damaged.rows) do
  list[i] = values_of(row)
end
assert(router:execute_many(UPSERT, list, { key = 1 }))
differing = compare()
print(("After the repair: %d differ"):format(#differing))
assert(#differing == 0)

-- ---- 5. switch reads, 6. verify, 7. stop dual-writes -------------------------------------------

local function get_user(user_id)
  local result = assert(router:execute("SELECT user_id, name, email, version FROM demo_members WHERE user_id = $1",
    { user_id }, { routing_key = user_id, read_only = true }))
  return result.rows[1]
end

local checked = 0
for user_id = 1, OLD_USERS, 50 do
  local old_user = assert(old_db:execute("SELECT * FROM demo_old_users WHERE user_id = $1", { user_id }, OLD)).rows[1]
  local user = get_user(user_id)
  for _, column in ipairs { "user_id", "name", "email", "version" } do
    assert(user[column] == old_user[column], ("user %d: %s differs"):format(user_id, column))
  end
  checked = checked + 1
end
print(("Reads switched to the shards: %d users read from both, all equal"):format(checked))

local total = assert(router:scatter_gather("SELECT count(*) AS count FROM demo_members", nil,
  { aggregation_func = lunashard.aggregate.sum("count") }))
local old_total = assert(old_db:execute("SELECT count(*) AS count FROM demo_old_users", nil, OLD)).rows[1].count
assert(tonumber(total.rows[1].count) == old_total)
print(("Dual writes stopped; %d users on %d shards"):format(old_total, #manager.shards))

old_manager:shutdown()

-- expect: Back%-filled [5-9]%d%d%d users in %d+ batches of 500, during %d+ dual writes
-- expect: Compared %d+ ranges: 0 differ
-- expect: After a lost write: range 2 differs
-- expect: After the repair: 0 differ
-- expect: Reads switched to the shards: 100 users read from both, all equal
-- expect: Dual writes stopped; [5-9]%d%d%d users on 3 shards
