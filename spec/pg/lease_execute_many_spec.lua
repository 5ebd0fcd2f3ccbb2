local lunashard = require("lunashard")
local pools = require("spec.support.pools")

describe("lease:execute_many", function()
  setup(pools.start)
  teardown(pools.stop)
  after_each(pools.close_all)

  local function with_lease(options, fn)
    local lease = assert(pools.open(options):acquire())
    fn(lease)
    lease:release()
  end

  local function sets(n)
    local list = {}
    for i = 1, n do
      list[i] = { i, i % 7 == 0 and lunashard.null or "v" .. i, lunashard.bytea("\0" .. i) }
    end
    return list
  end

  local SQL = "SELECT $1::int8 AS a, $2::text AS b, $3::bytea AS c"

  it("gives the results in order, whatever is NULL or bytes, prepared or not", function()
    for _, cache in ipairs({ 256, 1, 0 }) do
      with_lease({ statement_cache = cache, max_size = 1 }, function(lease)
        for _, n in ipairs({ 0, 1, 255, 256, 257, 1000 }) do
          local results = assert(lease:execute_many(SQL, sets(n)))
          assert.equal(n, #results)
          for i, result in ipairs(results) do
            local row = result.rows[1]
            assert.equal(i, row.a)
            assert.equal(i % 7 ~= 0 and "v" .. i or nil, row.b)
            assert.equal("\0" .. i, row.c)
            assert.equal("SELECT", result.command)
            assert.same({ "a", "b", "c" }, result.columns)
          end
          assert.equal(n, assert(lease:execute("SELECT $1::int AS n", { n })).rows[1].n)
        end
      end)
    end
  end)

  it("ends at the first set that fails, and leaves the connection usable", function()
    with_lease({}, function(lease)
      for _, at in ipairs({ 1, 100, 256, 257, 600 }) do
        local list = {}
        for i = 1, 700 do
          list[i] = { i == at and 0 or i }
        end
        local results, err, index = lease:execute_many("SELECT 1 / $1::int AS v", list)
        pools.failure("SQL", results, err)
        assert.equal("22012", err.sqlstate)
        assert.equal(at, index)
        assert.equal(7, assert(lease:execute("SELECT 7 AS v")).rows[1].v)
      end
    end)
  end)

  it("reports a statement that cannot be prepared, and sets that do not fit it, at the first that meets them", function()
    with_lease({}, function(lease)
      local results, err, index = lease:execute_many("SELECT missing", { {}, {} })
      pools.failure("SQL", results, err)
      assert.equal(1, index)
      results, err, index = lease:execute_many("SELECT $1::int AS v", { { 1 }, { 2, 3 }, { 4 } })
      pools.failure("SQL", results, err)
      assert.equal("08P01", err.sqlstate)
      assert.equal(2, index)
      assert.equal(2, assert(lease:execute_many("SELECT $1::int AS v", { { 1 }, { 2 } }))[2].rows[1].v)
    end)
  end)

  it("sees a table that changes between two calls", function()
    with_lease({}, function(lease)
      assert(lease:execute("CREATE TEMPORARY TABLE changing (a int)"))
      assert(lease:execute_many("INSERT INTO changing VALUES ($1)", { { 1 }, { 2 } }))
      assert.equal(1, #assert(lease:execute_many("SELECT * FROM changing WHERE a = $1", { { 1 } }))[1].columns)
      assert(lease:execute("ALTER TABLE changing ADD COLUMN b int"))
      assert.equal(2, #assert(lease:execute_many("SELECT * FROM changing WHERE a = $1", { { 1 }, { 2 } }))[2].columns)
      assert(lease:execute("DEALLOCATE ALL"))
      assert.equal(2, #assert(lease:execute_many("SELECT * FROM changing WHERE a = $1", { { 1 }, { 2 } })))
    end)
  end)

  it("says that the connection was lost", function()
    with_lease({}, function(lease)
      assert(lease:execute("BEGIN"))
      local results, err = lease:execute_many("SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1 = 5",
        { { 1 }, { 5 }, { 6 } })
      assert.is_nil(results)
      assert.is_true(err.code == "SQL" or err.code == "SHARD_DOWN", tostring(err))
    end)
  end)
end)
