-- Statements that say themselves whose they are: no routing_key anywhere, and no row in a wrong place.
--
-- It makes (and replaces) the tables demo_members and demo_letters on the shards of the sandbox.

local lunashard = require("lunashard")

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local manager = lunashard.manager {
  shards = shards,
  strategy = { "hash" },
  tables = {
    demo_members = { shard_key = "member_id", type = "int8" },
    demo_letters = { shard_key = "member_id", type = "int8" },
  },
}
assert(manager:initialize())
local router = lunashard.router { shard_manager = manager }

assert(router:execute_on_all_shards([[
  DROP TABLE IF EXISTS demo_members, demo_letters;
  CREATE TABLE demo_members (member_id bigint PRIMARY KEY, name text NOT NULL);
  CREATE TABLE demo_letters (member_id bigint NOT NULL, letter_id bigint NOT NULL, words int NOT NULL);
]]))

-- One INSERT, dealt out to the shards of its rows: a transaction on each, and the answer says how many went where.
local written = assert(router:execute([[INSERT INTO demo_members (name, member_id)
  VALUES ($1, 1), ($2, 2), ($3, 3), ($4, 4), ($5, 5), ($6, 6) RETURNING member_id, name]],
  { "Ada", "Bela", "Chidi", "Dora", "Emre", "Fatou" }))
local parts = {}
for _, shard in ipairs(manager.shards) do
  parts[#parts + 1] = ("%d on %s"):format(written.split[shard.shard_id] or 0, shard.shard_id)
end
print(("Wrote %d members: %s"):format(written.row_count, table.concat(parts, ", ")))

local letters = {}
for i = 1, 60 do
  letters[i] = { i % 6 + 1, i, i * 10 }
end
assert(router:execute_many("INSERT INTO demo_letters (member_id, letter_id, words) VALUES ($1, $2, $3)", letters))

-- One key: one shard. Joins on the shard key stay there.
local sql = "SELECT name, sum(words) AS words FROM demo_members JOIN demo_letters USING (member_id) "
  .. "WHERE member_id = $1 GROUP BY name"
local one = assert(router:execute(sql, { 3 }))
print(("%s wrote %d words, all on %s"):format(one.rows[1].name, one.rows[1].words, one.shard_id))
assert(one.shard_id == manager:get_shard_for_write(3).shard_id)

-- Several keys: their shards, each for its own. None: all of them, and one answer.
local some = assert(router:execute("SELECT name FROM demo_members WHERE member_id = ANY ($1) ORDER BY name", { { 6, 1, 4 } }))
print(("Of three keys: %s, %s and %s"):format(some.rows[1].name, some.rows[2].name, some.rows[3].name))
local top = assert(router:execute([[SELECT name, avg(words) AS words FROM demo_members JOIN demo_letters USING (member_id)
  GROUP BY name ORDER BY words DESC, name LIMIT 2]]))
print(("The longest letters: %s (%.1f) and %s (%.1f)"):format(top.rows[1].name, top.rows[1].words, top.rows[2].name,
  top.rows[2].words))

-- What is not certain is refused, and nothing is sent.
for _, statement in ipairs {
  { "DELETE FROM demo_letters WHERE words > 100" },
  { "INSERT INTO demo_members (name, member_id) VALUES ('Nobody', $1)", { lunashard.null } },
  { "UPDATE demo_members SET member_id = 7 WHERE member_id = 1" },
  { "DELETE FROM demo_members WHERE member_id = 1", nil, { routing_key = 2 } },
} do
  local result, err = router:execute(unpack(statement, 1, 3))
  assert(not result)
  print("Refused: " .. err.code)
end
assert(router:execute("DELETE FROM demo_letters WHERE words > 100", nil, { all_shards = true }).row_count == 50)

-- Why a statement goes where it goes.
print(router:explain(sql, { 3 }))

manager:shutdown()

-- expect: Wrote 6 members: %d on shard1, %d on shard2, %d on shard3
-- expect: Chidi wrote %d+ words, all on shard%d
-- expect: Of three keys: Ada, Dora and Fatou
-- expect: The longest letters: %a+ %(%d+%.%d%) and %a+ %(%d+%.%d%)
-- expect: Refused: NO_KEY\nRefused: NULL_KEY\nRefused: INVALID\nRefused: KEY_MISMATCH
-- expect: named by: by_column: .-member_id = %$1
