local errors = require("lunashard.errors")
local script = require("lunashard.schema.script")

describe("a schema script", function()
  local function read(text)
    return assert(script.read(text, "change.sql"))
  end

  local function refusal(text)
    local plan, err = script.read(text, "change.sql")
    assert.is_nil(plan)
    assert.is_true(errors.is(err, "INVALID"), tostring(err))
    return err.message
  end

  local function titles(plan)
    local list = {}
    for i, step in ipairs(plan.steps) do
      list[i] = step.title
    end
    return list
  end

  it("is one step as long as a transaction can hold it, and one for each statement that none holds", function()
    local plan = read([[
      CREATE TABLE a (x int); CREATE TABLE b (x int);
      CREATE UNIQUE INDEX CONCURRENTLY a_x ON a (x);
      INSERT INTO a VALUES (1);
      VACUUM a; ANALYZE a;
      REINDEX TABLE CONCURRENTLY a;
      ALTER TYPE mood ADD VALUE 'meh'; INSERT INTO moods VALUES ('meh')]])
    assert.same({ "CREATE TABLE and 1 more", "CREATE INDEX", "INSERT", "VACUUM", "ANALYZE", "REINDEX TABLE", "ALTER TYPE",
      "INSERT" }, titles(plan))
    assert.same({ true, false, true, false, true, false, true, true }, (function()
      local list = {}
      for i, step in ipairs(plan.steps) do
        list[i] = step.transactional
      end
      return list
    end)())
    assert.same({ table = "a", name = "a_x" }, plan.steps[2].statements[1].index)
  end)

  it("is split where statements end, not in literals, comments, functions or rules", function()
    local plan = read("-- a; b\nSELECT ';' /* ; */, $q$;$q$;\n" .. [[
      CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
      CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2);
      SELECT 3]])
    assert.equal(4, #plan.statements)
    assert.same({ 2, 3, 4, 5 }, (function()
      local lines = {}
      for i, statement in ipairs(plan.statements) do
        lines[i] = statement.line
      end
      return lines
    end)())
  end)

  it("names the line of what is wrong, before anything is sent", function()
    assert.matches('^change.sql:3: syntax error at or near "ya"', refusal("SELECT 1;\nSELECT 'ä',\n  1 ya ya;\nSELECT 3"))
    assert.matches("^change.sql:2: .*BEGIN, COMMIT and ROLLBACK", refusal("SELECT 1;\nBEGIN; SELECT 2; COMMIT"))
    assert.matches("^change.sql:1: COPY ", refusal("COPY a FROM stdin"))
    assert.matches("^change.sql:1: .*name", refusal("CREATE INDEX CONCURRENTLY ON a (x)"))
    assert.matches("^change.sql:2: .*psql.*\\d a", refusal("SELECT 1;\n\\d a"))
    assert.matches("^change.sql:2: a NUL byte", refusal("SELECT 1;\nSELECT '\0'"))
    assert.equal("change.sql: there is no statement in it", refusal("-- nothing\n;;"))
  end)

  it("sets the session's parameters anew for every later step", function()
    local plan = read("SET search_path = app; CREATE TABLE a (); VACUUM a;"
      .. "SELECT set_config('work_mem', '1MB', false); SELECT 1; VACUUM b")
    local counts = {}
    for i, step in ipairs(plan.steps) do
      counts[i] = #step.settings
    end
    assert.same({ 0, 1, 1, 2 }, counts)
  end)

  it("knows a step by what it does, wherever it stands", function()
    local one = read("CREATE TABLE a ();\nVACUUM a;\nVACUUM a")
    local other = read("-- now with a comment\n\nCREATE TABLE a ();VACUUM a;VACUUM a;")
    for i = 1, 3 do
      assert.equal(one.steps[i].digest, other.steps[i].digest)
    end
    assert.not_equal(one.steps[2].digest, one.steps[3].digest) -- the second time is another step
  end)

  it("tells what would be lost", function()
    local lost = {}
    for _, statement in ipairs(read([[DROP TABLE a, s.b; DROP INDEX i; ALTER TABLE a ADD x int, DROP COLUMN y; TRUNCATE c;
      DELETE FROM d; DELETE FROM d WHERE x; UPDATE e SET x = 1; DROP SCHEMA s; DROP TYPE t]]).statements) do
      lost[#lost + 1] = statement.destroys
    end
    assert.same({ "table a, s.b", "column y of a", "all rows of c", "all rows of d", "what is in every row of e", "schema s",
      "type t" }, lost)
  end)
end)
