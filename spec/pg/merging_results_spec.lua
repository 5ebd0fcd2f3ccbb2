local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")

local failure = cluster.failure

local USERS = 40

describe("router:scatter_gather without an aggregation function", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({ tables = {
      ["e_merging.users"] = { shard_key = "user_id", type = "int8" },
      ["e_merging.countries"] = { reference = true },
    } })
    assert(router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS e_merging CASCADE; CREATE SCHEMA e_merging;
      CREATE TABLE e_merging.users (user_id int8 PRIMARY KEY, country text, score int4, info jsonb);
      CREATE TABLE e_merging.countries (code text PRIMARY KEY);
      INSERT INTO e_merging.countries VALUES ('at'), ('de'), ('fr');
      CREATE TABLE e_merging.local_notes (note text);
      INSERT INTO e_merging.local_notes VALUES ('here')]]))
    local list = {}
    for key = 1, USERS do
      list[key] = { key, key % 2 == 0 and "at" or "de", key, ('{"n": %d}'):format(key % 3) }
    end
    assert(router:execute_many("INSERT INTO e_merging.users VALUES ($1, $2, $3, $4)", list, { key = 1 }))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP SCHEMA e_merging CASCADE"))
    cluster.release()
  end)

  it("gives one answer, with the columns and types of one database", function()
    local result = assert(router:scatter_gather(
      "SELECT country AS \"The country\", count(*), avg(score) FROM e_merging.users GROUP BY 1 ORDER BY 2, 1"))
    assert.same({
      { ["The country"] = "at", count = 20, avg = "21.0000000000000000" },
      { ["The country"] = "de", count = 20, avg = "20.0000000000000000" },
    }, result.rows)
    assert.same({ "The country", "count", "avg" }, result.columns)
    assert.same({ "text", "int8", "numeric" }, result.column_types)
    assert.equal(2, result.row_count)
    assert.is_true(result.complete)
    assert.equal("SELECT", result.command)
    for _, info in ipairs(manager.shards) do
      assert.same({}, result.shard_results[info.shard_id].rows) -- parts are nobody's business
    end
  end)

  it("evaluates expressions, HAVING and windows over whole groups", function()
    local result = assert(router:scatter_gather([[
      SELECT country, sum(score) / count(*) AS mean, rank() OVER (ORDER BY max(score) DESC) AS place FROM e_merging.users
      WHERE score > $2 GROUP BY country HAVING count(*) > $1 ORDER BY place]], { 10, 0 }))
    assert.same({ { country = "at", mean = 21, place = 1 }, { country = "de", mean = 20, place = 2 } }, result.rows)
  end)

  it("counts nothing as 0 and sums it up to NULL, and makes no groups of it", function()
    assert.same({ { n = 0 } }, assert(router:scatter_gather(
      "SELECT count(*) AS n, sum(score) AS s FROM e_merging.users WHERE score < 0")).rows)
    assert.same({}, assert(router:scatter_gather(
      "SELECT country, count(*) FROM e_merging.users WHERE score < 0 GROUP BY country")).rows)
  end)

  it("leaves no trace of the columns that it adds", function()
    local result = assert(router:scatter_gather("SELECT user_id FROM e_merging.users ORDER BY -score LIMIT 3 OFFSET 1"))
    assert.same({ { user_id = 39 }, { user_id = 38 }, { user_id = 37 } }, result.rows)
    assert.same({ "user_id" }, result.columns)
    assert.same({ "int8" }, result.column_types)
    for _, info in ipairs(manager.shards) do
      local part = result.shard_results[info.shard_id]
      assert.is_true(#part.rows <= 4)
      assert.same({ "user_id" }, part.columns)
      for _, row in ipairs(part.rows) do
        assert.same({ user_id = row.user_id }, row)
      end
    end
  end)

  it("orders text as the server does, not as bytes", function()
    local sql = [[SELECT country || user_id::text AS name FROM e_merging.users ORDER BY name DESC LIMIT 5]]
    local expected = { "de9", "de7", "de5", "de39", "de37" }
    for i, row in ipairs(assert(router:scatter_gather(sql)).rows) do
      assert.equal(expected[i], row.name)
    end
  end)

  it("reads reference tables once", function()
    local result = assert(router:scatter_gather("SELECT count(*) AS n FROM e_merging.countries"))
    assert.same({ { n = 3 } }, result.rows)
    local asked = 0
    for _ in pairs(result.shard_results) do
      asked = asked + 1
    end
    assert.equal(1, asked)
  end)

  it("asks every shard what it says of itself", function()
    assert.equal(3, #assert(router:scatter_gather("SELECT 1 AS n")).rows)
    assert.equal(3, #assert(router:scatter_gather("SELECT current_setting('port') AS port")).rows)
  end)

  it("gives the rows of each shard as they come to who asks for concat", function()
    local result = assert(router:scatter_gather("SELECT count(*) AS n FROM e_merging.users", nil,
      { aggregation_func = lunashard.aggregate.concat() }))
    assert.equal(3, #result.rows)
    assert.equal(USERS, result.rows[1].n + result.rows[2].n + result.rows[3].n)
    assert.equal(result.rows[1], result.shard_results.shard1.rows[1])
  end)

  it("sends a statement as it is when one shard is asked", function()
    local result = assert(router:scatter_gather("SELECT stddev(score) AS s FROM e_merging.users", nil,
      { shard_ids = { "shard2" } }))
    assert.is_string(result.rows[1].s)
  end)

  it("decodes JSON that it has merged", function()
    local options = { decode_json = true }
    local groups = assert(router:scatter_gather("SELECT info, count(*) AS n FROM e_merging.users GROUP BY info ORDER BY info",
      nil, options)).rows
    assert.same({ { info = { n = 0 }, n = 13 }, { info = { n = 1 }, n = 14 }, { info = { n = 2 }, n = 13 } }, groups)
    local rows = assert(router:scatter_gather("SELECT DISTINCT info FROM e_merging.users ORDER BY info DESC", nil, options)).rows
    assert.same({ { info = { n = 2 } }, { info = { n = 1 } }, { info = { n = 0 } } }, rows)
  end)

  it("says what the server says of an expression that fails", function()
    local err = failure("SQL", router:scatter_gather("SELECT sum(score) / (count(*) - $1) FROM e_merging.users", { USERS }))
    assert.equal("22012", err.sqlstate)
  end)

  it("refuses what has no exact answer before a shard is asked for it", function()
    local before = router:get_statistics().queries_by_shard
    local err = failure("NOT_MERGEABLE", router:scatter_gather("SELECT variance(score) FROM e_merging.users"))
    assert.is_truthy(err.message:find("aggregation_func", 1, true))
    local after = router:get_statistics().queries_by_shard
    assert.same(before, after)
    failure("NOT_MERGEABLE", router:scatter_gather(
      "SELECT DISTINCT country AS a, country AS a FROM e_merging.users"))
  end)

  it("merges what answered when some shards may fail, and says so", function()
    assert(router:execute("ALTER TABLE e_merging.local_notes RENAME TO gone", nil, { shard_id = "shard3" }))
    local sql = "SELECT note, count(*) AS n FROM e_merging.local_notes GROUP BY note"
    failure("SHARDS_FAILED", router:scatter_gather(sql))
    local result = assert(router:scatter_gather(sql, nil, { on_failure = "partial" }))
    assert.same({ { note = "here", n = 2 } }, result.rows)
    assert.is_false(result.complete)
    assert.equal("shard3", result.failed[1].shard_id)
    assert(router:execute("ALTER TABLE e_merging.gone RENAME TO local_notes", nil, { shard_id = "shard3" }))
  end)

  it("learns of a view and looks into it", function()
    assert(router:execute_on_all_shards([[
      CREATE VIEW e_merging.strong AS SELECT user_id, country FROM e_merging.users WHERE score > 30;
      CREATE VIEW e_merging.total AS SELECT count(*) AS n FROM e_merging.users]]))
    assert.same({ { count = 10 } }, assert(router:scatter_gather("SELECT count(*) FROM e_merging.strong")).rows)
    local err = failure("NOT_MERGEABLE", router:scatter_gather("SELECT n FROM e_merging.total"))
    assert.is_truthy(err.message:find("view e_merging.total", 1, true))
  end)
end)
