local catalog = require("lunashard.catalog")
local cluster = require("spec.support.cluster")
local pool = require("lunashard.pool")
local removal = require("lunashard.catalog.removal")
local sandbox = require("spec.support.sandbox")
local setting_up = require("lunashard.catalog.setup")
local strategy = require("lunashard.strategy")
local support = require("spec.support.catalog")
local verify = require("lunashard.catalog.verify")

local failure = cluster.failure

-- A user's strategy of which SQL knows nothing.
local function register(modulus)
  strategy.register({ api = 1, kind = "strategy", name = "cat_modulo", new = function() return { n = modulus } end,
    bucket = function(state, key) return tonumber(key) % state.n end,
    place = function(_, bucket, shards) return shards[bucket % #shards + 1].shard_id end })
end

describe("setting up a catalog", function()
  local super

  setup(function()
    support.fill(600)
    local shard = sandbox.shared().shards[1]
    super = pool.new({ host = shard.host, port = shard.port, database = shard.database, user = shard.superuser,
      password = shard.superuser_password, shard_id = "shard1" })
  end)

  after_each(function()
    cluster.close_all()
    support.drop()
  end)

  teardown(function()
    super:close()
    support.release()
  end)

  local function run(fn, overrides, opts)
    local manager = support.unattached(overrides)
    return fn(manager, opts)
  end

  local function on(shard_id, sql, params)
    local manager = support.unattached()
    return assert(manager.by_id[shard_id].primary.pool:execute(sql, params))
  end

  local function has_schemas(shard_id)
    return on(shard_id, "SELECT count(*) AS n FROM pg_namespace WHERE nspname LIKE 'lunashard%'").rows[1].n
  end

  it("does nothing in a dry run but say what it would do", function()
    local result = assert(run(setting_up.init, nil, { dry_run = true }))
    assert.is_false(result.changed)
    assert.equal(5, #result.steps)
    assert.equal("record 6 buckets of the group int8 (cat_accounts, cat_entries)", result.steps[5])
    assert.equal(1200, result.verified.rows)
    assert.equal(0, has_schemas("shard1"))
  end)

  it("installs once, and has nothing to do when it is run again", function()
    local result = assert(run(setting_up.init))
    assert.is_true(result.changed)
    assert.truthy(result.cluster)
    local again = assert(run(setting_up.init))
    assert.is_false(again.changed)
    assert.same({}, again.steps)
    assert.equal(result.cluster, again.cluster)
    local _, manager = cluster.connect(support.options())
    assert.same({}, (verify.ownership(manager)))
  end)

  it("installs nothing while a row is elsewhere than the map says, and tells how to bring it home", function()
    on("shard3", "INSERT INTO cat_accounts VALUES (1, 'astray'), (150, 'astray')")
    local manager = support.unattached()
    local err = failure("PLACEMENT_CHANGED", setting_up.init(manager))
    assert.truthy(err.message:find("2 rows are not where the map says", 1, true))
    assert.truthy(err.message:find("1 of cat_accounts on shard3 belong to shard1", 1, true))
    assert.equal(0, has_schemas("shard3"))
    local way = err.report.tables[1].misplaced[1]
    assert.same({ "shard3", "shard1", 1, { "..99" } }, { way.from, way.to, way.rows, way.buckets })
    for _, one in ipairs(err.report.tables[1].misplaced) do -- as the plan says, where the row is there already
      on("shard3", one.repair[3]:match("DELETE FROM .*"))
    end
    assert.equal(0, assert(run(verify.run)).misplaced)
  end)

  it("records tables, groups and shards that came later", function()
    assert(run(setting_up.init))
    assert(super:execute("CREATE DATABASE cat_fourth OWNER app"))
    local list = cluster.options().shards
    list[4] = {}
    for name, value in pairs(list[1]) do
      list[4][name] = value
    end
    list[4].shard_id, list[4].database = "shard4", "cat_fourth"
    local more = { shards = list, tables = { cat_accounts = support.tables.cat_accounts,
      cat_entries = support.tables.cat_entries, cat_more = { shard_key = "id", type = "int8" } } }
    local result = assert(run(setting_up.init, more))
    assert.equal(2, #result.steps)
    assert.is_true(result.steps[1]:find("shard4, and record it, owning nothing", 1, true) ~= nil)
    assert.equal("record the table cat_more of the group int8", result.steps[2])
    assert.same({ "shard1", "shard2", "shard3", "shard4" }, result.verified.tables[3].missing_on)
    local _, manager = cluster.connect(support.options(more))
    assert.equal(0, manager.catalog:owned_by("shard4"))
    assert.truthy(manager.catalog.groups.int8.tables.cat_more)
    assert.same({}, (verify.ownership(manager)))
    assert(manager.catalog:execute("INSERT INTO lunashard_catalog.job (grp, kind, strategy) VALUES ('int8', 'k', 's')"))
    more.tables.cat_yet = { shard_key = "id", type = "int8" }
    failure("JOB_OPEN", run(setting_up.init, more))
    cluster.close_all()
    assert(super:execute("DROP DATABASE cat_fourth WITH (FORCE)"))
  end)

  it("counts rows in Lua where SQL cannot tell their bucket", function()
    register(30)
    local report = assert(run(verify.run, { strategy = { "cat_modulo", shard_key = "id" } }))
    assert.equal("scan", report.tables[1].by)
    local astray = 0
    for id = 1, 600 do
      local at = id < 100 and 1 or id < 200 and 2 or id < 300 and 3 or id < 400 and 1 or id < 500 and 2 or 3
      astray = astray + (id % 30 % 3 + 1 ~= at and 1 or 0)
    end
    assert.equal(2 * astray, report.misplaced)
    assert.equal(600, report.tables[1].rows)
  end)

  it("says which right is missing, and takes hidden rows for an error", function()
    local place = sandbox.shared().shards[1]
    local function as(user)
      local list = cluster.options().shards
      list[1].user, list[1].password, list[1].passfile = user, "poor", nil
      return { shards = list }
    end
    assert(super:execute("CREATE ROLE cat_poor LOGIN PASSWORD 'poor'"))
    local denied = failure("AUTH", run(setting_up.init, as("cat_poor")))
    assert.truthy(denied.hint:find('GRANT SELECT ON cat_accounts TO "cat_poor"', 1, true))
    assert(super:execute("GRANT SELECT ON cat_accounts, cat_entries TO cat_poor"))
    denied = failure("AUTH", run(setting_up.init, as("cat_poor")))
    assert.truthy(denied.hint:find(('GRANT CREATE ON DATABASE "%s"'):format(place.database), 1, true))
    -- A schema of ours that they may not even use is no reason to think the server down.
    on("shard1", "CREATE SCHEMA lunashard")
    local poor = cluster.manager(support.options(as("cat_poor")))
    assert.is_true(poor:initialize())
    assert.equal("healthy", poor.shard_health.shard1.status)
    on("shard1", "DROP SCHEMA lunashard")
    assert(super:execute("ALTER TABLE cat_accounts ENABLE ROW LEVEL SECURITY"))
    denied = failure("AUTH", run(setting_up.init, as("cat_poor"), { dry_run = true }))
    assert.truthy(denied.message:find("row%-level security"))
    assert(super:execute("ALTER TABLE cat_accounts DISABLE ROW LEVEL SECURITY"))
    -- A router's role that may not read the catalog is told how it may, and goes on with care.
    assert(run(setting_up.init))
    local said = cluster.warnings(function()
      local _, careful = cluster.connect(support.options(as("cat_poor")))
      assert.is_true(careful.guarding)
      careful:shutdown()
    end)
    assert.truthy(table.concat(said, "\n"):find("`lunashard cluster init --grant ROLE`", 1, true))
    -- It needs no more than this.
    assert(run(setting_up.init, nil, { grant = { "cat_poor" } }))
    local _, manager = cluster.connect(support.options(as("cat_poor")))
    assert.is_false(manager.catalog.guards)
    assert.is_true(manager.catalog:note("spec", "written by a router"))
    assert(manager.by_id.shard1.primary.pool:execute("SELECT lunashard.guard('int8', '..99', 1)"))
    failure("SQL", manager.by_id.shard1.primary.pool:execute("SELECT lunashard.advance()"))
    cluster.close_all()
    support.drop()
    assert(super:execute("DROP OWNED BY cat_poor"))
    assert(super:execute("DROP ROLE cat_poor"))
  end)

  it("takes tables and keys whose names need quotes", function()
    local names = { { '"order"', '"User Id"' }, { '"Odd; table"', '"select"' } }
    local function on_all(sql)
      for _, shard_id in ipairs({ "shard1", "shard2", "shard3" }) do
        for _, name in ipairs(names) do
          on(shard_id, sql:format(name[1], name[2]))
        end
      end
    end
    finally(function()
      on_all("DROP TABLE IF EXISTS %s")
    end)
    on_all("CREATE TABLE %s (%s int8 PRIMARY KEY)")
    local own = { tables = { order = { shard_key = "User Id", type = "int8" },
      ["Odd; table"] = { shard_key = "select", type = "int8" } } }
    on("shard1", 'INSERT INTO "order" VALUES (7)')
    on("shard2", 'INSERT INTO "Odd; table" VALUES (8)')
    local err = failure("PLACEMENT_CHANGED", run(setting_up.init, own))
    assert.truthy(err.message:find("1 of Odd; table on shard2 belong to shard1", 1, true), err.message)
    on("shard2", err.report.tables[1].misplaced[1].repair[3]:match("DELETE FROM .*"))
    assert.equal(1, assert(run(setting_up.init, own)).verified.rows)
    local router = cluster.connect(support.options(own))
    assert.equal(1, assert(router:execute('SELECT * FROM "order" WHERE "User Id" = 7')).row_count)
  end)

  it("takes a new version of a strategy only when every row stays where it is", function()
    local own = { strategy = { "cat_modulo", shard_key = "id" }, tables = { cat_empty = { shard_key = "id", type = "int8" } } }
    register(30)
    assert(run(setting_up.init, own))
    register(60)
    local err = failure("INVALID", cluster.manager(support.options(own)):initialize())
    assert.truthy(err.message:find("lunashard cluster upgrade", 1, true))
    local dry = assert(run(setting_up.upgrade, own, { dry_run = true }))
    assert.equal(1, #dry.steps)
    failure("INVALID", cluster.manager(support.options(own)):initialize())
    assert(run(setting_up.upgrade, own))
    assert.is_true(cluster.manager(support.options(own)):initialize())
    assert.same({}, assert(run(setting_up.upgrade, own)).steps)
    on("shard2", "CREATE TABLE cat_empty (id int8)")
    on("shard2", "INSERT INTO cat_empty VALUES (61)")
    register(61)
    failure("PLACEMENT_CHANGED", run(setting_up.upgrade, own))
    on("shard2", "DROP TABLE cat_empty")
  end)

  it("records where a shard has moved to when the server there says that it is this shard", function()
    assert(run(setting_up.init))
    on("shard1", "UPDATE lunashard_catalog.shard SET host = 'elsewhere' WHERE shard_id = 'shard2'")
    failure("INVALID", cluster.manager(support.options()):initialize())
    assert.equal(1, #assert(run(setting_up.upgrade)).steps)
    assert.is_true(cluster.manager(support.options()):initialize())
  end)

  it("brings our schemas of an earlier release up to date, and says until then that they are", function()
    assert(run(setting_up.init))
    on("shard1", "ALTER TABLE lunashard_catalog.shard DROP joined")
    on("shard1", "ALTER TABLE lunashard_catalog.cluster DROP guards_changed, DROP timeline")
    on("shard1", "DELETE FROM lunashard_catalog.migration WHERE version > 1")
    for _, shard_id in ipairs({ "shard1", "shard2", "shard3" }) do
      on(shard_id, "ALTER TABLE lunashard.identity DROP joined")
      on(shard_id, "DROP TRIGGER arrival ON lunashard.bucket")
      on(shard_id, "CREATE TABLE lunashard.dirty (id int8)")
      on(shard_id, "DELETE FROM lunashard.migration WHERE version > 1")
    end
    local err = failure("INVALID", run(setting_up.init))
    assert.truthy(err.message:find("is of version 1, and this program needs 2: run `lunashard cluster upgrade`", 1, true))
    assert.equal(4, #assert(run(setting_up.upgrade, nil, { dry_run = true })).steps)
    assert.equal(4, #assert(run(setting_up.upgrade)).steps)
    assert.same({}, assert(run(setting_up.upgrade)).steps)
    local _, manager = cluster.connect(support.options())
    assert.same({ shard1 = true, shard2 = true, shard3 = true }, manager.catalog.map.joined)
    assert.equal(3, on("shard1", "SELECT count(*) AS n FROM lunashard_catalog.shard WHERE joined").rows[1].n)
  end)

  it("is undone where the cluster file alone says the same, and refused where rows would be lost from sight", function()
    assert(run(setting_up.init))
    local _, manager = cluster.connect(support.options())
    support.give(manager, "int8", "100..199", "shard3")
    local function remove(opts)
      return run(function(unattached)
        assert(catalog.attach(unattached))
        return removal.run(unattached, opts)
      end)
    end
    local err = failure("PLACEMENT_CHANGED", remove())
    assert.truthy(err.message:find("1 buckets of the group int8", 1, true))
    assert.equal(2, has_schemas("shard2"))
    assert.is_false(remove({ abandon_map = true, dry_run = true }).changed)
    assert(manager.catalog:refresh())
    support.give(manager, "int8", "100..199", "shard2")
    assert.is_true(assert(remove()).changed)
    assert.equal(0, has_schemas("shard1"))
    assert.equal(0, has_schemas("shard2"))
  end)

  it("names what shards and catalog do not agree on", function()
    assert(run(setting_up.init))
    on("shard2", "UPDATE lunashard.bucket SET version = 5 WHERE bucket = '100..199'")
    on("shard3", "DELETE FROM lunashard.bucket WHERE bucket = '500..'")
    on("shard3", "INSERT INTO lunashard.bucket VALUES ('int8', '..99', 1)")
    local _, manager = cluster.connect(support.options())
    local messages = {}
    for i, one in ipairs((verify.ownership(manager))) do
      messages[i] = one.message
    end
    table.sort(messages)
    assert.same({
      "bucket 100..199 of int8 has version 5 on shard2 and 1 in the catalog",
      "shard3 does not say that it owns bucket 500.. of int8, as the catalog does",
      "shard3 says that it owns bucket ..99 of int8, the catalog says shard1",
    }, messages)
  end)
end)
