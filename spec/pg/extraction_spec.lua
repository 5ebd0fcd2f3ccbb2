-- What is concluded from random statements, compared with what PostgreSQL makes of them: a statement that is said to be
-- about one key must give on that key's rows alone what it gives on all rows, and so on.
-- LUNASHARD_RANDOM is how many; SEED repeats a run.
local cluster = require("spec.support.cluster")
local extraction = require("lunashard.extraction")
local extractor = require("lunashard.extractor")
local levels = require("lunashard.sql.levels")
local lunashard = require("lunashard")
local statement = require("lunashard.sql.statement")
local statements = require("spec.support.statements")
local tables = require("lunashard.sql.tables")

local SHARDS = 3
local COUNT = tonumber(os.getenv("LUNASHARD_RANDOM")) or 60
local PARAMETER = 4

local function shard_of(key)
  return key % SHARDS + 1
end

describe("what is concluded from random statements", function()
  local router, manager, seed
  local planner = extractor.by_column()
  local declared = {
    users = { shard_key = "user_id", type = "int8" }, orders = { shard_key = "user_id", type = "int8" },
    pages = { shard_key = "owner", type = "int8" }, countries = { reference = true },
  }
  local lookup = tables.new(declared)

  -- One schema with all rows, and one for each shard.
  local function create(random)
    local texts = {}
    local function add(text, ...)
      texts[#texts + 1] = text:format(...)
    end
    for i = 0, SHARDS do
      add("DROP SCHEMA IF EXISTS extract_%d CASCADE; CREATE SCHEMA extract_%d", i, i)
      for name, columns in pairs(statements.TABLES) do
        add("CREATE TABLE extract_%d.%s (%s int8, x int8)", i, name, columns[1])
      end
    end
    for name in pairs(statements.TABLES) do
      for key = 1, statements.KEYS do
        for _ = 1, random(0, 3) do
          local x = random(4) == 1 and "NULL" or tostring(random(statements.KEYS))
          for i = 0, SHARDS do
            if i == 0 or name == "countries" or i == shard_of(key) then
              add("INSERT INTO extract_%d.%s VALUES (%d, %s)", i, name, key, x)
            end
          end
        end
      end
    end
    assert(router:execute_on_all_shards(table.concat(texts, "; ")))
  end

  setup(function()
    manager = select(2, cluster.connect())
    router = lunashard.router({ shard_manager = manager, extractor = false }) -- it sends what it is told
    seed = tonumber(os.getenv("SEED")) or math.floor(lunashard.now() * 1000) % 2 ^ 31
    print("seed " .. seed .. " (repeat with SEED=" .. seed .. ")")
    math.randomseed(seed)
    create(math.random)
  end)

  teardown(function()
    for i = 0, SHARDS do
      router:execute_on_all_shards(("DROP SCHEMA IF EXISTS extract_%d CASCADE"):format(i))
    end
    cluster.release()
  end)

  local function schema(tx, number)
    assert(tx:execute(("SET LOCAL search_path = extract_%d"):format(number)))
  end

  local function params_of(sql)
    return sql:find("$1", 1, true) and { PARAMETER } or {}
  end

  local function row_text(row, columns)
    local parts = {}
    for i, name in ipairs(columns) do
      parts[i] = tostring(row[name])
    end
    return table.concat(parts, ",")
  end

  -- Rows as sorted texts.
  local function bag(results)
    local list = {}
    for _, result in ipairs(results) do
      for _, row in ipairs(result.rows) do
        list[#list + 1] = row_text(row, result.columns)
      end
    end
    table.sort(list)
    return table.concat(list, " ")
  end

  local function contents(tx, first, last)
    local all = {}
    for name, columns in pairs(statements.TABLES) do
      local results = {}
      for i = first, name == "countries" and first or last do
        results[#results + 1] = assert(tx:execute(("SELECT %s, x FROM extract_%d.%s"):format(columns[1], i, name)))
      end
      all[#all + 1] = name .. ": " .. bag(results)
    end
    table.sort(all)
    return table.concat(all, "\n")
  end

  -- The shards of a plan, each with its statement. nil when the plan claims nothing.
  local function places(sql, plan, analysis)
    local params = params_of(sql)
    local list = {}
    if plan.kind == "key" then
      return { { shard_of((extraction.keys(plan, params))[1]), sql, params } }
    elseif plan.kind == "reference" then
      return { { math.random(SHARDS), sql, params } }
    elseif plan.kind == "keys" or plan.kind == "rows" then
      local keys, by_shard = extraction.keys(plan, params), {}
      for i, key in ipairs(keys) do
        local shard = shard_of(tonumber(key))
        by_shard[shard] = by_shard[shard] or {}
        table.insert(by_shard[shard], i)
      end
      for shard, indexes in pairs(by_shard) do
        local text, own = sql, params
        if plan.split then
          text, own = plan.split(indexes, params)
        end
        list[#list + 1] = { shard, text, own }
      end
    elseif plan.kind == "range" or plan.kind == "all" then
      for shard = 1, SHARDS do
        list[shard] = { shard, sql, params }
      end
    else
      return nil
    end
    return (#list == 1 or analysis.is_local and #analysis.instances > 0) and list or nil
  end

  local function analyse(sql)
    local plan = assert(extraction.plan(planner, { strategies = declared, tables = declared, strategy = {},
      strategy_for = function()
        return { key_type = "int8" }
      end }, sql))
    return plan, assert(levels.analyse(sql, assert(statement.parse(sql)).ast[1].stmt, lookup))
  end

  -- Run something in a transaction that comes to nothing. nil when the statement is none for PostgreSQL.
  local function in_vain(fn)
    local found
    local _, err = router:transaction({ shard_id = manager.shards[1].shard_id }, function(tx)
      found = { fn(tx) }
      error("enough")
    end)
    if err.sqlstate then
      return nil, err
    elseif not found then
      error(err)
    end
    return unpack(found)
  end

  local function raise_sql(result, err)
    return result or error(err, 0)
  end

  it("holds for reads", function()
    local generator = statements.new(math.random)
    local counts, tried = {}, 0
    while tried < COUNT do
      local sql, plain = generator:read()
      local plan, analysis = analyse(sql)
      local list = places(sql, plan, analysis)
      if list and (#list == 1 or plain) then
        local whole, parts = in_vain(function(tx)
          schema(tx, 0)
          local all = bag({ raise_sql(tx:execute(sql, params_of(sql))) })
          local results = {}
          for i, place in ipairs(list) do
            schema(tx, place[1])
            results[i] = raise_sql(tx:execute(place[2], place[3]))
          end
          return all, bag(results)
        end)
        if whole ~= nil then
          assert.equal(whole, parts, ("seed %d: %s\n%s: %s"):format(seed, sql, plan.kind, plan.reason))
          counts[plan.kind] = (counts[plan.kind] or 0) + 1
          tried = tried + 1
        end
      end
    end
    for _, kind in ipairs({ "key", "keys", "all" }) do
      assert.is_true((counts[kind] or 0) > 0 or COUNT < 200, kind) -- or it shows nothing
    end
  end)

  it("holds for writes: what they leave is the same, and every row is on its shard", function()
    local generator = statements.new(math.random)
    local counts, tried = {}, 0
    while tried < COUNT / 2 do
      local sql = generator:write()
      local plan, analysis = analyse(sql)
      local list = plan.kind ~= "refused" and places(sql, plan, analysis)
      if list then
        local whole, parts = in_vain(function(tx)
          schema(tx, 0)
          raise_sql(tx:execute(sql, params_of(sql)))
          for _, place in ipairs(list) do
            schema(tx, place[1])
            raise_sql(tx:execute(place[2], place[3]))
          end
          for i = 1, SHARDS do
            for _, name in ipairs({ "users", "orders", "pages" }) do
              local strays = assert(tx:execute(("SELECT * FROM extract_%d.%s WHERE %s %% %d + 1 IS DISTINCT FROM %d"):format(
                i, name, statements.TABLES[name][1], SHARDS, i)))
              assert.same({}, strays.rows, sql)
            end
          end
          return contents(tx, 0, 0), contents(tx, 1, SHARDS)
        end)
        if whole ~= nil then
          assert.equal(whole, parts, ("seed %d: %s\n%s: %s"):format(seed, sql, plan.kind, plan.reason))
          counts[plan.kind] = (counts[plan.kind] or 0) + 1
          tried = tried + 1
        end
      end
    end
    for _, kind in ipairs({ "key", "keys", "rows" }) do
      assert.is_true((counts[kind] or 0) > 0 or COUNT < 200, kind)
    end
  end)
end)
