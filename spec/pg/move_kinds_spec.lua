-- Rows of all kinds arrive as they were: names that need quotes, keys of several columns, generated and identity columns,
-- partitions, values out of line, row security; strategies that only Lua knows; what stops a move.
local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local moving = require("spec.support.move_world")
local plugins = require("spec.support.plugins")

local UNDO = [[
  DROP TABLE IF EXISTS "order", "Mk Odd", mk_parts, mk_secret CASCADE;
  DROP SEQUENCE IF EXISTS "Mk plain";
  DROP SCHEMA IF EXISTS lunashard, lunashard_staging, lunashard_catalog CASCADE]]

local SCHEMA = [[
  CREATE TABLE "Mk Odd" ("user id" bigint, "select" text COLLATE "C", id int GENERATED ALWAYS AS IDENTITY,
    "Sum" numeric GENERATED ALWAYS AS ("user id" + 0.10) STORED, document json, at timestamptz, data bytea, list text[],
    place point, gone int, PRIMARY KEY ("user id", "select"));
  ALTER TABLE "Mk Odd" DROP COLUMN gone;
  CREATE TABLE "order" ("user" bigint, line int, of_line int, PRIMARY KEY ("user", line),
    FOREIGN KEY ("user", of_line) REFERENCES "order");
  CREATE TABLE mk_parts ("user" bigint, day date, text text, PRIMARY KEY ("user", day)) PARTITION BY RANGE (day);
  CREATE TABLE mk_parts_1 PARTITION OF mk_parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
  CREATE TABLE mk_parts_2 PARTITION OF mk_parts FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
  CREATE SEQUENCE "Mk plain";
  CREATE TABLE mk_secret ("user" bigint PRIMARY KEY, text text, number bigint DEFAULT nextval('"Mk plain"'));
  ALTER TABLE mk_secret ENABLE ROW LEVEL SECURITY;
  CREATE POLICY none ON mk_secret USING (false)]]

local TABLES = {
  ["Mk Odd"] = { shard_key = "user id", type = "int8" },
  order = { shard_key = "user", type = "int8" },
  mk_parts = { shard_key = "user", type = "int8" },
  mk_secret = { shard_key = "user", type = "int8" },
}

local QUOTED = { '"Mk Odd"', '"order"', "mk_parts", "mk_secret" }

local INSERTS = {
  [[INSERT INTO "Mk Odd" ("user id", "select", document, at, data, list, place)
    SELECT $1, w, '{"a": [1.10, null]}', '2024-02-29 12:00:00.123456+02', '\x00ff5c', ARRAY['a\b', E'x\ty\n', NULL, '"'],
      '(1,2.5)'
    FROM unnest(ARRAY['', E'back\\slash', E'tab\tand\nline', 'quote '' and " {}', repeat('long', 5000)]) AS w]],
  [[INSERT INTO "order" SELECT $1, n, nullif(n - 1, 0) FROM generate_series(1, 4) AS n]],
  [[INSERT INTO mk_parts SELECT $1::bigint, d, repeat(md5(d::text || $1::bigint), 20000)
    FROM unnest('{2024-05-05,2025-05-05}'::date[]) AS d]],
  [[INSERT INTO mk_secret VALUES ($1, 'hidden')]],
}

describe("a move brings along", function()
  local world

  setup(function()
    world = moving.open({ tables = TABLES, schema = SCHEMA, undo = UNDO, fill = false, users = 60 })
    for user = 1, world.users, 3 do
      for _, sql in ipairs(INSERTS) do
        world:write(user, sql, { user })
      end
    end
  end)

  teardown(function()
    if world then
      world:close()
    end
    cluster.release()
  end)

  local function rows_of(shard_id, name)
    local pool, list = world.manager.by_id[shard_id].primary.pool, {}
    for i, row in ipairs(assert(pool:execute("SELECT md5(t::text) AS m FROM " .. name .. " AS t ORDER BY 1")).rows) do
      list[i] = row.m
    end
    return list
  end

  local function total(name)
    local all = {}
    for _, member in ipairs(world.manager.members) do
      for _, row in ipairs(rows_of(member.shard_id, name)) do
        all[#all + 1] = row
      end
    end
    table.sort(all)
    return all
  end

  it("names in quotes, all types, generated and identity columns, partitions, big values, rows that a policy hides", function()
    local before = {}
    for _, name in ipairs(QUOTED) do
      before[name] = total(name)
    end
    assert(world.manager.by_id.shard1.primary.pool:execute([[SELECT setval('"Mk plain"', 4711)]]))
    -- Written while it is copied: in one partition, from one into another, a key's column, a big value left alone.
    local moved = assert(world.catalog.groups.int8.bound) and 1
    while world:place(moved, true).shard_id ~= "shard1" do
      moved = moved + 3
    end
    local done
    assert(world:run(world:plan("shard1", "shard2"), { at = function(point)
      if point == "copying:after-commit" and not done then
        done = true
        world:write(moved, "UPDATE mk_parts SET day = day + 364 WHERE \"user\" = $1 AND day = '2024-05-05'", { moved })
        world:write(moved, [[UPDATE "Mk Odd" SET "select" = 'changed', at = at + '1 hour' WHERE "user id" = $1
          AND "select" = '']], { moved })
        world:write(moved, [[UPDATE "order" SET of_line = 1 WHERE "user" = $1 AND line = 4]], { moved })
        for _, name in ipairs(QUOTED) do
          before[name] = total(name)
        end
      end
    end }))
    assert.is_true(done)
    for _, name in ipairs(QUOTED) do
      assert.same(before[name], total(name))
      assert.same({}, rows_of("shard1", name))
      assert.is_true(#rows_of("shard2", name) > 0)
    end
    assert.same({}, world:leftovers())
    -- The identity goes on behind what came along.
    local found = world:write(moved, [[INSERT INTO "Mk Odd" ("user id", "select") VALUES ($1, 'new')
      RETURNING id > (SELECT max(id) FROM "Mk Odd" WHERE "select" <> 'new') AS beyond]], { moved })
    assert.is_true(found.rows[1].beyond)
    assert.is_true(world.manager.by_id.shard2.primary.pool:execute([[SELECT nextval('"Mk plain"') AS n]]).rows[1].n > 4711)
  end)

  local function state_of(job)
    return world.catalog:execute("SELECT state, error_message FROM lunashard_catalog.move WHERE job = $1", { job.id }).rows[1]
  end

  -- Something happens in the middle; the move is given up and nothing has changed.
  local function gives_up(point, happens, text)
    local job, done = world:plan("shard2", "shard1"), false
    local ok, err = world:run(job, { at = function(at)
      if at == point and not done then
        done = true
        happens()
      end
    end })
    assert.is_nil(ok)
    assert.truthy(tostring(err):find(text, 1, true), tostring(err))
    assert.equal("aborted", state_of(job).state)
    assert.equal("aborted", job.moves[1].state)
    assert.truthy(state_of(job).error_message)
    world.map = {}
    assert.same({}, rows_of("shard1", "mk_secret"))
    return job
  end

  local function on(shard_id, sql)
    assert(world.manager.by_id[shard_id].primary.pool:execute(sql, nil, { simple = true }))
  end

  it("nothing when a table is changed on the way", function()
    gives_up("copying:after-saved", function()
      on("shard2", "ALTER TABLE mk_secret ADD COLUMN more int")
      on("shard2", "ALTER TABLE mk_secret DROP COLUMN more")
      on("shard2", "ALTER TABLE mk_secret ALTER COLUMN text TYPE varchar(100)")
    end, "the definition of a table was changed")
    on("shard2", "ALTER TABLE mk_secret ALTER COLUMN text TYPE text")
    assert.same({}, world:leftovers())
  end)

  it("nothing when rows collide on the destination, and the source serves its buckets again", function()
    on("shard1", "CREATE UNIQUE INDEX mk_unique ON mk_secret (text)")
    gives_up("planned:after-saved", function() end, "mk_unique")
    on("shard1", "DROP INDEX mk_unique")
    assert.same({}, world:leftovers())
    for user = 1, world.users, 3 do
      world:write(user, "UPDATE mk_secret SET text = text WHERE \"user\" = $1", { user })
    end
  end)

  it("nothing when the rows differ on both sides, and the staged ones stay as evidence", function()
    local job
    job = gives_up("catchup:after-saved", function()
      local staged = assert(world.manager.by_id.shard1.primary.pool:execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'lunashard_staging'::regnamespace AND relname LIKE 's%\\_3' "
          .. "AND relkind = 'r'")).rows[1].relname
      on("shard1", "DELETE FROM lunashard_staging." .. staged .. " WHERE ctid = '(0,1)'")
    end, "staged on shard1")
    local left = world:leftovers()
    assert.is_true(#left > 0)
    for _, what in ipairs(left) do
      assert.truthy(what:find(("shard1: relation s%d_1_"):format(job.id), 1, true), what)
    end
    for _, what in ipairs(left) do
      on("shard1", "DROP TABLE lunashard_staging." .. what:match("relation (%S+)"))
    end
  end)

  it("nothing when it is given up at any point before the destination owns the rows", function()
    local from, to = "shard2", "shard1"
    for _, point in ipairs({ "planned.source:after-commit", "copying:before-commit", "fencing:after-commit",
      "fenced:after-saved" }) do
      local job = world:plan(from, to)
      local ended = pcall(world.run, world, job, { at = function(at)
        if at == point then
          error(errors.new("CLOSED", { message = "killed" }), 0)
        end
      end })
      assert.is_false(ended, point)
      assert(require("lunashard.rebalancer.move").abort(world:context(job), job.moves[1]))
      assert.equal("aborted", state_of(job).state)
      assert.same({}, world:leftovers())
      assert.same({}, rows_of(to, "mk_secret"))
    end
    local job = world:plan(from, to)
    pcall(world.run, world, job, { at = function(at)
      if at == "verified:after-commit" then
        error(errors.new("CLOSED", { message = "killed" }), 0)
      end
    end })
    local ok, err = require("lunashard.rebalancer.move").abort(world:context(job), job.moves[1])
    assert.is_nil(ok)
    assert.is_true(err.committed)
    assert(world:run(job))
    assert.same({}, rows_of(from, "mk_secret"))
    assert.same({}, world:leftovers())
  end)
end)

describe("a move of buckets that only Lua can tell", function()
  local world

  setup(function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    world = moving.open({ users = 80, cluster = { plugins = folder.path, strategy = { "tier", shard_key = "user_id" } } })
  end)

  teardown(function()
    if world then
      world:close()
    end
    plugins.clean()
    cluster.release()
  end)

  it("takes their rows along, under writers, and nothing else", function()
    local source = world:place(1, true).shard_id
    local destination = source == "shard1" and "shard2" or "shard1"
    world:start(3)
    assert(world:run(world:plan(source, destination)))
    assert(world:run(world:plan(destination, source)))
    world:stop()
    assert.same({}, world:check())
  end)
end)
