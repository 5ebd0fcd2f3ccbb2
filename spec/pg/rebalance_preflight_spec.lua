-- What is looked at before the first row moves: each refusal names the shard, the table, and what to do.
local cluster = require("spec.support.cluster")
local facts = require("lunashard.rebalancer.preflight.facts")
local preflight = require("lunashard.rebalancer.preflight")

local GOOD = [[CREATE TABLE rebalance_a (id bigint PRIMARY KEY, name text COLLATE "C" NOT NULL, UNIQUE (id, name));
  CREATE TABLE rebalance_b (id bigint REFERENCES rebalance_a, n int CHECK (n > 0), PRIMARY KEY (id, n));
  CREATE TABLE rebalance_ref (code text PRIMARY KEY);]]

describe("the pre-flight checks", function()
  local manager, router

  setup(function()
    router, manager = cluster.connect()
  end)

  local function on_all(sql)
    assert(router:execute_on_all_shards(sql))
  end

  local function on_second(sql)
    assert(router:execute_on_all_shards(sql, { shard_ids = { manager.shards[2].shard_id } }))
  end

  before_each(function()
    on_all("DROP TABLE IF EXISTS rebalance_c, rebalance_b, rebalance_a, rebalance_ref CASCADE; " .. GOOD)
  end)

  teardown(function()
    on_all("DROP TABLE IF EXISTS rebalance_c, rebalance_b, rebalance_a, rebalance_ref CASCADE; "
      .. "DROP FUNCTION IF EXISTS rebalance_nothing()")
    cluster.release()
  end)

  local TABLES = { { name = "rebalance_a", sql = '"rebalance_a"' }, { name = "rebalance_b", sql = '"rebalance_b"' } }
  local REFERENCES = { { name = "rebalance_ref", sql = '"rebalance_ref"' } }

  -- The lines of what is wrong, but for the schema that a cluster without a catalog does not have.
  local function look(harmless)
    local list = {}
    for i, member in ipairs(manager.members) do
      list[i] = { shard_id = member.shard_id, facts = assert(facts.read(member.primary.pool, TABLES, REFERENCES)) }
    end
    local problems, warnings = preflight.judge(list, { "rebalance_a", "rebalance_b" }, { "rebalance_ref" }, harmless or {})
    local lines = {}
    for _, problem in ipairs(problems) do
      local line = preflight.line(problem)
      if not line:find("schema lunashard", 1, true) then
        lines[#lines + 1] = line
      end
    end
    return lines, warnings, problems
  end

  local function only(text)
    local lines = look()
    assert.equal(1, #lines, table.concat(lines, "\n"))
    assert.truthy(lines[1]:find(text, 1, true), lines[1])
  end

  it("find nothing wrong with tables that are the same everywhere, references within the group included", function()
    local lines, _, problems = look()
    assert.same({}, lines)
    assert.equal(#manager.members, #problems)
    assert.truthy(preflight.line(problems[1]):find("the schema lunashard is not there: run `lunashard cluster init`", 1, true))
  end)

  it("name a table that is not there, and how to make it", function()
    on_second("DROP TABLE rebalance_b")
    only("shard2: rebalance_b is not there; create it as on the other shards: pg_dump --schema-only --table=rebalance_b")
  end)

  it("name a reference table that is not there", function()
    on_second("DROP TABLE rebalance_ref")
    only("shard2: rebalance_ref the reference table is not there")
  end)

  it("want a primary key", function()
    on_all("ALTER TABLE rebalance_b DROP CONSTRAINT rebalance_b_pkey")
    local lines = look()
    assert.equal(3, #lines)
    assert.truthy(lines[1]:find("rebalance_b has no primary key", 1, true))
  end)

  it("want the same columns, types, collations and constraints on all shards", function()
    for _, change in ipairs({ "ADD COLUMN extra text", "ALTER name TYPE varchar(20)", 'ALTER name TYPE text COLLATE "POSIX"',
      "ALTER name DROP NOT NULL" }) do
      on_second("ALTER TABLE rebalance_a " .. change)
      only("shard2: rebalance_a has other columns than on shard1: (")
      on_all("DROP TABLE rebalance_b, rebalance_a, rebalance_ref; " .. GOOD)
    end
    on_second("ALTER TABLE rebalance_b DROP CONSTRAINT rebalance_b_n_check")
    only("shard2: rebalance_b has other constraints than on shard1: (")
  end)

  it("refuse unlogged tables, views and partitions", function()
    on_second("ALTER TABLE rebalance_b SET UNLOGGED")
    only("shard2: rebalance_b is unlogged")
    on_second("DROP TABLE rebalance_b; CREATE VIEW rebalance_b AS SELECT 1 AS id")
    assert.truthy(look()[1]:find("shard2: rebalance_b is no table", 1, true))
    on_second("DROP VIEW rebalance_b; CREATE TABLE rebalance_c (id bigint, n int, PRIMARY KEY (id, n)) PARTITION BY LIST (n); "
      .. "CREATE TABLE rebalance_b PARTITION OF rebalance_c DEFAULT")
    assert.truthy(table.concat(look(), "\n"):find("shard2: rebalance_b is a partition: declare the partitioned table", 1, true))
  end)

  it("refuse triggers and rules, unless they are called harmless", function()
    on_second("CREATE OR REPLACE FUNCTION rebalance_nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
      .. "CREATE TRIGGER audit BEFORE INSERT ON rebalance_a FOR EACH ROW EXECUTE FUNCTION rebalance_nothing()")
    only('shard2: rebalance_a has the trigger "audit", which would see rows that move: drop it, or name it in harmless')
    assert.same({}, (look({ audit = true })))
    on_second("DROP TRIGGER audit ON rebalance_a; CREATE RULE loud AS ON DELETE TO rebalance_a DO ALSO SELECT 1")
    only('shard2: rebalance_a has the rule "loud"')
  end)

  it("refuse foreign keys that leave the group or come from outside, and inheritance", function()
    on_second("CREATE TABLE rebalance_c (id bigint PRIMARY KEY); "
      .. "ALTER TABLE rebalance_a ADD CONSTRAINT out_of_here FOREIGN KEY (id) REFERENCES rebalance_c")
    local lines = look()
    assert.truthy(table.concat(lines, "\n"):find("shard2: rebalance_a has a foreign key that leaves the group: out_of_here to "
      .. "rebalance_c", 1, true), lines[1])
    on_second("DROP TABLE rebalance_c CASCADE; CREATE TABLE rebalance_c (id bigint REFERENCES rebalance_a)")
    only("shard2: rebalance_a is referenced from outside the group: rebalance_c_id_fkey of rebalance_c")
    on_second("DROP TABLE rebalance_c; CREATE TABLE rebalance_c () INHERITS (rebalance_a)")
    only("shard2: rebalance_a takes part in inheritance with rebalance_c")
    on_second("DROP TABLE rebalance_c")
  end)

  it("refuse foreign keys in a circle, unless one of them may wait and does nothing on deletion", function()
    on_all("ALTER TABLE rebalance_a ADD COLUMN last int")
    local function tie(how)
      on_second("ALTER TABLE rebalance_a DROP CONSTRAINT IF EXISTS back, "
        .. "ADD CONSTRAINT back FOREIGN KEY (id, last) REFERENCES rebalance_b " .. how)
    end
    on_all("ALTER TABLE rebalance_a ADD CONSTRAINT back FOREIGN KEY (id, last) REFERENCES rebalance_b DEFERRABLE")
    assert.same({}, (look()))
    tie("NOT DEFERRABLE")
    local text = table.concat(look(), "\n")
    assert.truthy(text:find("shard2: rebalance_a has foreign keys that go round in a circle: back of rebalance_a to rebalance_b, "
      .. "rebalance_b_id_fkey of rebalance_b to rebalance_a; one of them has to wait for the end of a transaction, and to do "
      .. 'nothing ON DELETE: ALTER TABLE "rebalance_a" ALTER CONSTRAINT "back" DEFERRABLE', 1, true), text)
    tie("ON DELETE CASCADE DEFERRABLE")
    assert.truthy(table.concat(look(), "\n"):find("go round in a circle", 1, true))
  end)

  it("judge servers by what they say of themselves", function()
    local function judged(changes)
      local list = {}
      for i = 1, 2 do
        local told = assert(facts.read(manager.members[i].primary.pool, TABLES, REFERENCES))
        told.database.installed = true
        for name, value in pairs(i == 2 and changes or {}) do
          told.database[name] = value
        end
        told.left = i == 2 and changes.left or {}
        list[i] = { shard_id = "shard" .. i, facts = told }
      end
      local problems, warnings = preflight.judge(list, { "rebalance_a" }, {}, {})
      return problems[1] and preflight.line(problems[1]), warnings[1] and preflight.line(warnings[1])
    end
    assert.is_nil(judged({}))
    assert.equal("shard2: the server is a standby; rows can only be moved between primaries", judged({ standby = true }))
    assert.equal("shard2: the database is in LATIN1, that of the other shards in UTF8", judged({ encoding = "LATIN1" }))
    assert.equal("shard2: job 7, which has ended, has left notes of its moves: run `lunashard rebalance cleanup`",
      judged({ left = { 7 } }))
    assert.matches("shard2: the database sorts by other, that of the other shards by ",
      select(2, judged({ collation = "other" })))
    assert.matches("shard2: 3 prepared transactions are open", select(2, judged({ prepared = 3 })))
    assert.matches("shard2: a transaction has been open for 61 s", select(2, judged({ oldest_transaction = 61 })))
  end)

  it("say whom to ask for a table that belongs to somebody else", function()
    on_second("ALTER TABLE rebalance_a NO FORCE ROW LEVEL SECURITY")
    local told = assert(facts.read(manager.members[2].primary.pool, TABLES, REFERENCES))
    told.tables.rebalance_a.owned, told.tables.rebalance_a.owner = false, "dba"
    local problems = preflight.judge({ { shard_id = "shard2", facts = told } }, { "rebalance_a" }, {}, {})
    assert.truthy(preflight.line(problems[#problems]):find('rebalance_a belongs to dba, and only its owner can set triggers: '
      .. ('GRANT "dba" TO "%s"'):format(told.database.user), 1, true))
  end)
end)
