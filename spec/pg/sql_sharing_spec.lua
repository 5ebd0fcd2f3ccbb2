local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local sql = require("lunashard.sql")
local task = require("lunashard.task")

describe("sharing a connection", function()
  local pool, catalog, queries, clock

  -- The superuser's work in this file's own schema: any number of statements.
  local function admin(text)
    pools.admin("DO $do$ BEGIN SET LOCAL search_path = sharing_spec; EXECUTE $text$" .. text .. "$text$; END $do$")
  end

  local function run(text, params)
    queries = queries + 1
    local result, err = pool:execute(text, params, { read_only = true })
    return result and result.rows, err
  end

  local function class_of(text)
    return (sql.sharing(text, catalog))
  end

  local function expect(class, texts)
    for _, text in ipairs(texts) do
      local got, reason = sql.sharing(text, catalog)
      assert.equal(class, got, ("%s: %s"):format(text, reason))
    end
  end

  setup(function()
    pools.start()
    pools.admin("DROP SCHEMA IF EXISTS sharing_spec CASCADE")
    pools.admin("CREATE SCHEMA sharing_spec")
    admin([[
      CREATE TABLE plain (id int8 PRIMARY KEY, note text);
      CREATE TABLE parted (id int8, note text) PARTITION BY HASH (id);
      CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
      CREATE SEQUENCE numbers;
      CREATE MATERIALIZED VIEW stored AS SELECT random() AS r;
      CREATE FUNCTION calm(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
      CREATE FUNCTION steady(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT 1';
      CREATE FUNCTION wild(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
      CREATE VIEW clean AS SELECT p.id, calm(1) AS c FROM plain p JOIN parted USING (id);
    ]])
  end)

  teardown(function()
    pools.admin("DROP SCHEMA IF EXISTS sharing_spec CASCADE")
    pools.stop()
  end)

  before_each(function()
    queries, clock = 0, 1000
    pool = pools.open({ max_size = 2 })
    catalog = sql.catalog(run, {
      clock = function()
        return clock
      end,
    })
  end)

  after_each(function()
    pools.close_all()
  end)

  describe("of reads", function()
    it("puts into a batch what can only read", function()
      expect("batch", {
        "SELECT 1", "SELECT * FROM plain WHERE id = $1", "VALUES (1), (2)", "TABLE parted", "SELECT * FROM stored",
        "SELECT count(*), max(note) FROM sharing_spec.plain WHERE note LIKE 'a%' AND id BETWEEN 1 AND 2 OR id IN (1, 2)",
        "WITH a AS (SELECT * FROM plain) SELECT * FROM a JOIN parted USING (id) ORDER BY now(), CURRENT_USER",
        "SELECT calm(1), steady(2), sharing_spec.calm(3)", "SELECT plain.id, (plain).note FROM plain",
        "SELECT * FROM pg_class", "SELECT * FROM pg_stat_activity", "SELECT * FROM information_schema.tables",
        "SELECT pg_backend_pid(), current_setting('work_mem'), now()", "SELECT last_value FROM numbers",
        "SELECT 'a'::information_schema.yes_or_no, 1::int, '{1}'::int[]",
      })
    end)

    it("keeps harmless volatile functions of the server, locks and samples in transactions of their own", function()
      expect("share", {
        "SELECT random()", "SELECT nextval('numbers')", "SELECT setval('numbers', 5)", "SELECT gen_random_uuid()",
        "SELECT clock_timestamp()", "SELECT pg_notify('a', 'b')", "SELECT pg_is_in_recovery()", "SELECT * FROM pg_locks",
        "SELECT id FROM plain ORDER BY pg_catalog.random() LIMIT 1", "SELECT * FROM plain LIMIT (random() * 10)::int",
        "SELECT * FROM plain FOR UPDATE", "WITH a AS (SELECT * FROM plain FOR SHARE) SELECT * FROM a",
        "SELECT * FROM plain TABLESAMPLE bernoulli (10)", "SELECT * FROM random() r", "SELECT CASE WHEN random() > 1 THEN 1 END",
      })
    end)

    it("leaves alone what may touch the session, the server or another database", function()
      expect("alone", {
        "SELECT set_config('a.b', 'c', false)", "SELECT pg_catalog.set_config('a.b', 'c', true)", "SELECT setseed(0.5)",
        "SELECT pg_advisory_lock(1)", "SELECT pg_try_advisory_xact_lock(1)", "SELECT pg_advisory_unlock_all()",
        "SELECT pg_sleep(1)", "SELECT pg_sleep_for('1 s')", "SELECT lo_create(0)", "SELECT lo_unlink(1)",
        "SELECT currval('numbers')", "SELECT lastval()", "SELECT pg_cancel_backend(1)", "SELECT pg_terminate_backend(1)",
        "SELECT pg_export_snapshot()",
        "SELECT pg_logical_emit_message(false, 'a', 'b')", "SELECT query_to_xml('SELECT 1', true, true, '')",
        "SELECT * FROM plain WHERE id = (SELECT pg_advisory_lock(1)::text::int8)", "SELECT * FROM pg_sleep(1)",
        "VALUES (1, set_config('a.b', 'c', false))", "SELECT 1 LIMIT pg_backend_pid() + length(set_config('a.b', '', true))",
        "WITH a AS (SELECT pg_advisory_lock(1)) SELECT 1", "SELECT count(*) FILTER (WHERE pg_try_advisory_lock(1)) FROM plain",
        "SELECT table_to_xml('plain', true, true, '')", "SELECT database_to_xml(true, true, '')",
      })
    end)

    it("puts no volatile function of the server into a batch", function()
      local rows = pools.admin("SELECT DISTINCT proname::text AS name FROM pg_proc WHERE provolatile = 'v'")
      assert.is_true(#rows > 150)
      for _, row in ipairs(rows) do
        local text = ('SELECT "%s"()'):format(row.name)
        assert.not_equal("batch", class_of(text), text)
      end
    end)

    it("leaves alone what is not one query", function()
      expect("alone", {
        "", ";", "SELECT 1; SELECT 2", "BEGIN", "COMMIT", "SET work_mem = '1MB'", "RESET ALL", "SHOW work_mem", "LISTEN a",
        "PREPARE a AS SELECT 1", "EXECUTE a", "DISCARD ALL", "CREATE TEMP TABLE a (b int)", "COPY plain TO STDOUT", "CALL p()",
        "DO 'BEGIN END'", "EXPLAIN ANALYZE SELECT 1", "EXPLAIN SELECT 1", "DECLARE a CURSOR WITH HOLD FOR SELECT 1",
        "SELECT 1 INTO TEMP a", "LOCK TABLE plain", "TRUNCATE plain", "UPDATE plain SET id = 1 WHERE CURRENT OF a", "nonsense",
        "SELECT '", "SELECT 1\0", "SELECT 1" .. ("+1"):rep(5000),
      })
      assert.equal(0, queries)
    end)

    it("leaves alone what it does not know", function()
      expect("alone", {
        "SELECT * FROM no_such_table", "SELECT no_such_function()", "SELECT 1 ~~~~ 2", "SELECT * FROM no_such_schema.plain",
        "SELECT sharing_spec.random()", "SELECT pg_temp.calm(1)", "SELECT 'a'::pg_temp.b",
      })
    end)

    it("takes a text for what it is, not for what its literals, names and comments say", function()
      expect("batch", {
        "SELECT 'set_config(1)', $$random()$$ AS \"pg_sleep(1)\" -- nextval('a')\n", "/* SELECT 1; DROP */ SELECT 1;",
      })
      expect("alone", { "SELECT /* harmless */ \"set_config\"('a.b', 'c', false)", "SELECT PG_ADVISORY_LOCK (1)" })
    end)
  end)

  describe("of user functions", function()
    it("goes by their volatility", function()
      expect("alone", { "SELECT wild(1)", "SELECT sharing_spec.wild(1)", "SELECT * FROM wild(1)", "SELECT calm(wild(1))" })
    end)

    it("lets any overload and any schema decide when the text does not say which", function()
      admin([[
        CREATE FUNCTION mixed(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION mixed(text) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION upper(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION random(int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
      ]])
      expect("alone", { "SELECT mixed(1)", "SELECT upper('a')", "SELECT random()" })
      expect("batch", { "SELECT pg_catalog.upper('a')" })
      expect("share", { "SELECT pg_catalog.random()" })
      admin("DROP FUNCTION mixed(int), mixed(text), upper(int), random(int)")
    end)

    it("is not deceived by a dot in a name", function()
      admin("CREATE FUNCTION \"pg_catalog.random\"() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1'")
      expect("alone", { "SELECT \"pg_catalog.random\"()" })
      admin("DROP FUNCTION \"pg_catalog.random\"()")
    end)

    it("sees those behind operators, aggregates and attributes", function()
      admin([[
        CREATE OPERATOR +# (LEFTARG = int, RIGHTARG = int, FUNCTION = pg_catalog.int4pl);
        CREATE FUNCTION wild2(int, int) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
        CREATE OPERATOR ==> (LEFTARG = int, RIGHTARG = int, FUNCTION = wild2);
        CREATE AGGREGATE wild_sum (int) (SFUNC = wild2, STYPE = int);
        CREATE FUNCTION of_row(plain) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION of_any(anyelement) RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
      ]])
      expect("batch", { "SELECT 1 +# 2" })
      expect("alone", {
        "SELECT 1 ==> 2", "SELECT 1 OPERATOR(sharing_spec.==>) 2", "SELECT 1 ==> ANY ('{1}')", "SELECT wild_sum(1)",
        "SELECT plain.of_row FROM plain", "SELECT (p).of_row FROM plain p", "SELECT p.of_any FROM plain p",
        "SELECT 1 ORDER BY 1 USING ==>",
      })
    end)

    it("takes a batch for repeatable only without functions of users, for these may have effects after all", function()
      for text, expected in pairs({
        ["SELECT upper(note) FROM plain"] = true, ["SELECT * FROM parted"] = true, ["SELECT calm(1)"] = false,
        ["SELECT * FROM clean"] = false, ["SELECT steady(1)"] = false, ["SELECT nextval('numbers')"] = false,
      }) do
        assert.equal(expected, select(3, sql.sharing(text, catalog)), text)
      end
    end)

    it("sees those in defaults of arguments", function()
      admin([[
        CREATE FUNCTION lazy(int, int DEFAULT wild(1), text DEFAULT 'a, b') RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
        CREATE FUNCTION calm(text, int DEFAULT 3 + calm(4)) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1';
      ]])
      expect("alone", { "SELECT lazy(1)" })
      expect("batch", { "SELECT calm('a')" })
      admin("DROP FUNCTION lazy; DROP FUNCTION calm(text, int)")
    end)

    it("sees those behind casts, types and domains, which no text names", function()
      assert.equal("batch", class_of("SELECT 'a'::text"))
      admin([[
        CREATE TYPE pair AS (a int, b int);
        CREATE FUNCTION to_pair(text) RETURNS pair VOLATILE LANGUAGE sql AS 'SELECT 1, 2';
        CREATE CAST (text AS pair) WITH FUNCTION to_pair (text) AS IMPLICIT;
      ]])
      catalog:forget()
      expect("share", { "SELECT 'a'::text", "SELECT * FROM plain" })
      admin("DROP CAST (text AS pair); CREATE DOMAIN checked AS int CHECK (VALUE > 0 AND steady(VALUE) > 0)")
      catalog:forget()
      expect("batch", { "SELECT 1::checked" })
      admin("DROP DOMAIN checked; CREATE DOMAIN checked AS int CHECK (VALUE > 0 AND wild(VALUE) > 0)")
      catalog:forget()
      expect("alone", { "SELECT 1::checked" })
      admin("DROP DOMAIN checked")
    end)
  end)

  describe("of relations", function()
    it("looks through views, however deep", function()
      admin([[
        CREATE VIEW clean_2 AS WITH plain AS (SELECT 1 AS id) SELECT * FROM clean JOIN plain USING (id);
        CREATE VIEW lottery AS SELECT *, random() AS r FROM clean_2;
        CREATE VIEW lottery_2 AS SELECT * FROM lottery;
        CREATE VIEW locking AS SELECT * FROM plain FOR UPDATE;
        CREATE VIEW configuring AS SELECT set_config('a.b', 'c', false);
        CREATE VIEW configuring_2 AS SELECT 1 AS one WHERE EXISTS (SELECT FROM configuring);
        CREATE VIEW notifying AS SELECT 1 AS one FROM pg_notify('a', 'b');
        CREATE VIEW creating AS SELECT lo_create(0) AS lo;
        CREATE VIEW advising AS SELECT * FROM plain WHERE pg_try_advisory_lock(id);
        CREATE VIEW calling AS SELECT wild(1);
      ]])
      expect("batch", { "SELECT * FROM clean", "SELECT * FROM sharing_spec.clean_2" })
      expect("share", { "SELECT * FROM lottery", "TABLE lottery_2", "TABLE locking", "TABLE notifying" })
      expect("alone", {
        "SELECT * FROM configuring", "SELECT one FROM configuring_2", "TABLE creating", "TABLE advising", "TABLE calling",
        "WITH a AS (SELECT 1) SELECT * FROM a, calling", "SELECT (SELECT one FROM configuring_2)",
        "INSERT INTO plain SELECT lo FROM creating",
      })
    end)

    it("takes a name of WITH for no view, and no name of WITH for a view", function()
      expect("batch", { "WITH calling AS (SELECT 1) SELECT * FROM calling" })
      expect("alone", { "WITH calling AS (SELECT * FROM calling) SELECT * FROM calling" })
    end)

    it("lets any schema decide when the text does not say which", function()
      pools.admin("CREATE SCHEMA sharing_spec_2")
      pools.admin("CREATE VIEW sharing_spec_2.plain AS SELECT sharing_spec.wild(1)")
      expect("alone", { "SELECT * FROM plain", "SELECT * FROM sharing_spec_2.plain" })
      expect("batch", { "SELECT * FROM sharing_spec.plain" })
      pools.admin("DROP SCHEMA sharing_spec_2 CASCADE")
    end)

    it("looks into policies of row level security", function()
      admin([[
        CREATE TABLE guarded (id int);
        CREATE POLICY a ON guarded USING (id = current_setting('a.b', true)::int AND EXISTS (SELECT FROM plain));
        ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE TABLE guarded_2 (id int);
        CREATE POLICY a ON guarded_2 USING (id = wild(1));
        CREATE VIEW over_guarded_2 AS SELECT * FROM guarded_2;
        CREATE TABLE guarded_3 (id int);
        CREATE POLICY a ON guarded_3 FOR INSERT WITH CHECK (wild(id) > 0);
        ALTER TABLE guarded_3 ENABLE ROW LEVEL SECURITY;
      ]])
      expect("batch", { "TABLE guarded", "TABLE guarded_2", "TABLE guarded_3" })
      expect("alone", { "INSERT INTO guarded_3 VALUES (1)" })
      admin("ALTER TABLE guarded_2 ENABLE ROW LEVEL SECURITY")
      catalog:forget()
      expect("alone", { "TABLE guarded_2", "TABLE over_guarded_2", "UPDATE guarded_2 SET id = 1" })
    end)

    it("leaves temporary tables alone, by their schema or by their name only", function()
      local lease = assert(pool:acquire(task.now() + 5))
      assert(lease:execute("CREATE TEMP TABLE passing (a int)"))
      expect("alone", { "SELECT * FROM passing", "SELECT * FROM pg_temp.passing", "INSERT INTO passing VALUES (1)" })
      lease:discard()
    end)

    it("leaves foreign tables alone, as partitions too", function()
      admin([[
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE far (id int8, note text) SERVER elsewhere;
        CREATE TABLE half_far (id int8) PARTITION BY RANGE (id);
        CREATE FOREIGN TABLE half_far_1 PARTITION OF half_far FOR VALUES FROM (1) TO (2) SERVER elsewhere;
        CREATE VIEW over_far AS SELECT * FROM far;
      ]])
      expect("alone", { "TABLE far", "TABLE half_far", "TABLE over_far", "DELETE FROM far", "INSERT INTO half_far VALUES (1)" })
      admin("DROP EXTENSION postgres_fdw CASCADE")
    end)
  end)

  describe("of writes", function()
    it("gives each a transaction of its own on a shared session", function()
      expect("share", {
        "INSERT INTO plain VALUES ($1, $2) RETURNING id", "UPDATE plain SET note = upper(note) WHERE id = $1",
        "DELETE FROM parted USING plain WHERE plain.id = parted.id",
        "INSERT INTO plain VALUES (nextval('numbers'), random()::text) ON CONFLICT (id) DO UPDATE SET note = excluded.note",
        "MERGE INTO plain USING parted ON plain.id = parted.id WHEN MATCHED THEN DELETE",
        "WITH gone AS (DELETE FROM plain RETURNING *) INSERT INTO parted SELECT * FROM gone",
        "WITH gone AS (DELETE FROM plain RETURNING *) SELECT * FROM gone",
      })
    end)

    it("leaves those alone that call what may touch the session", function()
      expect("alone", {
        "INSERT INTO plain VALUES (wild(1))", "UPDATE plain SET note = set_config('a.b', 'c', false)",
        "DELETE FROM plain WHERE pg_try_advisory_lock(id)", "INSERT INTO plain VALUES (1) RETURNING lastval()",
        "WITH a AS (UPDATE plain SET id = wild(1)) SELECT 1", "INSERT INTO clean VALUES (1)",
      })
    end)

    it("looks into defaults and checks, those of partitions too", function()
      admin([[
        CREATE TABLE usual (id int8 GENERATED ALWAYS AS IDENTITY, u uuid DEFAULT gen_random_uuid(),
          n int DEFAULT nextval('numbers'), t timestamptz DEFAULT clock_timestamp(), CHECK (n > 0 AND calm(n) > 0));
        CREATE TABLE unusual (id int8, n int DEFAULT wild(1));
        CREATE DOMAIN unusual_int AS int DEFAULT wild(1);
        CREATE TABLE unusual_too (id int8, n unusual_int);
        CREATE TABLE checked (id int8 CHECK (wild(id::int) > 0));
        CREATE TABLE checked_below (id int8) PARTITION BY RANGE (id);
        CREATE TABLE checked_below_1 PARTITION OF checked_below (CHECK (wild(id::int) > 0)) FOR VALUES FROM (1) TO (2);
      ]])
      expect("share", { "INSERT INTO usual DEFAULT VALUES" })
      expect("batch", { "TABLE unusual", "TABLE checked", "TABLE checked_below" })
      expect("alone", {
        "INSERT INTO unusual VALUES (1)", "INSERT INTO unusual_too VALUES (1)", "INSERT INTO checked VALUES (1)",
        "INSERT INTO checked_below VALUES (1)",
      })
    end)

    it("lets triggers pass whose source says nothing of the session", function()
      admin([[
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN UPDATE plain
             SET note = ''x''; PERFORM pg_notify(''a'', ''b''); RETURN NEW; END';
        CREATE TABLE audited (id int8);
        CREATE TRIGGER a AFTER INSERT ON audited FOR EACH ROW EXECUTE FUNCTION audit();
        CREATE TRIGGER b BEFORE UPDATE ON audited FOR EACH ROW WHEN (OLD.id IS DISTINCT FROM NEW.id)
          EXECUTE FUNCTION suppress_redundant_updates_trigger();
      ]])
      expect("share", { "INSERT INTO audited VALUES (1)" })
      expect("batch", { "TABLE audited" })
      admin([[
        CREATE TABLE audited_when (id int8);
        CREATE TRIGGER a AFTER INSERT ON audited_when FOR EACH ROW WHEN (wild(1) > 0) EXECUTE FUNCTION audit();
      ]])
      expect("alone", { "INSERT INTO audited_when VALUES (1)" })
    end)

    it("leaves a write alone whose triggers may change the session, wherever the write leads", function()
      for name, body in pairs({
        configures = "PERFORM set_config('a.b', 'c', false)", sets = "SET work_mem = '1MB'", sets_to = "SET work_mem TO '1MB'",
        sets_role = "SET LOCAL ROLE none", locks = "PERFORM pg_advisory_lock(1)", makes = "CREATE TEMP TABLE a (b int)",
        makes_too = "CREATE TABLE pg_temp.a (b int)", listens = "LISTEN a", runs = "EXECUTE 'SELECT 1'",
        resets = "RESET work_mem",
      }) do
        admin(([[
          CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN %s; RETURN NEW; END $f$;
          CREATE TABLE triggered (id int8);
          CREATE TRIGGER a BEFORE INSERT ON triggered EXECUTE FUNCTION f();
        ]]):format(body))
        catalog:forget()
        local class, reason = sql.sharing("INSERT INTO triggered VALUES (1)", catalog)
        assert.equal("alone", class, name)
        assert.equal("triggered has trigger a", reason)
        admin("ALTER TABLE triggered DISABLE TRIGGER a")
        catalog:forget()
        expect("share", { "INSERT INTO triggered VALUES (1)" })
        admin("DROP FUNCTION f() CASCADE; DROP TABLE triggered")
      end
      admin([[
        CREATE FUNCTION configure() RETURNS trigger LANGUAGE plpgsql AS
          'BEGIN PERFORM set_config(''a.b'', ''c'', false); RETURN NEW; END';
        CREATE TABLE above (id int8) PARTITION BY RANGE (id);
        CREATE TABLE above_1 PARTITION OF above FOR VALUES FROM (1) TO (2);
        CREATE TRIGGER a AFTER INSERT ON above_1 FOR EACH ROW EXECUTE FUNCTION configure();
        CREATE TABLE parent (id int8 PRIMARY KEY);
        CREATE TABLE child (id int8 REFERENCES parent ON DELETE CASCADE);
        CREATE TRIGGER a AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION configure();
      ]])
      expect("alone", {
        "INSERT INTO above VALUES (1)", "INSERT INTO above_1 VALUES (1)", "DELETE FROM parent", "DELETE FROM child",
      })
    end)

    it("leaves a write alone that a rule turns into something else", function()
      admin([[
        CREATE TABLE ruled (id int8);
        CREATE RULE a AS ON INSERT TO ruled DO ALSO SELECT set_config('a.b', 'c', false);
      ]])
      expect("alone", { "INSERT INTO ruled VALUES (1)" })
      expect("batch", { "TABLE ruled" })
    end)
  end)

  describe("and the catalog", function()
    -- A door that waits for whoever comes, until it is opened for good.
    local function door()
      local event, is_open = task.event(), false
      return {
        pass = function()
          while not is_open do
            event:wait()
          end
        end,
        open = function()
          is_open = true
          event:notify()
        end,
      }
    end

    it("is asked for all that is new in one query, and not again for what is known", function()
      assert.equal("batch", class_of("SELECT 1 = 2"))
      queries = 0
      assert.equal("batch", class_of("SELECT upper(note) || lower(note) FROM plain JOIN parted USING (id)"))
      assert.equal(1, queries)
      assert.equal("batch", class_of("SELECT lower(note) FROM parted"))
      assert.equal("batch", class_of("SELECT upper(note) || lower(note) FROM plain JOIN parted USING (id)"))
      assert.equal("alone", class_of("SELECT no_such_function()"))
      assert.equal("alone", class_of("SELECT 1, no_such_function()"))
      assert.equal(2, queries)
    end)

    it("is asked by one task at a time; the others hear that nothing is known, and later learn it", function()
      local classes, reasons, gate = {}, {}, door()
      catalog = sql.catalog(function(text, params)
        gate.pass()
        return run(text, params)
      end)
      local first = task.spawn(function()
        return class_of("SELECT * FROM plain")
      end)
      task.sleep(0)
      for i = 1, 5 do
        classes[i], reasons[i] = sql.sharing("SELECT * FROM plain", catalog)
      end
      assert.same({}, classes)
      assert.equal("the catalog is being asked for something else", reasons[5])
      assert.is_nil(class_of("SELECT calm(1)"))
      assert.equal("alone", class_of("BEGIN"))
      gate.open()
      assert.equal("batch", select(2, assert(first:join(5))))
      assert.equal("batch", class_of("SELECT * FROM plain"))
      assert.equal("batch", class_of("SELECT calm(1)"))
    end)

    it("keeps nothing of a look-up that failed", function()
      local working = false
      catalog = sql.catalog(function(text, params)
        if working then
          return run(text, params)
        end
        return nil, errors.new("SHARD_DOWN", { message = "gone" })
      end)
      local class, reason = sql.sharing("SELECT 1", catalog)
      assert.is_nil(class)
      assert.matches("gone", reason, 1, true)
      working = true
      assert.equal("batch", class_of("SELECT 1"))
    end)

    it("can be asked again after the task that asked was cancelled", function()
      local hang = true
      catalog = sql.catalog(function(text, params)
        if hang then
          task.sleep(60)
        end
        return run(text, params)
      end)
      local first = task.spawn(function()
        return class_of("SELECT 1")
      end)
      task.sleep(0)
      first:cancel()
      first:join(5)
      hang = false
      assert.equal("batch", class_of("SELECT 1"))
    end)

    it("is believed for a minute, and then asked for everything in one query", function()
      local changes = 0
      catalog.changed = function()
        changes = changes + 1
      end
      admin("CREATE FUNCTION turning(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT 1'")
      local others = { "SELECT * FROM clean", "SELECT count(*) FROM plain", "SELECT calm(1)" }
      expect("batch", others)
      expect("batch", { "SELECT turning(1)" })
      queries, clock = 0, clock + 61
      expect("batch", { "SELECT turning(1)" })
      assert.equal(1, queries)
      assert.equal(0, changes)

      admin("ALTER FUNCTION turning(int) VOLATILE")
      clock = clock + 59
      expect("batch", { "SELECT turning(1)" })
      assert.equal(1, queries)
      clock = clock + 2
      expect("alone", { "SELECT turning(1)" })
      expect("batch", others)
      assert.equal(2, queries)
      assert.equal(1, changes)
      admin("DROP FUNCTION turning(int)")
    end)

    it("goes by the old facts while they are asked for anew", function()
      local gate, asked = door(), false
      catalog = sql.catalog(function(text, params)
        if asked then
          gate.pass()
        end
        return run(text, params)
      end, {
        clock = function()
          return clock
        end,
      })
      expect("batch", { "SELECT * FROM plain" })
      asked, clock, queries = true, clock + 61, 0
      local refreshing = task.spawn(function()
        return class_of("SELECT * FROM plain")
      end)
      task.sleep(0)
      expect("batch", { "SELECT * FROM plain" })
      assert.equal(0, queries)
      gate.open()
      assert.equal("batch", select(2, assert(refreshing:join(5))))
      assert.equal(1, queries)
    end)

    it("goes by the old facts when it cannot be asked, but not for ever", function()
      local working, changes = true, 0
      catalog = sql.catalog(function(text, params)
        if working then
          return run(text, params)
        end
        return nil, errors.new("SHARD_DOWN", { message = "gone" })
      end, {
        clock = function()
          return clock
        end,
        changed = function()
          changes = changes + 1
        end,
      })
      expect("batch", { "SELECT * FROM plain" })
      working, clock = false, clock + 61
      expect("batch", { "SELECT * FROM plain" })
      clock = clock + 7
      expect("batch", { "SELECT * FROM plain" })
      assert.equal(0, changes)
      clock = clock + 7
      assert.is_nil(class_of("SELECT * FROM plain"))
      assert.equal(1, changes)
      working = true
      expect("batch", { "SELECT * FROM plain" })
    end)

    it("can be forgotten, what is being asked included", function()
      expect("batch", { "SELECT * FROM plain" })
      catalog:forget()
      queries = 0
      expect("batch", { "SELECT * FROM plain" })
      assert.is_true(queries > 0)

      queries = 0
      local gate = door()
      catalog = sql.catalog(function(text, params)
        local rows, err = run(text, params)
        gate.pass()
        return rows, err
      end)
      local first = task.spawn(function()
        return class_of("SELECT * FROM plain")
      end)
      pools.wait_until("the query was asked", function()
        return queries > 0
      end)
      catalog:forget()
      gate.open()
      assert.is_nil(select(2, assert(first:join(5))))
      assert.equal("batch", class_of("SELECT * FROM plain"))
    end)
  end)
end)
