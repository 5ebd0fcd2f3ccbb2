local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

describe("scripts/export_rows.lua", function()
  local router, cluster, dir

  setup(function()
    router = scripts.connect()
    assert(router:execute_on_all_shards([[
      DROP TABLE IF EXISTS ops_export; CREATE TABLE ops_export (user_id int8 PRIMARY KEY, name text)]]))
    local rows = {}
    for i = 1, 200 do
      rows[i] = { i, 'a "quoted", \\ name\nof ' .. i }
    end
    assert(router:execute_many("INSERT INTO ops_export VALUES ($1, $2)", rows, { key = 1 }))
    cluster = scripts.cluster_file({ lines = 'tables = { ops_export = { shard_key = "user_id", type = "int8" } }' })
    dir = cli.directory()
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE ops_export"))
    scripts.release()
  end)

  local function export(...)
    return scripts.run("export_rows", { ... }, { cluster = cluster })
  end

  local function read(path)
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return text
  end

  it("writes rows of all shards to one file that holds them all, with one header", function()
    local path = dir .. "/all.csv"
    local result = export("ops_export", "--columns", "user_id", "--header", "--output", path, "--json")
    assert.equal(0, result.code, result.stderr)
    local text, seen = read(path), {}
    assert.equal("user_id\n", text:sub(1, 8))
    for id in text:sub(9):gmatch("(%d+)\n") do
      seen[tonumber(id)] = (seen[tonumber(id)] or 0) + 1
    end
    for i = 1, 200 do
      assert.equal(1, seen[i])
    end
    local again = export("ops_export", "--output", path)
    assert.equal(1, again.code)
    assert.matches("the file exists; %-%-overwrite replaces it", again.stderr)
    assert.equal(text, read(path))
  end)

  it("gives the rows of a key from its shard alone, as lines of JSON that say what the rows say", function()
    local result = export("ops_export", "--key", "42", "--format", "jsonl")
    assert.equal(0, result.code, result.stderr)
    assert.same({ user_id = 42, name = 'a "quoted", \\ name\nof 42' }, cjson.decode(result.stdout))
    assert.matches("1 shard ok", result.stderr)
  end)

  it("writes a file for each shard, and goes on with those that are missing", function()
    local down = scripts.cluster_file({ down = 2 })
    local arguments = { "ops_export", "--where", "user_id <= 100", "--dir", dir, "--json" }
    local first = scripts.run("export_rows", arguments, { cluster = down })
    assert.equal(4, first.code)
    assert.is_nil(system.stat(dir .. "/ops_export.shard2.csv"))
    assert.is_nil(system.stat(dir .. "/ops_export.shard2.csv.partial"))
    local second = scripts.run("export_rows", arguments, { cluster = cluster })
    assert.equal(0, second.code, second.stderr)
    assert.is_true(second.json.shards[1].detail.already_there and second.json.shards[3].detail.already_there)
    local sum = second.json.shards[2].detail.rows + first.json.shards[1].detail.rows + first.json.shards[3].detail.rows
    assert.equal(100, sum)
  end)

  it("ends with 1 and leaves nothing behind when the disk is full, the pipe closed, or the condition wrong", function()
    assert(os.execute(("ln -s /dev/full %s/full.csv.partial"):format(dir)) == 0)
    local result = export("ops_export", "--output", dir .. "/full.csv")
    assert.equal(1, result.code)
    assert.matches("full%.csv%.partial: No space left on device", result.stderr)
    assert.is_nil(system.stat(dir .. "/full.csv"))
    local command = [["$0" run -c "$1" scripts/export_rows.lua --query "SELECT repeat('x', 1000000)" | head -c 1
      exit ${PIPESTATUS[0]}]]
    result = cli.run({}, { argv = { "bash", "-c", command, cli.binary, sandbox.shared().cluster_file } })
    assert.equal(141, result.code, result.stderr)
    assert.matches("stdout was closed by its reader", result.stderr)
    result = export("ops_export", "--where", "nme = 'x'", "--output", dir .. "/none.csv")
    assert.equal(1, result.code)
    assert.matches('column "nme" does not exist.*Perhaps you meant', result.stderr)
    assert.is_nil(system.stat(dir .. "/none.csv"))
  end)

  it("ends with 2 for a wrong command line", function()
    for message, arguments in pairs({
      ["there is no table ops_exprt on shard1; did you mean ops_export"] = { "ops_exprt" },
      ["give %-%-output or %-%-dir, not both"] = { "ops_export", "--output", "x", "--dir", "y" },
      ["%-%-query says all itself"] = { "ops_export", "--query", "SELECT 1" },
      ["the rows go to %-%-output FILE"] = { "ops_export", "--json" },
    }) do
      local result = export(unpack(arguments))
      assert.equal(2, result.code, result.stderr)
      assert.matches(message, result.stderr)
    end
  end)
end)
