local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local failure = cluster.failure

describe("router:copy_in", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({
      tables = {
        ["e_copy.users"] = { shard_key = "user_id", type = "int8" },
        ["e_copy.countries"] = { reference = true },
      },
    })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_copy CASCADE; CREATE SCHEMA e_copy;
      CREATE TABLE e_copy.users (user_id int8 PRIMARY KEY, name text, tags text[]);
      CREATE TABLE e_copy."Odd ""table""" ("User Id" int8, "select" text);
      CREATE TABLE e_copy.countries (code text PRIMARY KEY)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_copy.users, e_copy.countries"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_copy CASCADE"))
    cluster.release()
  end)

  local COLUMNS = { "user_id", "name" }

  local function stored()
    local rows = assert(router:scatter_gather("SELECT user_id, name, tags FROM e_copy.users ORDER BY user_id")).rows
    table.sort(rows, function(a, b) return a.user_id < b.user_id end)
    return rows
  end

  local function count()
    return assert(router:scatter_gather("SELECT count(*) AS n FROM e_copy.users", nil,
      { aggregation_func = lunashard.aggregate.sum("n") })).rows[1].n
  end

  it("loads every row on the shard that owns it and counts them", function()
    local rows = {}
    for key = 1, 5000 do
      rows[key] = { key, "name " .. key }
    end
    local result = assert(router:copy_in("e_copy.users", COLUMNS, rows))
    assert.equal(5000, result.row_count)
    local sum = 0
    for _, info in ipairs(manager.shards) do
      local found = assert(router:execute("SELECT user_id FROM e_copy.users", nil, { shard_id = info.shard_id })).rows
      assert.equal(result.rows_by_shard[info.shard_id], #found)
      sum = sum + #found
      for _, row in ipairs(found) do
        assert.equal(info.shard_id, manager:get_shard_for_write(row.user_id).shard_id)
      end
    end
    assert.equal(5000, sum)
  end)

  it("keeps every value: tabs, newlines, backslashes, quotes, empty strings, NULLs and arrays", function()
    local odd = { "a\tb", "a\nb", "a\\b", "\\N", "", "'\"", "\\.", "é€😀", "\r" }
    local rows = {}
    for i, name in ipairs(odd) do
      rows[i] = { i, name, { "x,y", 'q"', lunashard.null } }
    end
    rows[#rows + 1] = { 100, lunashard.null }
    rows[#rows + 1] = { 101, nil }
    assert(router:copy_in("e_copy.users", { "user_id", "name", "tags" }, rows))
    local found = stored()
    assert.equal(#rows, #found)
    for i, name in ipairs(odd) do
      assert.equal(name, found[i].name)
      assert.same({ "x,y", 'q"', lunashard.null }, found[i].tags)
    end
    assert.is_nil(found[#found].name)
    assert.is_nil(found[#found - 1].name)
    assert.is_nil(found[#found].tags)
  end)

  it("takes an iterator, and rows by column name", function()
    local i = 0
    local result = assert(router:copy_in("e_copy.users", COLUMNS, function()
      i = i + 1
      return i <= 1200 and { name = "n" .. i, user_id = i } or nil
    end))
    assert.equal(1200, result.row_count)
    assert.equal("n7", stored()[7].name)
  end)

  it("takes rows that show their values through a metatable", function()
    local by_position = setmetatable({}, { __index = function(_, i) return i == 1 and 1 or i == 2 and "one" or nil end })
    local by_name = setmetatable({ user_id = 2 }, { __index = { name = "two" } })
    for _, rows in ipairs({ { by_position, by_name }, coroutine.wrap(function()
      coroutine.yield(by_position)
      coroutine.yield(by_name)
    end) }) do
      assert(router:execute_on_all_shards("TRUNCATE e_copy.users"))
      assert(router:copy_in("e_copy.users", COLUMNS, rows))
      assert.same({ { user_id = 1, name = "one" }, { user_id = 2, name = "two" } }, stored())
    end
  end)

  it("refuses a name in a row that is no column, and names the nearest", function()
    local rows = {}
    for key = 1, 1500 do
      rows[key] = { user_id = key, name = "x" }
    end
    rows[1200] = { user_id = 1200, nmae = "lost" }
    for _, given in ipairs({ rows, coroutine.wrap(function()
      for _, row in ipairs(rows) do
        coroutine.yield(row)
      end
    end) }) do
      local err = failure("PLUGIN_FAILED", router:copy_in("e_copy.users", COLUMNS, given))
      assert.is_truthy(err.message:find('row 1200: it has a value for "nmae"', 1, true), err.message)
      assert.is_truthy(err.message:find('did you mean "name"?', 1, true), err.message)
    end
    assert.equal(0, count())
  end)

  it("leaves no row when one is no table, or has a value without an SQL form, and names it", function()
    for pattern, bad in pairs({
      ["row 1200: expected a table, got a number"] = 17,
      ["row 1200: value 2: a function has no SQL form"] = { 1200, print },
      ["row 1200: value 2: text cannot hold a NUL byte"] = { 1200, "a\0b" },
    }) do
      local rows = {}
      for key = 1, 1500 do
        rows[key] = { key, "x" }
      end
      rows[1200] = bad
      local err = failure("PLUGIN_FAILED", router:copy_in("e_copy.users", COLUMNS, rows))
      assert.is_truthy(err.message:find(pattern, 1, true), err.message)
    end
    assert.equal(0, count())
  end)

  it("takes an iterator that waits", function()
    local i = 0
    assert(router:copy_in("e_copy.users", COLUMNS, function()
      task.sleep(0.001)
      i = i + 1
      return i <= 20 and { i, "slow" } or nil
    end))
    assert.equal(20, count())
  end)

  it("quotes names that need it", function()
    assert(router:copy_in('e_copy."Odd ""table"""', { "User Id", "select" }, { { 1, "a" }, { 2, "b" } }, { key = "User Id" }))
    local found = assert(router:scatter_gather('SELECT "select" FROM e_copy."Odd ""table"""')).rows
    assert.equal(2, #found)
  end)

  it("leaves no row on any shard when one shard refuses a row", function()
    local rows = {}
    for key = 1, 3000 do
      rows[key] = { key, "x" }
    end
    rows[3001] = { 1500, "twice" }
    local err = failure("SHARDS_FAILED", router:copy_in("e_copy.users", COLUMNS, rows))
    assert.equal(1, #err.failed)
    assert.equal(manager:get_shard_for_write(1500).shard_id, err.failed[1].shard_id)
    assert.equal("23505", err.failed[1].error.sqlstate)
    assert.equal(3001, err.failed[1].error.index)
    assert.is_truthy(err.failed[1].error.message:find("^row 3001: duplicate key"), err.failed[1].error.message)
    assert.same({}, err.committed)
    assert.equal(0, count())
  end)

  it("leaves no row when the iterator raises, and tells what it said", function()
    local i = 0
    local err = failure("PLUGIN_FAILED", router:copy_in("e_copy.users", COLUMNS, function()
      i = i + 1
      if i == 2000 then
        error("file ended early")
      end
      return { i, "x" }
    end))
    assert.is_truthy(err.message:find("file ended early", 1, true), err.message)
    assert.equal(0, count())
  end)

  it("leaves no row when the iterator gives nil and a reason", function()
    local i = 0
    local err = failure("PLUGIN_FAILED", router:copy_in("e_copy.users", COLUMNS, function()
      i = i + 1
      if i == 700 then
        return nil, "the disk is gone"
      end
      return { i, "x" }
    end))
    assert.is_truthy(err.message:find("the disk is gone", 1, true), err.message)
    assert.equal(0, count())
  end)

  it("leaves no row when one has a value too many, or a key of the wrong type, and names it", function()
    local rows = {}
    for key = 1, 1500 do
      rows[key] = { key, "x" }
    end
    rows[1200] = { 1200, "x", "lost" }
    local err = failure("PLUGIN_FAILED", router:copy_in("e_copy.users", COLUMNS, rows))
    assert.is_truthy(err.message:find("row 1200", 1, true), err.message)
    rows[1200] = { "no number", "x" }
    err = failure("INVALID", router:copy_in("e_copy.users", COLUMNS, rows))
    assert.equal(1200, err.index)
    assert.is_truthy(err.message:find("^row 1200: "), err.message)
    assert.equal(0, count())
  end)

  it("leaves no row when a key is NULL, and names the row", function()
    local rows = {}
    for key = 1, 1500 do
      rows[key] = { key, "x" }
    end
    rows[1200] = { lunashard.null, "nobody" }
    local err = failure("NULL_KEY", router:copy_in("e_copy.users", COLUMNS, rows))
    assert.equal(1200, err.index)
    assert.equal(0, count())
  end)

  it("leaves no row when a value is of the wrong type for the server", function()
    local err = failure("SHARDS_FAILED", router:copy_in("e_copy.users", { "user_id", "tags" }, { { 1, "no array" } }))
    assert.equal("22P02", err.failed[1].error.sqlstate)
    assert.equal(0, count())
  end)

  it("names the row that a server refuses, whichever shard it is for", function()
    for _, bad in ipairs({ 1, 77, 2500 }) do
      local rows = {}
      for key = 1, 5000 do
        rows[key] = { key, key == bad and "no array" or "{}" }
      end
      local err = failure("SHARDS_FAILED", router:copy_in("e_copy.users", { "user_id", "tags" }, rows))
      assert.equal(bad, err.failed[1].error.index)
      assert.equal("22P02", err.failed[1].error.sqlstate)
    end
    local err = failure("SHARDS_FAILED", router:copy_in("e_copy.countries", { "code" }, { { "at" }, { "ch" }, { "at" } }))
    assert.is_true(#err.failed > 0)
    for _, one in ipairs(err.failed) do
      assert.equal(3, one.error.index)
    end
  end)

  it("loads a reference table's rows on every shard", function()
    local result = assert(router:copy_in("e_copy.countries", { "code" }, { { "at" }, { "ch" } }))
    assert.same({ shard1 = 2, shard2 = 2, shard3 = 2 }, result.rows_by_shard)
    assert.equal(2, result.row_count)
  end)

  it("knows a declared table with or without its schema", function()
    local declared = cluster.connect({ tables = { copy_countries = { reference = true },
      ["public.copy_users"] = { shard_key = "user_id", type = "int8" } } })
    assert(declared:execute_on_all_shards([[
      DROP TABLE IF EXISTS copy_countries, copy_users;
      CREATE TABLE copy_countries (code text); CREATE TABLE copy_users (user_id int8)]]))
    for _, name in ipairs({ "copy_countries", "public.copy_countries", 'public."copy_countries"' }) do
      local result = assert(declared:copy_in(name, { "code" }, { { "at" } }))
      assert.same({ shard1 = 1, shard2 = 1, shard3 = 1 }, result.rows_by_shard)
    end
    local result = assert(declared:copy_in("copy_users", { "user_id" }, "1\n2\n3\n", { format = "text" }))
    assert.equal(3, result.row_count)
    assert(declared:execute_on_all_shards("DROP TABLE copy_countries, copy_users"))
  end)

  it("loads all rows on one shard when told", function()
    local rows = { { 1, "a" }, { 2, "b" }, { 3, "c" } }
    local result = assert(router:copy_in("e_copy.users", COLUMNS, rows, { shard_id = "shard2" }))
    assert.same({ shard2 = 3 }, result.rows_by_shard)
  end)

  it("does nothing for no rows", function()
    local result = assert(router:copy_in("e_copy.users", COLUMNS, {}))
    assert.equal(0, result.row_count)
    assert.same({}, result.rows_by_shard)
  end)

  it("ends at its timeout without a row", function()
    local i = 0
    local started = task.now()
    local err = failure("SHARDS_FAILED", router:copy_in("e_copy.users", COLUMNS, function()
      i = i + 1
      task.sleep(0.0005)
      return { i, "x" }
    end, { timeout = 0.5 }))
    assert.is_true(task.now() - started < 5)
    assert.equal("TIMEOUT", err.failed[1].error.code)
    assert.equal(0, count())
  end)

  it("leaves no row and no open transaction when cancelled while shards wait for one another", function()
    local tx = assert(router:begin({ shard_id = "shard1" }))
    assert(tx:execute("LOCK TABLE e_copy.users IN ACCESS EXCLUSIVE MODE"))
    local rows = {}
    for key = 1, 50 do
      rows[key] = { key, "x" }
    end
    local load_ = task.spawn(function()
      return router:copy_in("e_copy.users", COLUMNS, rows)
    end)
    cluster.wait_until("the others are loaded", function()
      return assert(router:execute([[
        SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE 'COPY %']], nil,
        { shard_id = "shard2" })).rows[1].n == 1
    end)
    load_:cancel()
    load_:join()
    assert.is_true(tx:rollback())
    cluster.wait_until("all are back", function()
      for _, info in ipairs(manager.shards) do
        if manager:get_pool_stats(info.shard_id).used > 0 then
          return false
        end
      end
      return true
    end)
    assert.equal(0, count())
  end)

  it("gives its connections back in every case", function()
    cluster.wait_until("all are back", function()
      for _, info in ipairs(manager.shards) do
        if manager:get_pool_stats(info.shard_id).used > 0 then
          return false
        end
      end
      return true
    end)
  end)

  it("raises for arguments that make no sense", function()
    for pattern, call in pairs({
      ["table's name"] = function() router:copy_in("", COLUMNS, {}) end,
      ["with gaps"] = function() router:copy_in("e_copy.users", COLUMNS, { { 1, "a" }, nil, { 3, "c" } }) end,
      ["at least one name"] = function() router:copy_in("t", {}, {}) end,
      ["expected names"] = function() router:copy_in("t", { 1 }, {}) end,
      ["rows: expected"] = function() router:copy_in("t", COLUMNS, "x") end,
      ['"user_id"'] = function() router:copy_in("e_copy.users", { "userid", "name" }, {}) end,
      ["unknown option"] = function() router:copy_in("e_copy.users", COLUMNS, {}, { keys = "x" }) end,
      ['did you mean "text"'] = function() router:copy_in("e_copy.users", COLUMNS, {}, { format = "txt" }) end,
      ["goes with option format"] = function() router:copy_in("e_copy.users", COLUMNS, {}, { header = true }) end,
      ["say which with option format"] = function() router:copy_in("e_copy.users", COLUMNS, io.stdin) end,
    }) do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(message:find(pattern, 1, true), message)
    end
  end)
end)
