local cli = require("spec.support.cli")
local cluster = require("spec.support.cluster")
local pty = require("spec.support.pty")
local sandbox = require("spec.support.sandbox")

-- What commands do only where a person sits.
describe("at a terminal", function()
  local dir, path, router, terminal

  setup(function()
    dir = cli.directory()
    path = cli.write(dir, "cluster.lua", ([[
      local given = dofile(%q)
      given.name, given.environment = "shop", "production"
      given.tables = { t_asked = { shard_key = "user_id", type = "int8" } }
      return given]]):format(sandbox.shared().cluster_file))
    router = cluster.connect()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS t_asked; CREATE TABLE t_asked (user_id int8, note text)"))
  end)

  after_each(function()
    terminal:close()
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS t_asked"))
    cluster.release()
    cli.remove_all()
  end)

  local function start(argv, options)
    options = options or {}
    options.env = { LUNASHARD_CLUSTER = path }
    terminal = pty.lunashard(argv, options)
    return terminal
  end

  local function count()
    return assert(router:scatter_gather("SELECT count(*) AS n FROM t_asked")).rows[1].n
  end

  it("a write on production wants the cluster's name, and anything else is a no", function()
    start({ "sql", "INSERT INTO t_asked (user_id) VALUES (1)" })
    terminal:see('this will write on the production cluster "shop"\nType the cluster\'s name to go on:')
    terminal:type("yes\r")
    assert.equal(2, terminal:wait())
    terminal:see('not confirmed: "yes" was typed')
    assert.equal(0, count())
    terminal:close()

    start({ "sql", "INSERT INTO t_asked (user_id) VALUES (1)" })
    terminal:see("to go on:")
    terminal:type("shop\r")
    assert.equal(0, terminal:wait())
    assert.equal(1, count())
    assert(terminal:is_sane())
  end)

  it("Ctrl-C and Ctrl-D at the question are a no", function()
    start({ "sql", "--all", "TRUNCATE t_asked" })
    terminal:see("this will destroy all rows of t_asked on")
    terminal:type("\4")
    assert.equal(2, terminal:wait())
    terminal:close()
    start({ "sql", "--all", "TRUNCATE t_asked" })
    terminal:see("to go on:")
    terminal:type("\3")
    assert.equal(130, terminal:wait())
    assert.is_true(count() > 0)
  end)

  it("`status --watch` shows one picture in the place of the one before", function()
    start({ "status", "--watch", "--interval", "0.05" })
    terminal:see("cluster shop (production): 3 of 3 shards healthy")
    for _ = 1, 3 do
      terminal:expect("\27[H\27[J")
    end
    terminal:wait_until("there is one picture", function()
      return select(2, terminal.view:text():gsub("shards healthy", "")) == 1
    end)
    terminal:type("\3")
    assert.equal(130, terminal:wait())
    assert(terminal:is_sane())
  end)

  it("rows wider than the terminal are shown field by field, and too many of them are cut", function()
    start({ "sql", "--shard", "shard1", "SELECT 1 AS one, repeat('x', 60) AS wide" }, { columns = 40 })
    terminal:expect("-[ 1 ]")
    assert.equal(0, terminal:wait())
    terminal:close()
    start({ "sql", "--shard", "shard1", "SELECT generate_series(1, 1005)" }, { columns = 120 })
    terminal:see("5 rows left out (--max-rows 0 for all)")
    assert.equal(0, terminal:wait())
  end)
end)
