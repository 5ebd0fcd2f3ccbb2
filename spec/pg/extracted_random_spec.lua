local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")

-- Random statements without a routing key, beside a table in Lua that says what each must have done. In the end every row
-- lies where the strategy puts its key. LUNASHARD_RANDOM is how many; SEED repeats a run.
describe("random statements that name their keys", function()
  local ROUNDS = tonumber(os.getenv("LUNASHARD_RANDOM")) or 150
  local SEED = tonumber(os.getenv("SEED")) or os.time()
  local MAX_KEY = 60

  local router, manager, plain, model

  setup(function()
    router, manager = cluster.connect({ tables = { r_items = { shard_key = "item_id", type = "int8" } }, strategy = { "hash" } })
    plain = lunashard.router({ shard_manager = manager, extractor = false })
    assert(router:execute_on_all_shards(
      "DROP TABLE IF EXISTS r_items; CREATE TABLE r_items (item_id int8 PRIMARY KEY, note text)"))
    model = {}
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE r_items"))
    cluster.release()
  end)

  local random = math.random

  local function pick(list)
    return list[random(#list)]
  end

  local function some_keys()
    local keys, seen = {}, {}
    for _ = 1, random(6) do
      local key = random(MAX_KEY)
      if not seen[key] then
        seen[key], keys[#keys + 1] = true, key
      end
    end
    return keys
  end

  -- A key as a parameter or a literal, in one of many forms.
  local function written(key, params)
    local form = random(8)
    if form <= 4 then
      params[#params + 1] = pick({ key, tostring(key), key + 0LL })
      return pick({ "$%d", "$%d::int8", "CAST($%d AS bigint)" }):format(#params)
    end
    return pick({ "%d", "'%d'", "%d::int8", "int8 '%d'", "(%d)" }):format(key)
  end

  local function list_of(keys, params)
    local parts = {}
    for i, key in ipairs(keys) do
      parts[i] = written(key, params)
    end
    return table.concat(parts, ", ")
  end

  local function condition(keys, params)
    if #keys == 1 and random(2) == 1 then
      local key = written(keys[1], params)
      return pick({ "item_id = %s", "%s = item_id", "r.item_id = %s", "item_id = %s AND (note IS NULL OR note <> 'never')" })
        :format(key)
    elseif random(2) == 1 then
      params[#params + 1] = keys
      return pick({ "item_id = ANY ($%d)", "r.item_id = ANY ($%d::int8[])" }):format(#params)
    elseif random(4) == 1 then
      local parts = {}
      for i, key in ipairs(keys) do
        parts[i] = "item_id = " .. written(key, params)
      end
      return "(" .. table.concat(parts, " OR ") .. ")"
    end
    return ("item_id IN (%s)"):format(list_of(keys, params))
  end

  local function sorted(keys)
    table.sort(keys)
    return keys
  end

  local function present(keys)
    local list = {}
    for _, key in ipairs(keys) do
      list[#list + 1] = model[key] and key or nil
    end
    return sorted(list)
  end

  local function keys_in(rows)
    local list = {}
    for i, row in ipairs(rows) do
      list[i] = row.item_id
    end
    return sorted(list)
  end

  local ACTIONS = {}

  function ACTIONS.insert(n)
    local params, rows, keys, note = {}, {}, some_keys(), "note " .. n
    for i, key in ipairs(keys) do
      params[#params + 1] = note
      local at = #params
      rows[i] = pick({ "($%d, %s)", "($%d || '', %s)" }):format(at, written(key, params))
    end
    local added = {}
    for _, key in ipairs(keys) do
      if not model[key] then
        model[key], added[#added + 1] = note, key
      end
    end
    local result = assert(router:execute("INSERT INTO r_items (note, item_id) VALUES " .. table.concat(rows, ", ")
      .. " ON CONFLICT DO NOTHING RETURNING item_id", params))
    assert.same(sorted(added), keys_in(result.rows))
  end

  function ACTIONS.update(n)
    local params, keys, note = { "changed " .. n }, some_keys(), "changed " .. n
    local result = assert(router:execute("UPDATE r_items AS r SET note = $1 WHERE " .. condition(keys, params)
      .. " RETURNING item_id", params))
    assert.same(present(keys), keys_in(result.rows))
    for _, key in ipairs(keys) do
      model[key] = model[key] and note
    end
  end

  function ACTIONS.delete()
    local params, keys = {}, some_keys()
    local result = assert(router:execute("DELETE FROM r_items r WHERE " .. condition(keys, params), params))
    assert.equal(#present(keys), result.row_count)
    for _, key in ipairs(keys) do
      model[key] = nil
    end
  end

  function ACTIONS.select()
    local params, keys = {}, some_keys()
    local result = assert(router:execute("SELECT item_id, note FROM r_items r WHERE " .. condition(keys, params)
      .. pick({ "", " ORDER BY item_id", " ORDER BY note COLLATE \"C\", item_id DESC" }), params))
    for _, row in ipairs(result.rows) do
      assert.equal(model[row.item_id], row.note)
    end
    assert.same(present(keys), keys_in(result.rows))
  end

  function ACTIONS.count()
    local params, keys = {}, some_keys()
    local rows = assert(router:execute("SELECT count(*) AS n FROM r_items r WHERE " .. condition(keys, params), params)).rows
    assert.same({ { n = #present(keys) } }, rows)
  end

  it("do what they say, where the strategy says", function()
    math.randomseed(SEED)
    local names = { "insert", "insert", "update", "delete", "select", "select", "count" }
    for n = 1, ROUNDS do
      local name = pick(names)
      local ok, err = pcall(ACTIONS[name], n)
      assert(ok, ("SEED=%d, statement %d (%s): %s"):format(SEED, n, name, tostring(err)))
    end
    local n, expected = 0, 0
    for _, info in ipairs(manager.shards) do
      for _, row in ipairs(assert(plain:execute("SELECT * FROM r_items", nil, { shard_id = info.shard_id })).rows) do
        assert.equal(info.shard_id, manager:get_shard_for_write(row.item_id).shard_id)
        assert.equal(model[row.item_id], row.note)
        n = n + 1
      end
    end
    for _ in pairs(model) do
      expected = expected + 1
    end
    assert.equal(expected, n)
  end)
end)
