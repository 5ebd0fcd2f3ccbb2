local cluster = require("spec.support.cluster")
local ffi = require("ffi")
local lunashard = require("lunashard")

-- What COPY stores must be what an INSERT of the same values stores, for any values, on the shard where
-- the server itself would look for the key.
describe("router:copy_in and execute", function()
  local router, manager
  local COLUMNS = { "id", "t", "f", "n", "b", "bytes", "list", "doc", "at" }
  local TYPES = "id int8, t text, f float8, n numeric, b bool, bytes bytea, list text[], doc jsonb, at timestamptz"

  local seed = tonumber(os.getenv("SEED")) or os.time()
  print(("seed %d (repeat with SEED=%d)"):format(seed, seed))
  math.randomseed(seed)

  setup(function()
    router, manager = cluster.connect({ tables = { ["e_values.copied"] = { shard_key = "id", type = "int8" } } })
    assert(router:execute_on_all_shards(([[
      DROP SCHEMA IF EXISTS e_values CASCADE; CREATE SCHEMA e_values;
      CREATE TABLE e_values.copied (%s); CREATE TABLE e_values.inserted (%s);
      CREATE TABLE e_values.parted (id int8) PARTITION BY HASH (id)]]):format(TYPES, TYPES)))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_values CASCADE"))
    cluster.release()
  end)

  local random = math.random
  local PIECES = { "a", "Z", " ", "\t", "\n", "\r", "\\", "\\N", "\\.", "'", '"', ",", "{", "}", "NULL", "é", "€", "😀", "\b",
    "\f", "\v", "\127", "x41", "101", "" }

  local function text()
    local parts = {}
    for i = 1, random(0, 12) do
      parts[i] = PIECES[random(#PIECES)]
    end
    return table.concat(parts)
  end

  local function bytes()
    local list = {}
    for i = 1, random(0, 20) do
      list[i] = string.char(random(0, 255))
    end
    return table.concat(list)
  end

  local function int8()
    local kind = random(6)
    if kind == 1 then
      return ffi.new("int64_t", random(-2 ^ 31, 2 ^ 31)) * 2 ^ 31 + random(0, 2 ^ 31 - 1)
    elseif kind == 2 then
      return random(0, 1) == 0 and 2 ^ 53 or -2 ^ 53
    elseif kind == 3 then
      return tostring(random(-1000, 1000))
    end
    return random(-2 ^ 31, 2 ^ 31)
  end

  local function number()
    local kind = random(6)
    if kind == 1 then
      return random(-10 ^ 6, 10 ^ 6)
    elseif kind == 2 then
      return random(-10 ^ 9, 10 ^ 9) / 100
    elseif kind == 3 then
      return random() * 10 ^ random(-300, 300)
    elseif kind == 4 then
      return ({ 1 / 0, -1 / 0, 0 / 0, 0, -0, 2 ^ 63, -2 ^ 63, 1e22, 5e-324 })[random(9)]
    end
    return random(-10 ^ 6, 10 ^ 6) / 10 ^ random(0, 7)
  end

  local function array()
    local list = {}
    for i = 1, random(0, 5) do
      list[i] = random(4) == 1 and lunashard.null or text()
    end
    return list
  end

  local function or_null(value)
    return random(5) == 1 and lunashard.null or value
  end

  local function row()
    return {
      int8(), or_null(text()), or_null(number()), or_null(({ 0, -1.5, 12.25, "1e50", 99999999999 })[random(5)]),
      or_null(random(2) == 1), or_null(lunashard.bytea(bytes())), or_null(array()),
      or_null(lunashard.json({ [text()] = text(), n = random(100) })),
      or_null(("2024-02-%02d %02d:00:00.%03d+02"):format(random(28), random(0, 23), random(0, 999))),
    }
  end

  local function named(list)
    local by_name = {}
    for i, column in ipairs(COLUMNS) do
      by_name[column] = list[i]
    end
    return by_name
  end

  it("store the same values, whatever these are", function()
    local rows = {}
    for i = 1, 2000 do
      rows[i] = row()
    end
    local holes = {}
    for i, values in ipairs(rows) do
      if i % 3 == 0 then
        holes[i] = named(values)
      elseif i % 3 == 1 then -- NULLs as nil
        local list = {}
        for c = 1, #COLUMNS do
          if values[c] ~= lunashard.null then
            list[c] = values[c]
          end
        end
        holes[i] = list
      else
        holes[i] = values
      end
    end
    assert(router:copy_in("e_values.copied", COLUMNS, holes))
    assert(router:execute_many("INSERT INTO e_values.inserted VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", rows, { key = 1 }))
    local total = 0
    for _, info in ipairs(manager.shards) do
      local on = { shard_id = info.shard_id }
      local different = assert(router:execute([[
        (TABLE e_values.copied EXCEPT ALL TABLE e_values.inserted)
        UNION ALL (TABLE e_values.inserted EXCEPT ALL TABLE e_values.copied)]], nil, on)).rows
      assert.same({}, different)
      total = total + assert(router:execute("SELECT count(*) AS n FROM e_values.copied", nil, on)).rows[1].n
    end
    assert.equal(2000, total)
  end)

  it("agree with the server on where a key belongs", function()
    for i, info in ipairs(manager.shards) do
      local stray = assert(router:execute(
        "SELECT id FROM e_values.copied WHERE NOT satisfies_hash_partition('e_values.parted'::regclass, $1, $2, id)",
        { #manager.shards, i - 1 }, { shard_id = info.shard_id })).rows
      assert.same({}, stray)
    end
  end)
end)
