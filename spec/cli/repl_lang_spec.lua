local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local lunashard = require("lunashard")
local repl = require("spec.support.repl")
local sandbox = require("spec.support.sandbox")

describe("what is entered in the REPL", function()
  local opened, path

  setup(function()
    path = sandbox.shared().cluster_file
    opened = assert(lunashard.open(path))
    assert(opened.router:execute_on_all_shards([[
      DROP SCHEMA IF EXISTS repl_lang CASCADE; CREATE SCHEMA repl_lang;
      CREATE TABLE repl_lang.users (user_id int8 PRIMARY KEY, name text)]]))
    for id = 1, 6 do
      assert(opened.router:execute("INSERT INTO repl_lang.users VALUES ($1, $2)", { id, "n" .. id },
        { routing_key = id, table = "users" }))
    end
  end)

  teardown(function()
    assert(opened.router:execute_on_all_shards("DROP SCHEMA repl_lang CASCADE"))
    opened:close()
    cluster.release()
  end)

  after_each(repl.close_all)

  local function start(options)
    options = options or {}
    options.cluster, options.prompt = options.cluster or path, options.prompt or "3/3>"
    options.columns = options.columns or 120
    return repl.start(options)
  end

  -- The shared cluster as a production one of that name.
  local function production()
    local text = assert(io.open(path)):read("*a")
    text = text:gsub('name = "[^"]*"', 'name = "prod-1", environment = "production"', 1)
    return cli.write(cli.directory(), "cluster.lua", text)
  end

  local function active(marked)
    local all = assert(opened.router:scatter_gather(
      "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() AND query LIKE '%" .. marked .. "%'",
      nil, { aggregation_func = lunashard.aggregate.concat() }))
    return #all.rows
  end

  it("is SQL by its first word, Lua otherwise, and waits for more where it is not complete", function()
    local terminal = start()
    repl.enter(terminal, "commit;")
    terminal:see("WARNING: there is no transaction in progress")
    repl.enter(terminal, "values (1), (2);")
    terminal:see(" column1\n---------\n       1\n       2\n(2 rows, ")
    repl.enter(terminal, "users = 'a Lua variable'")
    repl.enter(terminal, "users")
    terminal:see('\n"a Lua variable"\n')
    terminal:type("select 'a' -- x\r")
    terminal:type(";\r")
    terminal:see(" ?column?\n----------\n a\n(1 row, ")
    repl.enter(terminal, 'x = "abc')
    terminal:see("unfinished string")
    repl.enter(terminal, "end")
    terminal:see("near 'end'")
  end)

  it("shows errors with SQLSTATE, a caret and the hint, and what a function does", function()
    local terminal = start()
    repl.enter(terminal, "select nme from repl_lang.users where user_id = 1;")
    terminal:see("ERROR 42703 on shard")
    terminal:see("LINE 1: select nme from repl_lang.users where user_id = 1\n               ^\nHINT: ")
    repl.enter(terminal, "help(router.execute)")
    terminal:see("Run one statement on the shard that owns a key.")
  end)

  it("leaves with Ctrl-D only when asked while a transaction is open, which the prompt shows", function()
    local terminal = start()
    repl.enter(terminal, "begin;")
    terminal:see("*?>")
    repl.enter(terminal, "update repl_lang.users set name = 'gone' where user_id = 1;")
    local shard = opened.manager:get_shard_for_write(1).shard_id
    terminal:see("@" .. shard .. "*>")
    terminal:type("\4")
    terminal:see("a transaction is open on " .. shard)
    terminal:type("n\r")
    repl.enter(terminal, "1 + 1")
    terminal:see("\n2\n")
    terminal:type("\4")
    terminal:expect("[y/N]")
    terminal:type("y\r")
    assert.equal(0, terminal:wait())
    assert.equal("n1", assert(opened.router:execute("SELECT name FROM repl_lang.users WHERE user_id = 1")).rows[1].name)
  end)

  it("is stopped by Ctrl-C on every shard, also when it computes", function()
    local terminal = start()
    repl.enter(terminal, "select pg_sleep(60) from repl_lang.users;")
    cli.wait_until("it runs on three shards", function()
      return active("pg_sleep(60)") == 3
    end)
    terminal:type("\3")
    terminal:see("cancelled\n")
    cli.wait_until("nothing of it runs", function()
      return active("pg_sleep(60)") == 0
    end, 2)
    repl.enter(terminal, "print('begun') while true do pcall(function() while true do end end) end")
    terminal:see("\nbegun")
    terminal:type("\3")
    terminal:expect("cancelled")
    repl.enter(terminal, "'still ' .. 'here'")
    terminal:see('\n"still here"\n')
  end)

  it("cannot write to a production cluster until its name is typed: the servers refuse", function()
    local terminal = start({ cluster = production(), prompt = "PROD RO prod-1 3/3>" })
    repl.enter(terminal, "update repl_lang.users set name = 'x' where user_id = 1;")
    terminal:see("ERROR 25006 on shard")
    terminal:see("\\rw makes it writable")
    repl.enter(terminal, "router:execute(\"update repl_lang.users set name = 'x' where user_id = 1\")")
    terminal:expect("ERROR 25006")
    repl.enter(terminal, "begin read write;")
    terminal:see("READ_ONLY")
    repl.enter(terminal, "return router:begin({ routing_key = 1, read_only = false })")
    terminal:expect("READ_ONLY")
    terminal:type("\\rw\r")
    terminal:expect("Type the cluster's name")
    terminal:type("prod\r")
    terminal:see("stays read-only")
    terminal:type("\\rw\r")
    terminal:expect("Type the cluster's name")
    terminal:type("prod-1\r")
    terminal:see("PROD RW prod-1 3/3>")
    repl.enter(terminal, "update repl_lang.users set name = 'n1' where user_id = 1;")
    terminal:see("(UPDATE 1, ")
  end)

  it("is asked about before it drops a table; the default is no, and without a terminal that is exit code 2", function()
    local terminal = start()
    terminal:type("drop table repl_lang.users;\r")
    terminal:expect("[y/N]")
    terminal:type("\r")
    terminal:see("(not run)")
    local result = cli.run({ "repl", "-c", path }, { stdin = "select 1 as one;\ndrop table repl_lang.users;\nselect 2;\n" })
    assert.equal(2, result.code)
    assert.equal(" one\n-----\n   1\n", result.stdout)
    assert.is_truthy(result.stderr:find("refused: changes definitions", 1, true))
    assert.equal(6, tonumber(assert(opened.router:execute("SELECT count(*) AS n FROM repl_lang.users")).rows[1].n))
  end)

  it("can be edited with the user's editor, and is then run", function()
    local terminal = start({ env = { EDITOR = "sed -i s/one/two/" } })
    repl.enter(terminal, "select 'one' as what;")
    terminal:see("\n one\n")
    repl.enter(terminal, "\\e")
    terminal:see("select 'two' as what;")
    terminal:see("\n two\n")
    terminal:see("3/3>")
    repl.enter(terminal, "os.getenv('EDITOR')")
    terminal:see('"sed -i s/one/two/"')
  end)

  it("is watched until Ctrl-C, and shown field by field where a row is too wide", function()
    local terminal = start({ columns = 60 })
    repl.enter(terminal, "select 1 as one, repeat('x', 70) as wide;")
    terminal:see("-[ 1 ]")
    terminal:see("one  | 1\n")
    terminal:type("\\watch 0.05 select 'seen again' as what;\r")
    for _ = 1, 3 do
      terminal:expect(" seen again")
    end
    terminal:type("\3")
    terminal:expect("cancelled")
    terminal:see("3/3>")
  end)
end)
