local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local session = require("lunashard.repl.session")
local task = require("lunashard.task")

describe("a session", function()
  local opened, own, out, said, asked, answer

  setup(function()
    opened = assert(lunashard.open(sandbox.shared().cluster_file))
    assert(opened.router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS repl CASCADE; CREATE SCHEMA repl;
      CREATE TABLE repl.users (user_id int8 PRIMARY KEY, name text)]]))
    for id = 1, 30 do
      assert(opened.router:execute("INSERT INTO repl.users VALUES ($1, $2)", { id, "n" .. id },
        { routing_key = id, table = "users" }))
    end
  end)

  teardown(function()
    assert(opened.router:execute_on_all_shards("DROP SCHEMA repl CASCADE"))
    opened:close()
    cluster.release()
  end)

  before_each(function()
    out, said, asked, answer = {}, {}, {}, nil
    own = assert(session.new(opened, {
      out = function(text)
        out[#out + 1] = text
      end,
      err = function(text)
        said[#said + 1] = text
      end,
      ask = function(question)
        asked[#asked + 1] = question
        return answer
      end,
    }))
  end)

  after_each(function()
    own:close()
  end)

  local function run(text)
    out, said, asked = {}, {}, {}
    local ok, code = own:run(text)
    return ok, table.concat(out), table.concat(said), code
  end

  local function key_on(number)
    return cluster.key_on(opened.manager, number)
  end

  local function contains(text, part)
    assert.is_truthy(text:find(part, 1, true), ("no %q in %q"):format(part, text))
  end

  it("shows rows with their shards, and says how many it left out", function()
    local ok, shown, below = run("select user_id, name from repl.users order by user_id;")
    assert.is_true(ok)
    contains(shown, "       1 | n1\n")
    contains(below, "(30 rows, shard1, shard2, shard3, ")
    own.settings.max_rows = 4
    ok, shown, below = run("select user_id from repl.users order by user_id;")
    assert.is_true(ok)
    assert.is_nil(shown:find("5"))
    contains(below, "26 left out")
  end)

  it("sends a statement with a key to its shard, and one without a table to any", function()
    local key = key_on(2)
    local _, _, below = run(("select * from repl.users where user_id = %d;"):format(key))
    contains(below, "(1 row, shard2, ")
    _, _, below = run("select (1);")
    contains(below, "(1 row, shard1, ")
  end)

  it("explains what each shard is asked, where a statement is for several", function()
    local ok, shown, below = run("explain (costs off) select name from repl.users order by name limit 3 offset 2;")
    assert.is_true(ok)
    for _, shard_id in ipairs({ "shard1", "shard2", "shard3" }) do
      contains(shown, " " .. shard_id .. "   | Limit\n")
    end
    contains(below, "shard1, shard2, shard3, ")
    ok, shown = run("explain analyze verbose select * from repl.users where user_id in (1, 2, 3, 4, 5, 6, 7, 8);")
    assert.is_true(ok)
    contains(shown, "actual time")
    assert.is_nil(shown:find("1,2,3,4,5,6,7,8", 1, true))
    contains(select(3, run("explain select * from repl.users where user_id = 1;")), " rows, ")
    assert.is_false((run("explain analyze delete from repl.users;")))
    contains(select(3, run("explain select nme from repl.users;")), "42703")
    contains(select(2, run("select count(*) from repl.users;")), "    30\n")
  end)

  it("puts a caret under the place of an error, with SQLSTATE and hint", function()
    local ok, _, below = run("select\n  nme from repl.users where user_id = 1;")
    assert.is_false(ok)
    contains(below, "ERROR 42703 on ")
    contains(below, "LINE 2:   nme from repl.users where user_id = 1\n          ^")
    contains(below, "HINT: Perhaps you meant")
    assert.equal("42703", own.env._err.sqlstate)
  end)

  it("keeps a transaction on the shard of its first statement until it ends, over lines", function()
    local key = key_on(3)
    run("begin;")
    assert.is_truthy(own:prompt():find("*?", 1, true))
    run(("update repl.users set name = 'changed' where user_id = %d;"):format(key))
    assert.is_truthy(own:prompt():find("@shard3*", 1, true))
    assert.is_truthy(own:unfinished())
    local ok, _, below = run(("select * from repl.users where user_id = %d;"):format(key_on(1)))
    assert.is_false(ok)
    contains(below, "KEY_MISMATCH")
    run("savepoint a;")
    run("select 1/0;")
    assert.is_truthy(own:prompt():find("@shard3!", 1, true))
    run("rollback to a;")
    local _, shown = run("select name from repl.users where user_id = " .. key .. ";")
    contains(shown, "changed")
    run("rollback")
    assert.is_nil(own:unfinished())
    _, shown = run(("select name from repl.users where user_id = %d;"):format(key))
    contains(shown, "n" .. key)
  end)

  it("asks before it changes definitions, writes without WHERE or on several shards; the default is no", function()
    answer = ""
    for _, sql in ipairs({ "create table repl.more ();", "delete from repl.users;", "update repl.users set name = 'x';",
      "update repl.users set name = 'x' where name = 'y';", "truncate repl.users;",
      "with gone as (delete from repl.users returning *) insert into repl.users select * from gone;",
      "delete from repl.users where user_id in (1, 2, 3, 4, 5, 6, 7);" }) do
      local ok, _, below = run(sql)
      assert.is_false(ok, sql)
      assert.equal(below:find("ERROR", 1, true) and 0 or 1, #asked, sql)
    end
    contains(select(2, run("select count(*) from repl.users;")), "    30\n")
    answer = "y"
    assert.is_true((run("update repl.users set name = name where name = 'none';")))
    contains(asked[1], "shard1, shard2, shard3")
    assert.is_true((run(("update repl.users set name = name where user_id = %d;"):format(key_on(1)))))
    assert.equal(0, #asked)
  end)

  it("refuses what it would ask about when there is no terminal, with exit code 2", function()
    own.ask = nil
    local ok, _, below, code = run("delete from repl.users;")
    assert.is_false(ok)
    assert.equal(2, code)
    contains(below, "refused: DELETE has no WHERE: every row of users")
  end)

  it("prints expressions, keeps local variables and results, and shows failures of Lua", function()
    run("local x = { 1, y = 9223372036854775807LL }")
    local _, shown = run("x")
    assert.equal("{ 1, y = 9223372036854775807LL }\n", shown)
    assert.equal("1\n\"a\"\n", select(2, run("1, 'a'")))
    assert.equal("2\n", select(2, run("_1 + 1")))
    assert.equal("", select(2, run("return")))
    assert.equal("6\n", select(2, run("local t = 5 return t + 1")))
    local ok, _, below = run("error('boom')")
    assert.is_false(ok)
    assert.equal("ERROR: boom\n", below)
    contains(select(2, run("\\tb")), "xpcall")
    contains(select(3, run("selct 1")), "did you mean SELECT?")
    contains(select(3, run("router:execute('selct')")), "ERROR 42601")
  end)

  it("tells a transaction whose statement was stopped from one that is well, and goes on without it", function()
    run("begin;")
    run(("update repl.users set name = 'lost' where user_id = %d;"):format(key_on(1)))
    local running = task.spawn(run, "select pg_sleep(60);")
    cluster.wait_until("it runs", function()
      return own.tx and own.tx.lease:transaction_status() == "active"
    end)
    own:interrupt()
    running:join(5)
    assert.is_truthy(own:prompt():find("@shard1!", 1, true))
    assert.is_false((run("commit;")))
    assert.is_nil(own:prompt():find("@", 1, true))
    contains(select(2, run(("select name from repl.users where user_id = %d;"):format(key_on(1)))), "n" .. key_on(1))
  end)

  it("runs a text that is too long to be parsed only where it was told to, inside the transaction that is open", function()
    local long = "/*" .. ("x"):rep(40000) .. "*/"
    contains(select(3, run("select 1 as one " .. long .. ";")), "NO_KEY")
    run("\\use shard1")
    contains(select(2, run("select 1 as one " .. long .. ";")), "   1\n")
    answer = ""
    assert.is_false((run("delete from repl.users " .. long .. ";")))
    assert.equal(1, #asked)
    answer = "y"
    run("begin;")
    assert.is_true((run("delete from repl.users " .. long .. ";")))
    run("rollback;")
    run("\\use")
    contains(select(2, run("select count(*) from repl.users;")), "    30\n")
  end)

  it("warns of columns of one name, and shows all that there is where there is no terminal", function()
    contains(select(3, run("select 1 as a, 2 as a, 3 as b;")), "several columns are called a")
    own.settings.max_rows = nil
    local _, shown = run("select generate_series(1, 1200) as n;")
    contains(shown, "\n 1200\n")
    own.width = function()
      return 80
    end
    local _, _, below = run("select generate_series(1, 1200) as n;")
    contains(below, "200 left out")
  end)

  it("runs the lines of a file up to the first that fails, and writes what comes out to another", function()
    local input, output = os.tmpname(), os.tmpname()
    local file = assert(io.open(input, "w"))
    file:write("select count(*) as n\n  from repl.users;\nlocal x = 5\nfor i = 1, 2 do\n  print('turn', i)\nend\nerror('here')\n",
      "print('never')\n")
    file:close()
    run("\\o " .. output)
    local ok, shown, below = run("\\i " .. input)
    run("\\o")
    assert.is_false(ok)
    assert.equal("", shown)
    contains(below, input .. ":7: stopped here")
    assert.equal(5, own.env.x)
    file = assert(io.open(output))
    assert.equal(" n\n----\n 30\nturn\t1\nturn\t2\n", file:read("*a"))
    file:close()
    os.remove(input)
    os.remove(output)
    contains(select(3, run("\\i /nowhere/at/all")), "No such file")
    contains(select(3, run("\\i /tmp")), "INVALID: \\i: /tmp: Is a directory")
    contains(select(3, run("\\o /nowhere/at/all")), "No such file")
    assert.equal("3\n", select(2, run("1 + 2")))
  end)

  it("says of a full disk that what came out is not all there", function()
    assert.is_true((run("\\o /dev/full")))
    contains(select(3, run("1 + 1")), "/dev/full")
    local ok, _, below = run("\\o")
    assert.is_false(ok)
    contains(below, "was not written whole")
    assert.equal("2\n", select(2, run("1 + 1")))
  end)

  it("does without a cluster", function()
    local alone = assert(session.new(nil, { out = own.out, err = own.err }))
    assert.is_true((alone:run("1 + 1")))
    assert.is_false((alone:run("select 1;")))
    contains(table.concat(said), "there is no cluster")
    for _, command in ipairs({ "shards", "health", "pools", "plugins", "jobs", "reload", "use a", "route 1", "explain select 1",
      "rw" }) do
      assert.is_false((alone:run("\\" .. command)), command)
    end
    alone:close()
  end)

  it("pins statements to a shard or the shard of a key", function()
    run("\\use shard2")
    contains(own:prompt(), "@shard2")
    contains(select(3, run("select count(*) from repl.users;")), "(1 row, shard2, ")
    run("\\use key " .. key_on(3))
    contains(select(3, run("select count(*) from repl.users;")), "(1 row, shard3, ")
    run("\\use")
    assert.is_nil(own:prompt():find("@", 1, true))
    contains(select(3, run("\\use shard9")), "did you mean")
  end)

  it("stops a scatter on every shard", function()
    local running = task.spawn(run, "select pg_sleep(30) from repl.users;")
    local marked = "query LIKE '%pg_sleep(30)%' AND pid <> pg_backend_pid() AND state = 'active'"
    local function active()
      local all = assert(opened.router:scatter_gather("SELECT count(*) AS n FROM pg_stat_activity WHERE " .. marked, nil,
        { aggregation_func = lunashard.aggregate.sum("n") }))
      return all.rows[1].sum_n or all.rows[1].n or all.rows[1].sum
    end
    cluster.wait_until("it runs everywhere", function()
      return tonumber(active()) >= 3
    end)
    assert.is_true(own:interrupt())
    local _, ok, _, below, code = running:join(5)
    assert.is_false(ok)
    assert.equal("cancelled\n", below)
    assert.equal(130, code)
    assert.equal(0, tonumber(active()))
  end)

  it("makes a script of its lines that does the same again", function()
    local directory = os.tmpname()
    os.remove(directory)
    run("local key = " .. key_on(1))
    run("key + 1")
    run("select count(*) from repl.users;")
    run("begin;")
    run(("update repl.users set name = 'n' where user_id = %d;"):format(key_on(1)))
    run("commit;")
    run("selct 1")
    assert.is_true((run("\\save " .. directory)))
    local file = assert(io.open(directory .. ".lua"))
    local text = file:read("*a")
    file:close()
    os.remove(directory .. ".lua")
    assert.is_nil(text:find("selct", 1, true))
    local printed = {}
    local env = setmetatable({ router = opened.router, print = function(...)
      printed[#printed + 1] = tostring((...))
    end, io = { write = function(shown)
      printed[#printed + 1] = shown
    end } }, { __index = _G })
    local chunk = assert(load((text:gsub("^#[^\n]*", "")), "=saved", "t", env))
    chunk()
    assert.equal(tostring(key_on(1) + 1), printed[1])
    contains(printed[2], "    30\n")
  end)
end)
