local cluster = require("spec.support.cluster")
local ffi = require("ffi")
local lunashard = require("lunashard")

local failure = cluster.failure

ffi.cdef([[
  struct mallinfo2 { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
  struct mallinfo2 mallinfo2(void);
]])

describe("router:copy_in from bytes", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({
      tables = {
        ["e_bytes.users"] = { shard_key = "user_id", type = "int8" },
        ["e_bytes.names"] = { shard_key = "name", type = "text" },
        ["e_bytes.countries"] = { reference = true },
      },
    })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_bytes CASCADE; CREATE SCHEMA e_bytes;
      CREATE TABLE e_bytes.users (user_id int8 PRIMARY KEY, name text);
      CREATE TABLE e_bytes.names (name text, note text);
      CREATE TABLE e_bytes.countries (code text PRIMARY KEY)]]))
  end)

  before_each(function()
    assert(router:execute_on_all_shards("TRUNCATE e_bytes.users, e_bytes.names, e_bytes.countries"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_bytes CASCADE"))
    cluster.release()
  end)

  local COLUMNS = { "user_id", "name" }

  -- All rows in the order of the keys, each checked to be on its shard.
  local function stored(sql, name)
    local rows = {}
    for _, info in ipairs(manager.shards) do
      for _, row in ipairs(assert(router:execute(sql or "SELECT user_id, name FROM e_bytes.users", nil,
        { shard_id = info.shard_id })).rows) do
        assert.equal(info.shard_id, manager:get_shard_for_write(row[name or "user_id"],
          { table = name and "e_bytes.names" or "e_bytes.users" }).shard_id)
        rows[#rows + 1] = row
      end
    end
    table.sort(rows, function(a, b) return a[name or "user_id"] < b[name or "user_id"] end)
    return rows
  end

  local function load_text(bytes, opts)
    opts = opts or {}
    opts.format = opts.format or "text"
    return router:copy_in("e_bytes.users", COLUMNS, bytes, opts)
  end

  it("loads text as psql would, wherever the bytes are cut", function()
    local lines, expected = {}, {}
    for key = 1, 3000 do
      lines[key] = ("%d\tname\\t%d\\\\\n"):format(key, key)
      expected[key] = { user_id = key, name = ("name\t%d\\"):format(key) }
    end
    lines[3001] = "3001\t\\N"
    expected[3001] = { user_id = 3001 }
    local bytes = table.concat(lines)
    local function cut(size)
      local at = 1
      return function()
        local piece = bytes:sub(at, at + size - 1)
        at = at + size
        return piece ~= "" and piece or nil
      end
    end
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(bytes)
    file:close()
    for _, source in ipairs({ bytes, { bytes:sub(1, 7), bytes:sub(8) }, cut(1), cut(7), cut(5000), io.open(path) }) do
      assert(router:execute_on_all_shards("TRUNCATE e_bytes.users"))
      local result = assert(load_text(source))
      assert.equal(3001, result.row_count)
      assert.same(expected, stored())
    end
    os.remove(path)
  end)

  it("loads csv: quotes, line ends within quotes, NULL and the empty string", function()
    local result = assert(load_text('user_id,name\r\n"1","a,""b""\r\nc"\r\n2,\r\n 3 ,""\r\n+4,plain\r\n',
      { format = "csv", header = true }))
    assert.equal(4, result.row_count)
    assert.same({
      { user_id = 1, name = 'a,"b"\r\nc' }, { user_id = 2 }, { user_id = 3, name = "" }, { user_id = 4, name = "plain" },
    }, stored())
  end)

  it("routes by what an escaped key means, not by how it is written", function()
    local result = assert(router:copy_in("e_bytes.names", { "note", "name" },
      "x\ta\\tb\nx\t\\141bc\nx\t\\x41\nx\t\\\\N\nx\t\nx\té\\q\n", { format = "text" }))
    assert.equal(6, result.row_count)
    local names = {}
    for i, row in ipairs(stored("SELECT name FROM e_bytes.names", "name")) do
      names[i] = row.name
    end
    assert.same({ "", "A", "\\N", "a\tb", "abc", "éq" }, names)
  end)

  it("ends at an end marker, behind which nothing may follow", function()
    assert.equal(1, assert(load_text("1\ta\n\\.\n")).row_count)
    assert.equal(2, assert(load_text("2,a\n3,b\n\\.\n", { format = "csv" })).row_count)
    local err = failure("INVALID", load_text("4\ta\n\\.\n5\tb\n"))
    assert.is_truthy(err.message:find("behind the end marker", 1, true), err.message)
    assert.equal(3, #stored())
  end)

  it("leaves no row when one cannot be split or routed, and names it", function()
    local good = {}
    for key = 1, 5000 do
      good[key] = key .. "\tx\n"
    end
    for bad, expected in pairs({
      ["5001\n"] = { "INVALID", "row 5001: it has 1 value for 2 columns" },
      ["5001\ta\tb\n"] = { "INVALID", "row 5001: it has 3 values for 2 columns" },
      ["\\N\tnobody\n"] = { "NULL_KEY", "row 5001: the shard key is NULL" },
      ["five\tx\n"] = { "INVALID", 'row 5001: routing key "five" is not an int8' },
      ["5001\ta\rb\n"] = { "INVALID", "row 5001: it has a carriage return" },
      ["5001\ta\r\n"] = { "INVALID", "row 5001: its line end differs" },
      ["5001\ta\\.\n"] = { "INVALID", "row 5001: it holds the end marker" },
    }) do
      local err = failure(expected[1], load_text(table.concat(good) .. bad .. "5002\ty\n"))
      assert.equal(5001, err.index)
      assert.equal(expected[2], err.message:sub(1, #expected[2]))
    end
    local err = failure("INVALID", load_text('1,a\n2,"open', { format = "csv" }))
    assert.equal("row 2: a quote is not closed", err.message)
    assert.same({}, stored())
  end)

  it("leaves no row when a shard refuses one, or the source fails", function()
    local refused = failure("SHARDS_FAILED", load_text("1\ta\n2\tb\n1\tc\n"))
    assert.equal(3, refused.failed[1].error.index)
    -- A line end within quotes counts as a line to the server: no number is better than a wrong one.
    refused = failure("SHARDS_FAILED", load_text('1,a\n2,"b\nb"\n1,c\n2,d\n', { format = "csv", shard_id = "shard1" }))
    assert.is_nil(refused.failed[1].error.index)
    local i = 0
    local err = failure("PLUGIN_FAILED", load_text(function()
      i = i + 1
      if i > 3 then
        return nil, "the pipe broke"
      end
      return i .. "\tx\n"
    end))
    assert.is_truthy(err.message:find("the pipe broke", 1, true), err.message)
    err = failure("PLUGIN_FAILED", load_text({ "1\ta\n", {} }))
    assert.is_truthy(err.message:find("expected bytes as a string, got a table", 1, true), err.message)
    assert.same({}, stored())
  end)

  it("refuses a header that names other columns, or the same in another order", function()
    local err = failure("INVALID", load_text("name\tuser_id\nx\t1\n", { header = true }))
    assert.equal('the header\'s column 1 is "name", but columns[1] is "user_id"', err.message)
    assert.equal(1, assert(load_text("user_id\tname\n1\tx\n", { header = true })).row_count)
  end)

  it("sends reference rows to every shard, and all rows to one when told", function()
    local result = assert(router:copy_in("e_bytes.countries", { "code" }, "at\nch\n", { format = "text" }))
    assert.same({ shard1 = 2, shard2 = 2, shard3 = 2 }, result.rows_by_shard)
    result = assert(load_text("1\ta\n2\tb\n3\tc\n", { shard_id = "shard2" }))
    assert.same({ shard2 = 3 }, result.rows_by_shard)
  end)

  it("does nothing for no bytes", function()
    for _, source in ipairs({ "", {}, function() end }) do
      assert.equal(0, assert(load_text(source)).row_count)
    end
  end)

  it("wants the key's type, for bytes do not tell a number from a text", function()
    local untyped = cluster.connect({ tables = {} })
    local err = failure("INVALID", untyped:copy_in("e_bytes.users", COLUMNS, "1\ta\n", { format = "text" }))
    assert.is_truthy(err.message:find("declare the type of the shard key", 1, true), err.message)
    assert.same({}, stored())
  end)

  it("routes by strategies in Lua as well, and by keys of several columns", function()
    local lines, rows = {}, {}
    for key = 1, 4000 do
      lines[key], rows[key] = ("%d\tname %d\n"):format(key, key), { key, "name " .. key }
    end
    for _, strategy in ipairs({
      { "range", shard_key = "user_id", ranges = { shard1 = { nil, 1000 }, shard2 = { 1001, 2000 }, shard3 = { 2001 } } },
      { "hash", shard_key = { "user_id", "name" }, key_type = { "int8", "text" } },
    }) do
      local own, own_manager = cluster.connect({ strategy = strategy, tables = strategy[1] == "range" and {
        ["e_bytes.users"] = { shard_key = "user_id", type = "int8" } } or {} })
      for source, opts in pairs({ [table.concat(lines)] = { format = "text" }, [rows] = {} }) do
        assert(router:execute_on_all_shards("TRUNCATE e_bytes.users"))
        assert.equal(4000, assert(own:copy_in("e_bytes.users", COLUMNS, source, opts)).row_count)
        local n = 0
        for _, info in ipairs(own_manager.shards) do
          for _, row in ipairs(assert(own:execute("SELECT user_id, name FROM e_bytes.users", nil,
            { shard_id = info.shard_id })).rows) do
            local key = strategy[1] == "range" and row.user_id or { row.user_id, row.name }
            assert.equal(info.shard_id, own_manager:get_shard_for_write(key).shard_id)
            n = n + 1
          end
        end
        assert.equal(4000, n)
      end
      own_manager:shutdown()
    end
  end)

  it("names the row of a key that a strategy in Lua refuses", function()
    local own = cluster.connect({ tables = { ["e_bytes.users"] = { shard_key = "user_id", type = "int8" } },
      strategy = { "range", shard_key = "user_id", ranges = { shard1 = { 0, 1000 }, shard2 = { 1001, 2000 } } } })
    local lines, rows = {}, {}
    for key = 1, 1500 do
      lines[key], rows[key] = key .. "\tx\n", { key, "x" }
    end
    lines[1200], rows[1200] = "5000\tx\n", { 5000, "x" }
    for source, opts in pairs({ [table.concat(lines)] = { format = "text" }, [rows] = {} }) do
      local err = failure("NO_SHARD", own:copy_in("e_bytes.users", COLUMNS, source, opts))
      assert.equal(1200, err.index)
      assert.is_truthy(err.message:find("^row 1200: "), err.message)
    end
    rows[1200] = { lunashard.null, "x" }
    assert.equal(1200, failure("NULL_KEY", own:copy_in("e_bytes.users", COLUMNS, rows)).index)
    assert.same({}, stored())
  end)

  -- Bytes of the C heap in use; 0 under the address sanitizer, which has a heap of its own.
  local function heap()
    local info = ffi.C.mallinfo2()
    return tonumber(info.uordblks + info.hblkhd)
  end

  it("keeps memory flat over many more bytes than it may hold", function()
    local key, before, most = 0, nil, 0
    local filler = ("x"):rep(1000)
    assert(load_text(function()
      if key == 2000 then
        before = heap()
      elseif key == 62000 then
        return nil
      end
      most = math.max(most, heap())
      local lines = {}
      for i = 1, 100 do
        key = key + 1
        lines[i] = key .. "\t" .. filler .. "\n"
      end
      return table.concat(lines)
    end))
    assert.is_true(most - before < 16 * 2 ^ 20, ("grew by %d bytes"):format(most - before))
  end)
end)
