local cluster = require("spec.support.cluster")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local failure = cluster.failure

describe("router:copy_out", function()
  local router, manager, folder

  setup(function()
    router, manager = cluster.connect({
      tables = {
        ["e_out.users"] = { shard_key = "user_id", type = "int8" },
        ["e_out.again"] = { shard_key = "user_id", type = "int8" },
        ["e_out.countries"] = { reference = true },
      },
    })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_out CASCADE; CREATE SCHEMA e_out;
      CREATE TABLE e_out.users (user_id int8 PRIMARY KEY, name text);
      CREATE TABLE e_out.again (LIKE e_out.users);
      CREATE TABLE e_out.countries (code text)]]))
    local rows = {}
    for key = 1, 6000 do
      rows[key] = { key, ({ "plain", "a\tb\n\\", 'q"\r,', "", "é€" })[key % 6] } -- every sixth is NULL
    end
    assert(router:copy_in("e_out.users", { "user_id", "name" }, rows))
    assert(router:copy_in("e_out.countries", { "code" }, { { "at" }, { "ch" } }))
    folder = os.tmpname()
    os.remove(folder)
    assert(system.mkdir(folder, tonumber("700", 8)))
  end)

  teardown(function()
    os.execute("rm -r " .. folder)
    assert(router:execute_on_all_shards("DROP SCHEMA e_out CASCADE"))
    cluster.release()
  end)

  local function lines_of(bytes)
    local list = {}
    for line in bytes:gmatch("([^\n]*)\n") do
      list[#list + 1] = line
    end
    return list
  end

  local function slurp(path)
    local file = assert(io.open(path, "rb"))
    local bytes = file:read("*a")
    file:close()
    return bytes
  end

  -- Rows that are the same in both tables, on every shard.
  local function same_tables()
    for _, info in ipairs(manager.shards) do
      local different = assert(router:execute([[
        (TABLE e_out.users EXCEPT ALL TABLE e_out.again) UNION ALL (TABLE e_out.again EXCEPT ALL TABLE e_out.users)]],
        nil, { shard_id = info.shard_id })).rows
      assert.same({}, different)
    end
  end

  it("writes all rows of all shards, which copy_in brings back as they were", function()
    for _, format in ipairs({ "text", "csv" }) do
      for _, header in ipairs({ true, false }) do
        local path = ("%s/%s-%s"):format(folder, format, tostring(header))
        local result = assert(router:copy_out("e_out.users", path, { format = format, header = header }))
        assert.equal(6000, result.row_count)
        assert.equal(#slurp(path), result.bytes)
        local sum = 0
        for _, info in ipairs(manager.shards) do
          assert.is_true(result.rows_by_shard[info.shard_id] > 1000)
          sum = sum + result.rows_by_shard[info.shard_id]
        end
        assert.equal(6000, sum)
        assert(router:execute_on_all_shards("TRUNCATE e_out.again"))
        assert.equal(6000, assert(router:copy_in("e_out.again", { "user_id", "name" }, io.open(path),
          { format = format, header = header })).row_count)
        same_tables()
      end
    end
  end)

  it("hands whole rows to a function, with the shard they are from, one call at a time", function()
    local running, parts = 0, {}
    local result = assert(router:copy_out("SELECT user_id, repeat('x', 200) FROM e_out.users; ", function(bytes, shard_id)
      running = running + 1
      assert.equal(1, running)
      task.sleep(0.001)
      parts[#parts + 1] = bytes
      assert.equal("\n", bytes:sub(-1))
      local key = tonumber(bytes:match("^%d+"))
      assert.equal(shard_id, manager:get_shard_for_write(key).shard_id)
      running = running - 1
    end))
    assert.equal(6000, result.row_count)
    local keys = {}
    for _, line in ipairs(lines_of(table.concat(parts))) do
      keys[tonumber(line:match("^(%d+)\tx+$"))] = true
    end
    assert.equal(6000, #keys)
  end)

  it("reads one shard after the other when told, and one alone when told", function()
    local seen = {}
    local function note(_, shard_id)
      if seen[#seen] ~= shard_id then
        seen[#seen + 1] = shard_id
      end
    end
    assert(router:copy_out("SELECT repeat('x', 200) FROM e_out.users", note, { in_order = true }))
    assert.same({ "shard1", "shard2", "shard3" }, seen)
    seen = {}
    local result = assert(router:copy_out("e_out.users", note, { shard_id = "shard2" }))
    assert.same({ "shard2" }, seen)
    assert.same({ shard2 = result.row_count }, result.rows_by_shard)
    seen = {}
    assert(router:copy_out("e_out.users", note, { routing_key = 7, table = "e_out.users" }))
    assert.same({ manager:get_shard_for_write(7).shard_id }, seen)
  end)

  it("writes the header once and first, also when there are no rows", function()
    local path = folder .. "/header"
    local result = assert(router:copy_out("SELECT user_id AS id, name FROM e_out.users WHERE false", path,
      { format = "csv", header = true }))
    assert.equal(0, result.row_count)
    assert.equal("id,name\n", slurp(path))
    assert(router:copy_out("SELECT 1 AS one -- and a comment", path, { header = true, overwrite = true }))
    assert.equal("one\n1\n1\n1\n", slurp(path))
  end)

  it("takes the columns of a table, and an open file", function()
    local path = folder .. "/open"
    local file = assert(io.open(path, "w"))
    file:write("first\n")
    assert(router:copy_out("e_out.countries", file, { columns = { "code" } }))
    file:write("last\n")
    file:close()
    assert.equal("first\nat\nch\nlast\n", slurp(path)) -- and a reference table once
  end)

  it("refuses a file that exists, unless told", function()
    local path = folder .. "/exists"
    local file = assert(io.open(path, "w"))
    file:write("precious")
    file:close()
    local err = failure("INVALID", router:copy_out("e_out.countries", path))
    assert.is_truthy(err.message:find("the file exists; overwrite = true", 1, true), err.message)
    assert.equal("precious", slurp(path))
    assert(router:copy_out("e_out.countries", path, { overwrite = true }))
    assert.equal("at\nch\n", slurp(path))
    err = failure("INVALID", router:copy_out("e_out.countries", folder .. "/missing/file"))
    assert.is_truthy(err.message:find("No such file or directory", 1, true), err.message)
  end)

  it("leaves nothing of a file when a shard fails, and what was there before", function()
    local path = folder .. "/failed"
    local bad = "SELECT user_id, 1 / (user_id - 5999) FROM e_out.users"
    local err = failure("SHARDS_FAILED", router:copy_out(bad, path))
    assert.equal(manager:get_shard_for_write(5999).shard_id, err.failed[1].shard_id)
    assert.equal("22012", err.failed[1].error.sqlstate)
    assert.is_nil(err.written)
    local file = assert(io.open(path, "w"))
    file:write("precious")
    file:close()
    failure("SHARDS_FAILED", router:copy_out(bad, path, { overwrite = true }))
    assert.equal("precious", slurp(path))
    os.remove(path)
    for _, name in ipairs(system.listdir(folder)) do
      assert.is_nil(name:find("partial", 1, true))
    end
  end)

  it("stops all shards when the function fails, and says how much it had got", function()
    local many = "SELECT generate_series(1, 100000000)"
    for said, sink in pairs({
      ["it broke"] = function() error("it broke", 0) end,
      ["no space"] = function() return nil, "no space" end,
      ["returned false"] = function() return false end,
    }) do
      local err = failure("PLUGIN_FAILED", router:copy_out(many, sink))
      assert.is_truthy(err.message:find(said, 1, true), err.message)
      assert.is_nil(err.written)
    end
    local first = true
    local err = failure("PLUGIN_FAILED", router:copy_out(many, function()
      if not first then
        error("enough")
      end
      first = false
    end))
    assert.is_true(err.written > 60000)
    cluster.wait_until("all are back", function()
      for _, info in ipairs(manager.shards) do
        if manager:get_pool_stats(info.shard_id).used > 0 then
          return false
        end
      end
      return true
    end)
  end)

  it("ends at its timeout, and with its task, leaving no file and no statement", function()
    local path = folder .. "/slow"
    local slow = "SELECT i, pg_sleep(0.01) FROM generate_series(1, 10000) i"
    local err = failure("SHARDS_FAILED", router:copy_out(slow, path, { timeout = 0.3 }))
    assert.equal("TIMEOUT", err.failed[1].error.code)
    local running = task.spawn(function()
      return router:copy_out(slow, path, { header = true })
    end):watch()
    local function active()
      return assert(router:execute("SELECT count(*) AS n FROM pg_stat_activity WHERE state = 'active' AND query LIKE $1",
        { "COPY%10000) i%" }, { shard_id = "shard1" })).rows[1].n
    end
    cluster.wait_until("it runs", function() return active() == 1 end)
    running:cancel()
    running:join()
    cluster.wait_until("it has stopped", function() return active() == 0 end)
    assert.is_nil(system.stat(path))
    for _, name in ipairs(system.listdir(folder)) do
      assert.is_nil(name:find("partial", 1, true))
    end
  end)

  it("keeps memory flat while the sink is slower than the shards", function()
    local most, n = 0, 0
    collectgarbage()
    local before = collectgarbage("count")
    assert(router:copy_out("SELECT i, repeat('x', 1000) FROM generate_series(1, 10000) i", function()
      n = n + 1
      if n % 20 == 0 then
        task.sleep(0.001)
        collectgarbage()
        most = math.max(most, collectgarbage("count"))
      end
    end))
    assert.is_true(most - before < 4096, ("grew by %d KiB"):format(most - before))
  end)

  it("refuses what is no single query", function()
    failure("SHARDS_FAILED", router:copy_out("SELECT 1) TO STDOUT; DROP TABLE e_out.again; --", folder .. "/x"))
    failure("SHARDS_FAILED", router:copy_out("missing", folder .. "/x"))
    assert.equal(6000, assert(router:copy_out("e_out.users", function() end)).row_count)
  end)

  it("raises for arguments that make no sense", function()
    local function sink() end
    for pattern, call in pairs({
      ["table's name or a query"] = function() router:copy_out("", sink) end,
      ["that only reads, got \"DELETE"] = function() router:copy_out("DELETE FROM t", sink) end,
      ["that only reads, got \"WITH"] = function() router:copy_out("WITH x AS (DELETE FROM t RETURNING 1) TABLE x", sink) end,
      ["expected a table's name"] = function() router:copy_out(7, sink) end,
      ["sink: expected a function"] = function() router:copy_out("t") end,
      ["got a table"] = function() router:copy_out("t", {}) end,
      ["columns goes with a table"] = function() router:copy_out("SELECT 1", sink, { columns = { "a" } }) end,
      ["at least one name"] = function() router:copy_out("t", sink, { columns = {} }) end,
      ['did you mean "csv"'] = function() router:copy_out("t", sink, { format = "cvs" }) end,
      ["unknown option"] = function() router:copy_out("t", sink, { heder = true }) end,
      ["expected 1 or more"] = function() router:copy_out("t", sink, { max_parallel_shards = 0 }) end,
    }) do
      local ok, message = pcall(call)
      assert.is_false(ok)
      assert.is_truthy(message:find(pattern, 1, true), message)
      assert.is_truthy(message:find("copy_out_spec", 1, true), message)
    end
  end)
end)
