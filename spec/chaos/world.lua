--- The tables of the chaos runs: how they begin, and what is in them in the end.
-- @module spec.chaos.world

local world = {}

--- What an account begins with.
world.BALANCE = 100

--- Texts of these lengths: in the row, compressed, and out of line.
world.SIZES = { 10, 3000, 40000 }

world.TABLES = {
  registers = { shard_key = "k", type = "int8" },
  tokens = { shard_key = "k", type = "int8" },
  accounts = { shard_key = "k", type = "int8" },
  parents = { shard_key = "k", type = "int8" },
  children = { shard_key = "k", type = "int8" },
}

world.SCHEMA = [[
  CREATE TABLE registers (k bigint PRIMARY KEY, version bigint NOT NULL, value text NOT NULL);
  CREATE TABLE tokens (k bigint, token text, body text, PRIMARY KEY (k, token));
  CREATE TABLE accounts (k bigint, side int, balance bigint NOT NULL, PRIMARY KEY (k, side));
  CREATE TABLE parents (k bigint PRIMARY KEY, children int NOT NULL);
  CREATE TABLE children (k bigint REFERENCES parents ON DELETE CASCADE, n bigint GENERATED ALWAYS AS IDENTITY,
    body text, length int GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (k, n))]]

--- Make the tables on every shard, and fill them. Yields.
-- @tparam Router router
-- @int keys 1 to this
function world.create(router, keys)
  assert(router:execute_on_all_shards(world.SCHEMA))
  local registers, accounts, parents = {}, {}, {}
  for key = 1, keys do
    registers[key] = { key, 0, "start" }
    accounts[#accounts + 1] = { key, 1, world.BALANCE }
    accounts[#accounts + 1] = { key, 2, world.BALANCE }
    parents[key] = { key, 0 }
  end
  assert(router:copy_in("registers", { "k", "version", "value" }, registers))
  assert(router:copy_in("accounts", { "k", "side", "balance" }, accounts))
  assert(router:copy_in("parents", { "k", "children" }, parents))
end

-- Every row of a table with the shard that has it. Nothing of routing is between: each shard is asked by itself.
local function all_rows(shards, sql)
  local rows = {}
  for _, shard in ipairs(shards) do
    for _, row in ipairs(assert(shard.ask(sql))) do
      row.shard_id = shard.shard_id
      rows[#rows + 1] = row
    end
  end
  return rows
end

--- What is there, found without a router.
-- @tparam {table,...} shards each with `shard_id` and `ask(sql) -> rows`; a shard that does not answer is an error
-- @tparam Verdict verdict gets what is wrong with the rows alone
-- @tparam func owner_of key -> shard_id by the catalog
-- @treturn table `registers` and `tokens` as the verdict wants them
function world.read(shards, verdict, owner_of)
  local final = { registers = {}, tokens = {} }
  local function at_home(what, row)
    if owner_of(row.k) ~= row.shard_id then
      verdict:blame("stray", "%s of key %s is on %s, its owner is %s", what, tostring(row.k), row.shard_id,
        tostring(owner_of(row.k)))
    end
  end
  for _, row in ipairs(all_rows(shards, "SELECT * FROM registers")) do
    at_home("the register", row)
    if final.registers[row.k] then
      verdict:blame("duplicated", "the register of key %s is on %s and %s", row.k, row.shard_id,
        final.registers[row.k].shard_id)
    end
    final.registers[row.k] = row
  end
  for _, row in ipairs(all_rows(shards, "SELECT k, token FROM tokens")) do
    at_home("a token", row)
    final.tokens[row.token] = (final.tokens[row.token] or 0) + 1
  end
  local sides = {}
  for _, row in ipairs(all_rows(shards, "SELECT k, count(*) AS n, sum(balance)::bigint AS total FROM accounts GROUP BY k")) do
    at_home("an account", row)
    sides[row.k] = { n = (sides[row.k] and sides[row.k].n or 0) + row.n,
      total = (sides[row.k] and sides[row.k].total or 0) + row.total }
  end
  for key in pairs(final.registers) do
    local found = sides[key] or { n = 0, total = 0 }
    if found.n ~= 2 or found.total ~= 2 * world.BALANCE then
      verdict:blame(found.n > 2 and "duplicated" or "lost", "key %s has %d accounts with %d in all", key, found.n,
        found.total)
    end
  end
  local families = all_rows(shards, [[
    SELECT p.k, p.children, (SELECT count(*) FROM children c WHERE c.k = p.k) AS found FROM parents p]])
  local parents = {}
  for _, row in ipairs(families) do
    at_home("a parent", row)
    parents[row.k] = (parents[row.k] or 0) + 1
    if row.children ~= row.found then
      verdict:blame(row.found < row.children and "lost" or "duplicated", "key %s has %d children, its parent says %d",
        row.k, row.found, row.children)
    end
  end
  for key in pairs(final.registers) do
    if parents[key] ~= 1 then
      verdict:blame(parents[key] and "duplicated" or "lost", "key %s has %d parents", key, parents[key] or 0)
    end
  end
  return final
end

return world
