local cli = require("spec.support.cli")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

describe("scripts/schema_drift.lua", function()
  local router, cluster, dir

  setup(function()
    scripts.database("ops_drift")
    cluster, dir = scripts.cluster_file({ database = "ops_drift" }), cli.directory()
    router = scripts.connect(cluster)
    assert(router:execute_on_all_shards("CREATE TABLE users (user_id int8 PRIMARY KEY, email text NOT NULL)"))
  end)

  teardown(scripts.release)

  local function drift(...)
    return scripts.run("schema_drift", { ... }, { cluster = cluster })
  end

  it("finds none between shards that are the same", function()
    local result = drift("--exit-code")
    assert.equal(0, result.code, result.stderr)
    assert.equal("", result.stdout)
    assert.matches("differences: none", result.stderr)
  end)

  it("names every difference, and writes SQL that mends it", function()
    assert(router:execute("ALTER TABLE users ALTER email DROP NOT NULL", nil, { shard_id = "shard2" }))
    assert(router:execute("CREATE INDEX users_email ON users (email)", nil, { shard_id = "shard3" }))
    local result = drift("--json", "--exit-code", "--mend", dir)
    assert.equal(3, result.code, result.stderr)
    local found = {}
    for _, one in ipairs(result.json.result.differences) do
      found[#found + 1] = ("%s %s %s %s"):format(one.shard, one.what, one.kind, one.name)
    end
    assert.same({ "shard2 changed column public.users.email", "shard3 extra index public.users_email" }, found)
    assert.matches("deploy_schema%.lua .*/shard[23]%.sql", result.json.next)
    local file = io.open(dir .. "/shard2.sql")
    assert(router:execute_on_all_shards(file:read("*a"), { shard_ids = { "shard2" } }))
    file:close()
    assert(router:execute("DROP INDEX users_email", nil, { shard_id = "shard3" }))
    assert.equal(0, drift("--exit-code").code)
  end)

  it("compares those that answer when the first shard is down", function()
    local result = scripts.run("schema_drift", { "--json" },
      { cluster = scripts.cluster_file({ database = "ops_drift", down = 1 }) })
    assert.equal("shard2", result.json.result.against)
    assert.same({ 4, 1, 2 }, { result.code, result.json.counts.unreachable, result.json.counts.ok })
  end)

  it("ends with 1 when the SQL cannot be written, or no shard says what is right", function()
    assert(router:execute("CREATE INDEX users_email ON users (email)", nil, { shard_id = "shard3" }))
    local result = drift("--mend", dir .. "/nowhere")
    assert(router:execute("DROP INDEX users_email", nil, { shard_id = "shard3" }))
    assert.equal(1, result.code)
    assert.matches("%-%-mend: .*/nowhere/shard3%.sql: No such file or directory", result.stderr)
    assert.is_nil(system.stat(dir .. "/nowhere"))
    result = drift("--against", "shard9")
    assert.equal(1, result.code)
    assert.matches("there is no shard shard9, did you mean \"shard%d\"", result.stderr)
  end)
end)
