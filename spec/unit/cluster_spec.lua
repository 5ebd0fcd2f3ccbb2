local cluster = require("lunashard.cluster")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

describe("a cluster file", function()
  local path

  before_each(function()
    path = os.tmpname()
  end)

  after_each(function()
    os.remove(path)
  end)

  local function write(text, mode)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    assert(system.chmod(path, mode or 384))
  end

  local function refusal(...)
    local given, err = cluster.load(...)
    assert.is_nil(given)
    assert.is_true(errors.is(err, "INVALID"))
    assert.is_nil(err.message:find("\n", 1, true))
    return err.message
  end

  it("gives the table that it returns", function()
    write('return { name = "shop", query_timeout = 7 }')
    assert.same({ name = "shop", query_timeout = 7 }, cluster.load(path))
  end)

  it("may read the environment, for that is where secrets are", function()
    write('return { name = os.getenv("PATH") }')
    assert.equal(os.getenv("PATH"), cluster.load(path).name)
  end)

  it("leaves no globals behind", function()
    write("leaked = 1 return { name = 'x', retries = leaked }")
    assert.equal(1, cluster.load(path).retries)
    assert.is_nil(rawget(_G, "leaked"))
  end)

  it("may begin with #! and keeps its line numbers", function()
    write("#!/usr/bin/env -S lunashard run\nreturn { name = 'x' }")
    assert.equal("x", cluster.load(path).name)
    write("#!/usr/bin/env -S lunashard run\nerror('here')")
    assert.is_truthy(refusal(path):find(":2: here", 1, true))
  end)

  it("that is missing is refused by name", function()
    local message = refusal("/nonexistent/cluster.lua")
    assert.is_truthy(message:find("/nonexistent/cluster.lua", 1, true), message)
    assert.is_truthy(message:find("No such file", 1, true), message)
  end)

  it("that is a directory is refused", function()
    assert.is_truthy(refusal("/tmp"):find("is a directory", 1, true))
  end)

  it("that others may write is refused, for it is code", function()
    for _, mode in ipairs({ 438, 432, 386 }) do -- 0666, 0660, 0602
      write("return {}", mode)
      assert.is_truthy(refusal(path):find("others may write it", 1, true))
    end
    write("return {}", 420) -- 0644
    assert.is_table(cluster.load(path))
  end)

  it("with a syntax error is refused with file and line", function()
    write("return {\n  name = ,\n}")
    local message = refusal(path)
    assert.is_truthy(message:find(path .. ":2:", 1, true), message)
  end)

  it("that raises is refused with file and line", function()
    write("\n\nlocal x = nil\nreturn x.field")
    local message = refusal(path)
    assert.is_truthy(message:find(path .. ":4:", 1, true), message)
  end)

  it("that returns something else than a table is refused", function()
    write("local options = {}")
    assert.is_truthy(refusal(path):find("returns nothing, not a table", 1, true))
    write("return 'x'")
    assert.is_truthy(refusal(path):find("returns a string, not a table", 1, true))
  end)

  it("that is compiled Lua is refused", function()
    write(string.dump(function() return {} end))
    assert.is_string(refusal(path))
  end)

  it("names other files relative to itself", function()
    write([[return {
      plugins = "plugins",
      shards = { { passfile = "secret/pass", sslrootcert = "/etc/ca.crt", replicas = { { host = "r", passfile = "p2" } } } },
    }]])
    local given = assert(cluster.load(path))
    local dir = system.realpath(path):match("^(.*)/")
    assert.equal(dir .. "/plugins", given.plugins)
    assert.equal(dir .. "/secret/pass", given.shards[1].passfile)
    assert.equal("/etc/ca.crt", given.shards[1].sslrootcert)
    assert.equal(dir .. "/p2", given.shards[1].replicas[1].passfile)
  end)

  it("with wrong options is refused by open with the file and the option's path", function()
    write([[return {
      strategy = { "hash", shard_key = "id" },
      shards = { { shard_id = "a", host = "h", database = "d", port = 0 } },
    }]])
    local opened, err = cluster.open(path)
    assert.is_nil(opened)
    assert.is_true(errors.is(err, "INVALID"))
    assert.is_truthy(err.message:find(path, 1, true), err.message)
    assert.is_truthy(err.message:find("shards[1].port", 1, true), err.message)
  end)

  it("must be named: none is looked for", function()
    assert.has_error(function() cluster.open() end)
    assert.has_error(function() cluster.open("") end)
  end)
end)
