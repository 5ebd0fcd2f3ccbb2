local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")

local failure = cluster.failure

-- Statements without a routing key under strategies other than one hash of one column.
describe("a statement without a routing key", function()
  teardown(cluster.release)

  local function connect(strategy, tables)
    local router, manager = cluster.connect({ strategy = strategy, tables = tables })
    return router, manager, lunashard.router({ shard_manager = manager, extractor = false })
  end

  local function rows_on(plain, shard_id, sql)
    return assert(plain:execute(sql, nil, { shard_id = shard_id })).rows
  end

  describe("under ranges", function()
    local router, manager, plain

    setup(function()
      router, manager, plain = connect({ "range", shard_key = "item", ranges = {
        shard1 = { nil, 99 }, shard2 = { 100, 199 }, shard3 = { 200, 299 },
      } }, { p_items = { shard_key = "item", type = "int8" } })
      assert(router:execute_on_all_shards("DROP TABLE IF EXISTS p_items; CREATE TABLE p_items (item int8 PRIMARY KEY, n int)"))
    end)

    before_each(function()
      assert(router:execute_on_all_shards("TRUNCATE p_items"))
      local parts = {}
      for i = 1, 30 do
        parts[i] = ("(%d, %d)"):format(i * 10 - 5, i)
      end
      assert.same({ shard1 = 10, shard2 = 10, shard3 = 10 },
        assert(router:execute("INSERT INTO p_items (item, n) VALUES " .. table.concat(parts, ", "))).split)
    end)

    teardown(function()
      assert(router:execute_on_all_shards("DROP TABLE p_items"))
      cluster.close_all()
    end)

    it("reads and writes a range of keys on the shards that hold it", function()
      local result = assert(router:execute("SELECT count(*) AS n, min(item) AS low FROM p_items WHERE item BETWEEN $1 AND $2",
        { 50, 150 }))
      assert.same({ { n = 10, low = 55 } }, result.rows)
      assert.is_nil(result.shard_results.shard3)
      assert.equal("shard2", assert(router:execute("SELECT item FROM p_items WHERE item > 100 AND item < 160")).shard_id)
      result = assert(router:execute("DELETE FROM p_items WHERE item >= $1 AND item <= 210 RETURNING item", { 180 }))
      assert.equal(3, result.row_count)
      assert.is_nil(result.split)
      assert.equal(8, #rows_on(plain, "shard2", "SELECT item FROM p_items"))
      assert.equal(9, #rows_on(plain, "shard3", "SELECT item FROM p_items"))
      assert.equal(1, assert(router:execute("UPDATE p_items SET n = 0 WHERE item BETWEEN 200 AND 220")).row_count)
    end)

    it("finds nothing in a range that is empty or NULL, and asks everybody for an open one", function()
      for _, params in ipairs({ { 150, 50 }, { lunashard.null, 50 }, { 50, lunashard.null } }) do
        assert.same({ { n = 0 } }, assert(router:execute("SELECT count(*) AS n FROM p_items WHERE item BETWEEN $1 AND $2",
          params)).rows)
      end
      assert.same({ { n = 30 } }, assert(router:execute("SELECT count(*) AS n FROM p_items WHERE item > -5")).rows)
      assert.same({ { n = 0 } }, assert(router:execute("SELECT count(*) AS n FROM p_items WHERE item > 5000")).rows)
    end)

    it("refuses a key that no range holds, and dealing out rows of which one has none", function()
      failure("NO_SHARD", router:execute("INSERT INTO p_items (item) VALUES (300)"))
      failure("NO_SHARD", router:execute("INSERT INTO p_items (item) VALUES (1), (101), ($1)", { 300 }))
      failure("NO_SHARD", router:execute("SELECT n FROM p_items WHERE item = $1", { 300 }))
      for _, info in ipairs(manager.shards) do
        assert.equal(10, #rows_on(plain, info.shard_id, "SELECT item FROM p_items"))
      end
    end)
  end)

  describe("with a key of two columns", function()
    local router, manager, plain

    setup(function()
      router, manager, plain = connect({ "hash" }, {
        p_parts = { shard_key = { "tenant", "part" }, type = { "int8", "text" } },
      })
      assert(router:execute_on_all_shards(
        "DROP TABLE IF EXISTS p_parts; CREATE TABLE p_parts (part text, n int, tenant int8, PRIMARY KEY (tenant, part))"))
      local parts = {}
      for i = 1, 24 do
        parts[i] = ("(%d, 'p%d', %d)"):format(i % 5, i, i)
      end
      assert(router:execute("INSERT INTO p_parts (tenant, part, n) VALUES " .. table.concat(parts, ", ")))
    end)

    teardown(function()
      assert(router:execute_on_all_shards("DROP TABLE p_parts"))
      cluster.close_all()
    end)

    it("deals out rows by both columns", function()
      local seen = 0
      for _, info in ipairs(manager.shards) do
        for _, row in ipairs(rows_on(plain, info.shard_id, "SELECT tenant, part FROM p_parts")) do
          assert.equal(info.shard_id, manager:get_shard_for_write({ row.tenant, row.part }).shard_id)
          seen = seen + 1
        end
      end
      assert.equal(24, seen)
    end)

    it("goes to one shard when both columns are named, in whatever order", function()
      for _, sql in ipairs({
        "SELECT n FROM p_parts WHERE tenant = $1 AND part = $2", "SELECT n FROM p_parts WHERE $2 = part AND $1 = tenant",
        "SELECT n FROM p_parts WHERE (part, tenant) = ($2, $1)",
      }) do
        local result = assert(router:execute(sql, { 2, "p7" }))
        assert.same({ { n = 7 } }, result.rows)
        assert.equal(manager:get_shard_for_write({ 2, "p7" }).shard_id, result.shard_id, sql)
      end
    end)

    it("splits a list of pairs", function()
      local result = assert(router:execute(
        "SELECT n FROM p_parts WHERE (tenant, part) IN ((1, 'p1'), ($1, $2), (3, 'p3'), (4, 'p4'), (0, 'p5'), (4, 'p5')) "
          .. "ORDER BY n", { 2, "p2" }))
      assert.same({ { n = 1 }, { n = 2 }, { n = 3 }, { n = 4 }, { n = 5 } }, result.rows)
    end)

    it("asks all shards when half of the key is named, and refuses to write by half a key", function()
      assert.same({ { n = 5 } }, assert(router:execute("SELECT count(*) AS n FROM p_parts WHERE tenant = 1")).rows)
      failure("NO_KEY", router:execute("DELETE FROM p_parts WHERE tenant = 1"))
      failure("NULL_KEY", router:execute("INSERT INTO p_parts (tenant, part) VALUES (1, NULL)"))
      failure("KEY_MISMATCH", router:execute("DELETE FROM p_parts WHERE tenant = 1 AND part = 'p1'", nil,
        { routing_key = { 1, "p2" } }))
      assert(router:execute("SELECT n FROM p_parts WHERE tenant = 1 AND part = 'p1'", nil,
        { routing_key = { part = "p1", tenant = 1 } }))
    end)
  end)

  describe("of uuids and dates", function()
    local router, manager, plain
    local UUID = "0f14d0ab-9605-4a62-a9e4-5ed26688389b"

    setup(function()
      router, manager, plain = connect({ "hash" }, { p_files = { shard_key = "id", type = "uuid" } })
      assert(router:execute_on_all_shards("DROP TABLE IF EXISTS p_files; CREATE TABLE p_files (id uuid PRIMARY KEY, n int)"))
    end)

    teardown(function()
      assert(router:execute_on_all_shards("DROP TABLE p_files"))
      cluster.close_all()
    end)

    it("finds one key in all of its spellings", function()
      assert(router:execute("INSERT INTO p_files (id, n) VALUES ($1, 7)", { UUID:upper() }))
      local home = manager:get_shard_for_write(UUID).shard_id
      assert.equal(1, #rows_on(plain, home, "SELECT id FROM p_files"))
      for _, form in ipairs({ "'%s'", "'%s'::uuid", "'{%s}'", "uuid '%s'" }) do
        local literal = form:format(form == "'%s'::uuid" and UUID:upper() or UUID)
        local result = assert(router:execute("SELECT n FROM p_files WHERE id = " .. literal))
        assert.same({ { n = 7 } }, result.rows, literal)
        assert.equal(home, result.shard_id)
      end
      assert(router:execute("SELECT n FROM p_files WHERE id = $1", { UUID }, { routing_key = UUID:upper() }))
      failure("INVALID", router:execute("SELECT n FROM p_files WHERE id = $1", { 7 }))
    end)
  end)
end)
