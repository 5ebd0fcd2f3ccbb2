--- The tables of the chaos runs: how they begin, and what is in them in the end.
-- @module spec.chaos.world

local dice = require("spec.chaos.dice")

local world = {}

--- What an account begins with.
world.BALANCE = 100

--- Texts of these lengths: in the row, compressed, and out of line.
world.SIZES = { 10, 3000, 40000 }

-- Some that can be compressed, and some that cannot and lie out of line.
local function bodies()
  local list, drawn = {}, dice.new(1, "bodies")
  for _, size in ipairs(world.SIZES) do
    local noise = {}
    for i = 1, math.min(size, 8000) do
      noise[i] = string.char(drawn:int(33, 126))
    end
    list[#list + 1] = ("%02x"):format(size % 256):rep(size / 2)
    list[#list + 1] = table.concat(noise)
  end
  return list
end

--- What tokens have; which of these is the last part of a token.
world.BODIES = bodies()

world.TABLES = {}
for _, name in ipairs({ "registers", "tokens", "accounts", "parents", "children", "extras", "sweeps" }) do
  world.TABLES[name] = { shard_key = "k", type = "int8" }
end

world.SCHEMA = [[
  CREATE TABLE registers (k bigint PRIMARY KEY, version bigint NOT NULL, value text NOT NULL);
  CREATE TABLE tokens (k bigint, token text, body text, PRIMARY KEY (k, token));
  CREATE TABLE accounts (k bigint, side int, balance bigint NOT NULL, PRIMARY KEY (k, side));
  CREATE TABLE parents (k bigint PRIMARY KEY, children int NOT NULL);
  CREATE TABLE children (k bigint REFERENCES parents ON DELETE CASCADE, n bigint GENERATED ALWAYS AS IDENTITY,
    body text, length int GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (k, n));
  CREATE TABLE extras (k bigint, id bigint, token text NOT NULL, n int NOT NULL DEFAULT 0, big text, doc json, fields jsonb,
    place point, amount numeric, ratio float8, bytes bytea, list text[], moment timestamp, mark xml, nothing text,
    digest text NOT NULL, PRIMARY KEY (k, id), UNIQUE (k, token));
  ALTER TABLE extras ALTER big SET STORAGE EXTERNAL;
  CREATE TABLE sweeps (k bigint PRIMARY KEY, n bigint NOT NULL)]]

local VALUES = "big, doc::text, fields, place::text, amount, ratio, bytes, list, moment, mark::text, nothing"

--- SQL by which a row of `extras` has the values that it was written with.
world.IS_WHOLE = ("digest = md5(ROW(%s)::text)"):format(VALUES)

--- A row of `extras`: $1 key, $2 id, $3 token, $4 length of the large value / 32.
world.INSERT_EXTRA = ([[
  INSERT INTO extras (k, id, token, big, doc, fields, place, amount, ratio, bytes, list, moment, mark, nothing, digest)
    SELECT $1, $2, $3, v.*, md5(ROW(%s)::text) FROM (
      SELECT repeat(md5($3::text), $4::int) AS big, json_build_object('a',  1.10, 'b', $3::text) AS doc,
        jsonb_build_object('c', 1.10) AS fields, point(1.5, length($3::text)) AS place,
        1.10::numeric AS amount, 'NaN'::float8 AS ratio, decode(md5($3::text), 'hex') AS bytes,
        ARRAY[$3::text, NULL, '"', E'\\', ''] AS list, timestamp '2026-02-28 23:59:59.123456' AS moment,
        xmlparse(CONTENT '<a>b</a>') AS mark, NULL::text AS nothing) v]]):format(VALUES)

--- Fill the tables, which are empty. Yields.
-- @tparam Router router
-- @int keys 1 to this
function world.fill(router, keys)
  local registers, accounts, parents, sweeps = {}, {}, {}, {}
  for key = 1, keys do
    registers[key] = { key, 0, "start" }
    accounts[#accounts + 1] = { key, 1, world.BALANCE }
    accounts[#accounts + 1] = { key, 2, world.BALANCE }
    parents[key] = { key, 0 }
    sweeps[key] = { key, 0 }
  end
  assert(router:copy_in("registers", { "k", "version", "value" }, registers))
  assert(router:copy_in("accounts", { "k", "side", "balance" }, accounts))
  assert(router:copy_in("parents", { "k", "children" }, parents))
  assert(router:copy_in("sweeps", { "k", "n" }, sweeps))
end

--- Make the tables on every shard, and fill them. Yields.
-- @tparam Router router
-- @int keys 1 to this
function world.create(router, keys)
  assert(router:execute_on_all_shards(world.SCHEMA))
  world.fill(router, keys)
end

-- ---- in the end --------------------------------------------------------------------------

-- Every row with the shard that has it. Nothing of routing is between: each shard is asked by itself. One that does
-- not answer, or whose rows are not as many as it counts, is an error.
local function all_rows(shards, from, columns)
  local rows = {}
  for _, shard in ipairs(shards) do
    local list = assert(shard.ask(("SELECT %s FROM %s"):format(columns or "*", from)))
    local counted = assert(shard.ask("SELECT count(*) AS n FROM " .. from))[1].n
    assert(#list == counted, ("%s has %s rows in %s and gave %d"):format(shard.shard_id, tostring(counted), from, #list))
    for _, row in ipairs(list) do
      row.shard_id = shard.shard_id
      rows[#rows + 1] = row
    end
  end
  return rows
end

-- One row for each key.
local function by_key(verdict, rows, what)
  local found = {}
  for _, row in ipairs(rows) do
    local other = found[row.k]
    if other then
      verdict:blame("duplicated", "the %s of key %s is on %s and %s", what, row.k, row.shard_id, other.shard_id)
    end
    found[row.k] = row
  end
  return found
end

local function read_tokens(shards, verdict, at_home, final)
  local md5 = {}
  for i, body in ipairs(world.BODIES) do
    md5[i] = assert(shards[1].ask(("SELECT md5('%s') AS m"):format(body:gsub("'", "''"))))[1].m
  end
  for _, row in ipairs(all_rows(shards, "tokens", "k, token, md5(body) AS m")) do
    at_home("a token", row)
    final.tokens[row.token] = (final.tokens[row.token] or 0) + 1
    local body = tonumber(row.token:match("/(%d+)$"))
    if md5[body] ~= row.m then
      verdict:blame("wrong_read", "token %s has another text than it was given", row.token)
    end
  end
  for _, row in ipairs(all_rows(shards, "extras", "k, token, n, id, " .. world.IS_WHOLE .. " AS whole")) do
    at_home("an extra", row)
    final.tokens[row.token] = (final.tokens[row.token] or 0) + 1
    final.counters[row.token] = row
    if row.whole ~= true then
      verdict:blame("wrong_read", "the row with token %s has other values than it was given", row.token)
    end
  end
end

local function read_accounts(shards, verdict, at_home, keys)
  local sides = {}
  for _, row in ipairs(all_rows(shards, "accounts", "k, balance")) do
    at_home("an account", row)
    local key = sides[row.k] or { n = 0, total = 0 }
    sides[row.k] = { n = key.n + 1, total = key.total + row.balance }
  end
  for key = 1, keys do
    local found = sides[key] or { n = 0, total = 0 }
    if found.n ~= 2 or found.total ~= 2 * world.BALANCE then
      verdict:blame(found.n > 2 and "duplicated" or "lost", "key %s has %d accounts with %d in all", key, found.n,
        found.total)
    end
  end
end

local function read_families(shards, verdict, at_home, keys)
  local children, parents = {}, {}
  for _, row in ipairs(all_rows(shards, "children", "k, length = length(body) AS whole")) do
    at_home("a child", row)
    children[row.k] = (children[row.k] or 0) + 1
    if row.whole ~= true then
      verdict:blame("wrong_read", "a child of key %s is not as it was written", row.k)
    end
  end
  for _, row in ipairs(all_rows(shards, "parents")) do
    at_home("a parent", row)
    parents[row.k] = (parents[row.k] or 0) + 1
    local found = children[row.k] or 0
    if row.children ~= found then
      verdict:blame(found < row.children and "lost" or "duplicated", "key %s has %d children, its parent says %d",
        row.k, found, row.children)
    end
  end
  for key = 1, keys do
    if parents[key] ~= 1 then
      verdict:blame(parents[key] and "duplicated" or "lost", "key %s has %d parents", key, parents[key] or 0)
    end
  end
end

--- What is there, found without a router.
-- @tparam {table,...} shards each with `shard_id` and `ask(sql) -> rows`; a shard that does not answer is an error
-- @tparam Verdict verdict gets what is wrong with the rows alone
-- @tparam func owner_of key -> shard_id by the catalog
-- @int keys
-- @treturn table `registers`, `tokens`, `counters` and `sweeps` as the verdict wants them
function world.read(shards, verdict, owner_of, keys)
  local final = { tokens = {}, counters = {} }
  local function at_home(what, row)
    if owner_of(row.k) ~= row.shard_id then
      verdict:blame("stray", "%s of key %s is on %s, its owner is %s", what, tostring(row.k), row.shard_id,
        tostring(owner_of(row.k)))
    end
  end
  for _, one in ipairs({ "registers", "sweeps" }) do
    local rows = all_rows(shards, one)
    for _, row in ipairs(rows) do
      at_home("a row of " .. one, row)
    end
    final[one] = by_key(verdict, rows, one)
    for key = 1, keys do
      if not final[one][key] then
        verdict:blame("lost", "key %s has no row in %s", key, one)
      end
    end
  end
  read_tokens(shards, verdict, at_home, final)
  read_accounts(shards, verdict, at_home, keys)
  read_families(shards, verdict, at_home, keys)
  return final
end

return world
