local keyed = require("spec.support.keyed_statements")
local lunashard = require("lunashard")
local merging = require("spec.support.merging")

-- Random statements that name keys, without a routing key, on three shards and on one database with all rows: the same
-- rows, the same counts and in the end the same tables; or a refusal. SEED repeats a run, LUNASHARD_RANDOM is how many.
describe("statements that name keys, on three shards", function()
  local ROUNDS = tonumber(os.getenv("LUNASHARD_RANDOM")) or 200
  local SEED = tonumber(os.getenv("SEED")) or os.time()

  local REFUSALS = { NO_KEY = true, NOT_MERGEABLE = true, NULL_KEY = true, INVALID = true, KEY_MISMATCH = true }

  local place, spread, single

  setup(function()
    math.randomseed(SEED)
    place = merging.open()
    local rows = merging.rows(90)
    spread = place:cluster(3, rows)
    local one = place:cluster(1, rows)
    single = lunashard.router({ shard_manager = one.manager, extractor = false })
  end)

  teardown(function()
    place:close()
  end)

  local function sqlstate_of(err)
    if err.code == "SHARDS_FAILED" then
      return err.failed[1].error.sqlstate
    end
    return err.sqlstate
  end

  local function contents(router, name)
    local lines = {}
    for _, member in ipairs(router.manager.members) do
      local found = assert(router:execute("SELECT * FROM " .. name, nil, { shard_id = member.shard_id }))
      for line in merging.text(found):gmatch("[^\n]+") do
        lines[line] = (lines[line] or 0) + 1
      end
      if #router.manager.members > 1 then
        for _, row in ipairs(found.rows) do
          assert.equal(member.shard_id, router.manager:get_shard_for_write(row.user_id).shard_id)
        end
      end
    end
    return lines
  end

  local function assert_same_tables(what)
    for _, name in ipairs({ "events", "orders" }) do
      local here, there = contents(spread, name), contents(single, name)
      for line in pairs(there) do
        if line:find("user_id int8", 1, true) then -- the header, once for each shard
          here[line], there[line] = nil, nil
        end
      end
      assert.same(there, here, what)
    end
  end

  local function compare(what, sql, params)
    local result, err = spread:execute(sql, params)
    if not result and REFUSALS[err.code] then
      return false
    end
    local expected, wrong = single:execute(sql, params, { shard_id = "d1" })
    if not result or not expected then
      assert(not result and not expected and sqlstate_of(err) == wrong.sqlstate,
        ("%s: %s, but on one database %s"):format(what, tostring(err or "done"), tostring(wrong or "done")))
      return true
    end
    assert.equal(merging.text(expected), merging.text(result), what)
    assert.equal(expected.row_count, result.row_count, what)
    return true
  end

  it("do what they do on one database with all rows, or are refused", function()
    local done, written = 0, 0
    for n = 1, ROUNDS do
      local sql, params, writes = keyed.random()
      local what = ("SEED=%d, statement %d: %s"):format(SEED, n, sql)
      if compare(what, sql, params) then
        done = done + 1
        written = written + (writes and 1 or 0)
        if writes and written % 16 == 0 then
          assert_same_tables(what)
        end
      end
    end
    assert_same_tables(("SEED=%d, in the end"):format(SEED))
    assert.is_true(done > ROUNDS / 3, ("only %d of %d statements were not refused"):format(done, ROUNDS))
  end)
end)
