local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local server = require("lunashard.script.server")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

local OLD, NEW = "the-old-one", "a:new\\ one 'quoted'"

describe("scripts/rotate_password.lua", function()
  local admin, cluster, dir, passfile, name

  setup(function()
    admin = scripts.connect(scripts.cluster_file({ lines = 'user = "postgres"' }))
    assert(admin:execute_on_all_shards([[
      DROP ROLE IF EXISTS ops_rotated; CREATE ROLE ops_rotated LOGIN PASSWORD 'the-old-one';
      ALTER ROLE ops_rotated SET log_statement = 'all';
      CREATE SCHEMA IF NOT EXISTS lunashard AUTHORIZATION app]])) -- where the role may not look
    dir = cli.directory()
    passfile = dir .. "/passfile"
    -- As an operator has it: the cluster file names the passfile that is to be brought up to date.
    cluster = scripts.cluster_file({ lines = ('user = "ops_rotated", passfile = %q'):format(passfile) })
    name = dofile(cluster).name
  end)

  before_each(function()
    assert(admin:execute_on_all_shards("ALTER ROLE ops_rotated PASSWORD 'the-old-one'"))
    assert(system.write_file(passfile, "# ours\n*:*:*:ops_rotated:" .. OLD .. "\n*:*:*:other:secret\n", 384))
    assert(system.write_file(dir .. "/new", NEW .. "\n", 384))
  end)

  teardown(function()
    assert(admin:execute_on_all_shards([[
      DROP ROLE ops_rotated;
      DO $$ BEGIN
        DROP SCHEMA lunashard;
      EXCEPTION WHEN dependent_objects_still_exist THEN -- it was there before
      END $$]]))
    scripts.release()
  end)

  local function rotate(...)
    return scripts.run("rotate_password", { "--password-file", dir .. "/new", ... }, { cluster = cluster })
  end

  local function read(path)
    local file = assert(io.open(path))
    local text = file:read("*a")
    file:close()
    return text
  end

  local function login(password)
    local pool = assert(server.connect(cluster, "shard2", { user = "ops_rotated", password = password }))
    local result, err = pool:execute("SELECT 1")
    pool:close()
    return result and "in" or err.code
  end

  it("gives the servers a verifier alone, tries the new password and writes it to the passfile", function()
    local dry = rotate("--dry-run", "--passfile", passfile)
    assert.equal(0, dry.code, dry.stderr)
    assert.equal("in", login(OLD))
    local result = rotate("--passfile", passfile, "--yes", name)
    assert.equal(0, result.code, result.stderr)
    assert.matches("3 shards changed", result.stderr)
    assert.same({ "AUTH", "in" }, { login(OLD), login(NEW) })

    local own = sandbox.shared()
    local first = ("127.0.0.1:%d:*:ops_rotated:a\\:new\\\\ one 'quoted'\n"):format(own.shards[1].port)
    local text = read(passfile)
    assert.equal(first, text:sub(1, #first))
    assert.matches("\n*:*:*:other:secret\n", text, 1, true)
    assert.equal(384, system.stat(passfile).mode)
    -- The cluster file works with what was written there, for a second time, too.
    assert.equal(0, rotate("--passfile", passfile, "--yes", name).code)
    assert.equal(text, read(passfile))

    local log = read(own.dir .. "/data/shard1.log")
    assert.matches("ALTER ROLE \"ops_rotated\" PASSWORD 'SCRAM%-SHA%-256%$", log)
    assert.is_nil(log:find("a:new", 1, true))
    assert.is_nil((result.stdout .. result.stderr):find("a:new", 1, true))
  end)

  it("makes a password that nobody has seen, and takes one from stdin", function()
    local result = scripts.run("rotate_password", { "--generate", "--passfile", passfile, "--yes", name }, { cluster = cluster })
    assert.equal(0, result.code, result.stderr)
    local made = read(passfile):match(":ops_rotated:(%w+)\n")
    assert.equal(32, #made)
    assert.equal("in", login(made))
    result = scripts.run("rotate_password", { "--password-file", "-", "--yes", name }, { cluster = cluster, stdin = "typed\n" })
    assert.equal(0, result.code, result.stderr)
    assert.equal("in", login("typed"))
  end)

  it("changes nothing without the cluster's name, the right, the role, or a place to write to", function()
    local refused = rotate()
    assert.equal(2, refused.code)
    assert.matches("say so with --yes " .. name, refused.stderr, 1, true)
    local forbidden = rotate("--yes", name, "--user", "postgres")
    assert.equal(1, forbidden.code)
    assert.matches("shard1 failed: SQL: ops_rotated may not change the password of postgres", forbidden.stderr)
    local missing = rotate("--yes", name, "--user", "nobody_here")
    assert.equal(1, missing.code)
    assert.matches("there is no role nobody_here", missing.stderr)
    local nowhere = rotate("--yes", name, "--passfile", dir .. "/no/passfile")
    assert.equal(2, nowhere.code)
    assert.matches("%-%-passfile: .*No such file or directory", nowhere.stderr)
    assert(system.chmod(dir .. "/new", 420))
    local readable = rotate("--yes", name)
    assert.equal(2, readable.code)
    assert.matches("others may read it %(mode 644%); chmod go%-rwx it", readable.stderr)
    local unknown = scripts.run("rotate_password", { "--generate", "--yes", name }, { cluster = cluster })
    assert.equal(2, unknown.code)
    assert.equal("in", login(OLD))
  end)
end)
