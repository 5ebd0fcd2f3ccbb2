local cluster = require("spec.support.cluster")
local faults = require("spec.support.faults")
local lunashard = require("lunashard")
local process = require("lunashard.process")
local proxy = require("spec.support.net.proxy")
local sandbox = require("spec.support.sandbox")
local sessions = require("spec.support.faults.sessions")
local through = require("spec.support.faults.through")

describe("a server that cannot prove who it is", function()
  local servers, server

  setup(function()
    servers = sandbox.start({ shards = 3, tls = true })
    server = servers.shards[2]
    assert(faults.ask(server, "ALTER SYSTEM SET log_connections = on"))
    assert(faults.ask(server, "SELECT pg_reload_conf()"))
  end)

  teardown(function()
    servers:destroy()
    sandbox.release()
  end)

  after_each(faults.close_all)

  local function path(name)
    return ("%s/data/%s"):format(servers.dir, name)
  end

  local function read(name)
    local file = assert(io.open(path(name), "rb"))
    local text = file:read("*a")
    file:close()
    return text
  end

  local function openssl(...)
    local result = assert(process.run({ argv = { "openssl", ... }, timeout = 30 }))
    assert.equal(0, result.code, result.stderr)
  end

  -- Write over a file in place, so that it stays its owner's.
  local function overwrite(name, text)
    local file = assert(io.open(path(name), "r+b"))
    assert(file:write(text, ("\n"):rep(math.max(0, #read(name) - #text))))
    file:close()
  end

  local function reload()
    assert(faults.ask(server, "SELECT pg_reload_conf()"))
    cluster.wait_until("the server has read its settings anew", function()
      local sql = "SELECT pg_conf_load_time() > now() - interval '5 s' AS is_new"
      return assert(faults.ask(server, sql)).rows[1].is_new
    end)
  end

  -- A certificate of the right authority for another host.
  local function certify_another()
    local key, certificate = os.tmpname(), os.tmpname()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-keyout", key, "-out", certificate, "-subj", "/CN=elsewhere.test", "-CA", path("ca.crt"), "-CAkey", path("ca.key"),
      "-addext", "subjectAltName=DNS:elsewhere.test")
    for from, to in pairs({ [key] = "server.key", [certificate] = "server.crt" }) do
      local file = assert(io.open(from))
      overwrite(to, file:read("*a"))
      file:close()
      os.remove(from)
    end
  end

  local function count(text, words)
    return select(2, text:gsub(words, ""))
  end

  it("is refused by its name, is sent nothing, and is used again when it has its certificate back", function()
    local drill = faults.drill({ servers = servers })
    local key, certificate = read("server.key"), read("server.crt")
    finally(function()
      overwrite("server.key", key)
      overwrite("server.crt", certificate)
      reload()
    end)
    local log
    drill:fault("shard2", function()
      certify_another()
      reload()
      sessions.terminate(server)
      log = #read("shard2.log")
    end)
    drill:expect_status("shard2", {
      is = function(endpoint)
        local text = tostring(endpoint.last_error)
        return text:find('"elsewhere.test"', 1, true) ~= nil and text:find('does not match host name', 1, true) ~= nil
      end,
    })
    drill:expect_neighbours_unharmed()
    drill:expect_unknown_in_flight("shard2", drill:writers())
    local since = read("shard2.log"):sub(log + 1)
    assert.is_true(count(since, "connection received") > 0)
    assert.equal(0, count(since, "connection authorized: user=app"), "it was told who we are")
    assert.equal(0, count(since, "connection authenticated: identity=\"app\""), "it was given a password")
    drill:recover(function()
      overwrite("server.key", key)
      overwrite("server.crt", certificate)
      reload()
    end)
    drill:expect_throughput()
    drill:finish()
  end)

  -- A statement through a proxy that counts bytes: its error, and what went through.
  local function try(options, shards)
    local between = proxy.start(shards[2].port)
    through.lead(shards[2], { port = between.port })(options)
    local manager = lunashard.manager(options)
    finally(function()
      manager:shutdown()
      between:close()
    end)
    local router, err = lunashard.router({ shard_manager = manager }), nil
    local warnings = cluster.warnings(function()
      assert(manager:initialize())
      err = select(2, router:execute("SELECT 1", nil, { shard_id = "shard2", timeout = 2 }))
    end)
    assert(router:execute("SELECT 1", nil, { shard_id = "shard1", timeout = 2 }))
    assert.is_truthy(table.concat(warnings, "\n"):find("shard2", 1, true))
    manager:shutdown()
    return err, between:stats()
  end

  it("for want of a certificate gets the request for one, and no byte more", function()
    local plain = sandbox.shared()
    local options = cluster.options({})
    options.shards[2].sslmode, options.shards[2].sslrootcert = "verify-full", servers.ca_file
    local err, stats = try(options, plain.shards)
    assert.is_truthy(err.message:find("does not support SSL", 1, true), tostring(err))
    assert.equal("SHARD_DOWN", err.code)
    -- The last connection may have been given up before it asked.
    assert.is_true(stats.up > 0 and stats.up <= 8 * stats.accepted, stats.up .. " bytes")
    assert.equal(0, stats.up % 8)
  end)

  it("to the authority that we trust is refused", function()
    local authority = os.tmpname()
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
      "-keyout", "/dev/null", "-out", authority, "-subj", "/CN=another authority")
    local options = cluster.options({ cluster_file = servers.cluster_file })
    options.shards[2].sslrootcert = authority
    local err = try(options, servers.shards)
    os.remove(authority)
    assert.is_truthy(err.message:find("certificate verify failed", 1, true), tostring(err))
    assert.equal("SHARD_DOWN", err.code)
  end)
end)
