local adoption = require("lunashard.strategy.adoption")
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local install = require("lunashard.catalog.install")
local loader = require("lunashard.loader")
local map = require("lunashard.catalog.map")
local monitor = require("lunashard.manager.monitor")
local plugins = require("spec.support.plugins")
local setting_up = require("lunashard.catalog.setup")
local support = require("spec.support.catalog")
local task = require("lunashard.task")

local failure = cluster.failure

describe("a cluster with a catalog", function()
  local before = {}

  setup(function()
    local _, static = support.fill(60)
    for key = 1, 500 do
      before[key] = { static:get_shard_for_write(key).shard_id, (select(2, static:get_shard_for_write(key))) }
    end
  end)

  before_each(function()
    support.install()
  end)

  after_each(function()
    cluster.close_all()
    support.drop()
  end)

  teardown(support.release)

  local function connect(overrides)
    return cluster.connect(support.options(overrides))
  end

  local function shards(...)
    return cluster.options({ ... }).shards
  end

  it("sends every key where it went, by the buckets that were written down", function()
    local _, manager = connect()
    assert.truthy(manager.catalog)
    assert.equal(1, manager.catalog.version)
    assert.is_false(manager.catalog.guards)
    for key = 1, 500 do
      assert.same(before[key], { manager:get_shard_for_write(key).shard_id, (select(2, manager:get_shard_for_write(key))) })
    end
    assert.equal(1, manager.catalog:bucket_version("int8", "300..399"))
  end)

  it("follows the map when a bucket gets another owner, by itself and when it is told to", function()
    local _, manager = connect()
    local _, watcher = connect()
    local owner, bucket = manager:get_shard_for_write(7)
    local to = owner.shard_id == "shard1" and "shard2" or "shard1"
    support.give(manager, "int8", bucket, to)
    assert.equal(owner.shard_id, manager:get_shard_for_write(7).shard_id)
    assert.is_true(manager.catalog:refresh())
    assert.equal(to, manager:get_shard_for_write(7).shard_id)
    assert.equal(2, manager.catalog:bucket_version("int8", bucket))
    cluster.wait_until("the other one has polled", function()
      return watcher:get_shard_for_write(7).shard_id == to
    end)
    for key = 1, 500 do
      if before[key][2] ~= bucket then
        assert.equal(before[key][1], manager:get_shard_for_write(key).shard_id)
      end
    end
  end)

  it("is read as it stood at one moment, whatever changes meanwhile", function()
    local _, manager = connect()
    local pool = manager.members[1].primary.pool
    local owner, bucket = manager:get_shard_for_write(7)
    local lease = assert(pool:acquire())
    assert(lease:execute("BEGIN"))
    assert(lease:execute("LOCK TABLE lunashard_catalog.bucket"))
    local reading = task.spawn(function()
      return (assert(map.read(pool, nil, task.now() + 10)))
    end):watch()
    cluster.wait_until("it waits for the buckets", function()
      return pool:execute("SELECT FROM pg_locks WHERE NOT granted AND relation = 'lunashard_catalog.bucket'::regclass").rows[1]
    end)
    assert(lease:execute("UPDATE lunashard_catalog.bucket SET shard_id = $1, changed = lunashard_catalog.next_version() "
      .. "WHERE bucket = $2", { owner.shard_id == "shard1" and "shard2" or "shard1", bucket }))
    assert(lease:execute("COMMIT"))
    lease:release()
    local found = select(2, assert(reading:join(5)))
    assert.equal(1, found.version)
    assert.equal(owner.shard_id, found.groups.int8.owners[bucket])
  end)

  it("lets a further shard own nothing, and moves no key for it", function()
    local list = shards()
    local fourth = {}
    for name, value in pairs(list[3]) do
      fourth[name] = value
    end
    fourth.shard_id, fourth.database = "shard4", "postgres"
    local _, manager = connect()
    assert.is_true(manager:add_shard(fourth))
    list[4] = fourth
    local _, other = connect({ shards = list })
    for _, one in ipairs({ manager, other }) do
      assert.equal(0, one.catalog:owned_by("shard4"))
      for key = 1, 500 do
        assert.equal(before[key][1], one:get_shard_for_write(key).shard_id)
      end
    end
    assert.is_true(manager:remove_shard("shard4"))
    local err = failure("PLACEMENT_CHANGED", manager:remove_shard("shard2"))
    assert.truthy(err.message:find("it owns 2 buckets", 1, true))
  end)

  it("refuses a cluster file that does not fit it, saying what to do", function()
    local function refused(overrides, text)
      local manager = cluster.manager(support.options(overrides))
      local _, ok, err = cluster.warnings(function()
        return manager:initialize()
      end)
      assert.truthy(failure("INVALID", ok, err).message:find(text, 1, true), err.message)
    end
    local list = shards()
    local two = { shard1 = support.ranges.shard1, shard2 = { support.ranges.shard2[1], support.ranges.shard2[2],
      { 200, 299 }, { 500 } } }
    refused({ shards = { list[1], list[2] }, strategy = { "range", shard_key = "id", ranges = two } },
      "shard3 owns 2 buckets, but is not in the cluster file: add it there")
    local swapped = shards()
    swapped[2].shard_id, swapped[3].shard_id = "shard3", "shard2"
    refused({ shards = swapped }, "the database that the cluster file calls")
    local renamed = shards()
    renamed[2].host = "localhost"
    refused({ shards = renamed }, "the cluster file says localhost:")
    refused({ strategy = { "hash", shard_key = "id" } }, "the catalog's map is that of range")
    refused({ strategy = { "range", shard_key = "id", ranges = { shard1 = { nil, 5 }, shard2 = { 6 } } } },
      "ranges cannot be changed in the cluster file")
    refused({ tables = { cat_other = { shard_key = "id", type = "int8" } } }, "tables.cat_other is not in the catalog")
    refused({ tables = { cat_accounts = { shard_key = "name", type = "int8" } } }, "its key is (name)")
    refused({ catalog = "shard2" }, "name its place with the option catalog")
    local last = { list[3], list[1], list[2] }
    refused({ shards = last }, "name its place with the option catalog")
    local _, manager = connect({ shards = last, catalog = "shard1" })
    assert.equal(before[7][1], manager:get_shard_for_write(7).shard_id)
  end)

  it("refuses a map that is damaged rather than to count buckets anew", function()
    local manager = support.install()
    assert(manager.members[1].primary.pool:execute("DELETE FROM lunashard_catalog.bucket WHERE bucket = '300..399'"))
    local err = failure("INVALID", cluster.manager(support.options()):initialize())
    assert.truthy(err.message:find("has 5 buckets, but the group has 6", 1, true))
  end)

  it("takes the map from the shards while the catalog cannot be reached, and guards everything", function()
    local _, manager = connect()
    local owner, bucket = manager:get_shard_for_write(7)
    local to = owner.shard_id == "shard1" and "shard2" or "shard1"
    support.give(manager, "int8", bucket, to)
    local nowhere = { host = "127.0.0.1", port = 1, database = "none" }
    local list, _, lonely = cluster.warnings(function()
      return connect({ catalog = nowhere })
    end)
    assert.truthy(table.concat(list):find("the map is taken from the shards", 1, true))
    assert.is_true(lonely.catalog.guards)
    assert.equal(to, lonely:get_shard_for_write(7).shard_id)
    assert.equal(2, lonely.catalog:bucket_version("int8", bucket))
    assert.truthy(lonely.catalog:shard_version("shard1"))
    for key = 1, 500 do
      assert.equal(before[key][2] == bucket and to or before[key][1], lonely:get_shard_for_write(key).shard_id)
    end
    assert.is_true(lonely.catalog:refresh())
  end)

  it("knows nothing of the buckets of a shard that is silent too, and sends nothing anywhere", function()
    local list = shards()
    list[2].port = 1
    local _, _, lonely = cluster.warnings(function()
      return connect({ shards = list, catalog = { host = "127.0.0.1", port = 1, database = "none" } })
    end)
    for key = 1, 200 do
      local shard, err = lonely:get_shard_for_write(key)
      if before[key][1] == "shard2" then
        assert.is_nil(shard)
        assert.is_true(errors.is(err, "STALE_MAP"))
      else
        assert.equal(before[key][1], shard.shard_id)
      end
    end
  end)

  it("is refused when two shards say that they own the same bucket, and the catalog is silent", function()
    local manager = support.install()
    for _, member in ipairs(manager.members) do
      assert(member.primary.pool:execute("INSERT INTO lunashard.bucket VALUES ('int8', '300..399', 1) ON CONFLICT DO NOTHING"))
    end
    local other = cluster.manager(support.options({ catalog = { host = "127.0.0.1", port = 1, database = "none" } }))
    local err = failure("INVALID", other:initialize())
    assert.truthy(err.message:find("both say that they own bucket 300..399 of group int8", 1, true))
  end)

  it("is found by a program that was there before it, with the next health check", function()
    support.drop()
    local _, manager = connect()
    assert.is_nil(manager.catalog)
    support.install()
    local _, other = connect()
    local owner, bucket = other:get_shard_for_write(7)
    local to = owner.shard_id == "shard1" and "shard2" or "shard1"
    support.give(other, "int8", bucket, to)
    monitor.check_now(manager, manager.members[1])
    assert.truthy(manager.catalog)
    assert.is_true(manager.catalog:refresh())
    assert.equal(to, manager:get_shard_for_write(7).shard_id)
  end)

  it("is not found by a program whose file does not fit it: that has no shard any more", function()
    support.drop()
    local _, manager = connect()
    assert(manager:reload(cluster.options({ tables = { cat_else = { shard_key = "id", type = "int8" } },
      strategy = support.options().strategy })))
    support.install()
    cluster.warnings(function()
      monitor.check_now(manager, manager.members[1])
    end)
    assert.is_nil(manager.catalog)
    assert.equal("unhealthy", manager.shard_health[manager.members[1].shard_id].status)
    assert.truthy(manager.shard_health.shard1.last_error.message:find("tables.cat_else is not in the catalog", 1, true))
  end)

  it("does not use a database that is another shard than the file says", function()
    local unattached = support.install()
    assert(unattached.by_id.shard2.primary.pool:execute("UPDATE lunashard.identity SET shard_id = 'shard9'"))
    local err = failure("INVALID", cluster.manager(support.options()):initialize())
    assert.truthy(err.message:find("the database that the cluster file calls shard2 is the shard shard9 of this cluster", 1,
      true))
  end)

  it("goes on with the version of a plug-in that its map was made with, over the shards of then", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    local options = support.options({ plugins = folder.path, strategy = { "tier", shard_key = "id" } })
    support.drop()
    local installer = cluster.manager(options)
    assert(setting_up.open(installer))
    assert(install.run(installer))
    local list = cluster.options(options).shards
    list[4] = {}
    for name, value in pairs(list[3]) do
      list[4][name] = value
    end
    list[4].shard_id, list[4].database = "shard4", "postgres"
    options.shards = list -- with which the strategy alone would place most keys elsewhere
    local _, manager = cluster.connect(options)
    local was = {}
    for key = 1, 200 do
      was[key] = installer.strategy:route(key)
      assert.equal(was[key], (manager.strategy:route(key)))
    end
    folder:write("strategies/tier.lua", "-- the same, but for this line\n" .. plugins.strategy())
    local _, ok, err = cluster.warnings(loader.reload)
    assert.is_nil(ok)
    assert.truthy(err.message:find("lunashard cluster upgrade", 1, true), err.message)
    for key = 1, 200 do
      assert.equal(was[key], (manager.strategy:route(key)))
    end
    -- A bucket that was moved has its owner, whatever the plug-in says; the others stay.
    local _, bucket = manager.strategy:route(7)
    assert(manager.catalog:execute([[
      INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position)
      VALUES ('shard4', $1, $2, 'postgres', 4)]], { list[4].host, list[4].port }))
    assert(manager.catalog:execute([[
      WITH v AS (SELECT lunashard_catalog.next_version() AS n) INSERT INTO lunashard_catalog.bucket
      SELECT 'int8', $1, 'shard4', 2, v.n FROM v]], { tostring(bucket) }))
    assert(manager.catalog:refresh())
    assert.equal("shard4", (manager.strategy:route(7)))
    assert.equal(2, manager.catalog:bucket_version("int8", bucket))
    for key = 8, 200 do
      local shard_id, other = manager.strategy:route(key)
      assert.equal(other == bucket and "shard4" or was[key], shard_id)
    end
    plugins.clean()
  end)

  it("has no shard for a bucket whose owner the cluster file lacks, until it is reloaded", function()
    local _, manager = connect()
    local _, bucket = manager:get_shard_for_write(7)
    assert(manager.catalog:execute([[
      INSERT INTO lunashard_catalog.shard (shard_id, host, port, database, position) VALUES ('shard4', 'h', 1, 'd', 4)]]))
    assert(manager.catalog:execute([[
      WITH v AS (SELECT lunashard_catalog.next_version() AS n) UPDATE lunashard_catalog.bucket
      SET shard_id = 'shard4', version = 2, changed = v.n FROM v WHERE bucket = $1]], { bucket }))
    local list, ok = cluster.warnings(function()
      return manager.catalog:refresh()
    end)
    assert.is_true(ok)
    assert.truthy(list[1]:find("shard4 owns 1 buckets, but is not in the cluster file", 1, true))
    local err = failure("STALE_MAP", manager:get_shard_for_write(7))
    assert.truthy(err.message:find("shard4", 1, true))
    assert.equal(adoption.UNKNOWN, (manager.strategy:route(7)))
    assert.truthy(manager:get_shard_for_write(150))
  end)
end)
