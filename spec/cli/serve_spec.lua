local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local client = require("spec.support.http")
local plugins = require("spec.support.plugins")
local sandbox = require("spec.support.sandbox")
local sockets = require("spec.support.sockets")

describe("lunashard serve", function()
  local dir, service

  -- A cluster file that takes the sandbox's and adds to it.
  local function cluster(more)
    return cli.write(dir, "cluster.lua", ([[
      local options = dofile(%q)
      options.connection_pool_size = 2
      for name, value in pairs({ %s }) do options[name] = value end
      return options
    ]]):format(sandbox.shared().cluster_file, more or ""))
  end

  local function log()
    return select(2, service:output())
  end

  local function wait_log(pattern)
    cli.wait_until(pattern .. " was said in: " .. log(), function()
      return log():find(pattern) or not service:is_running()
    end)
    return (assert(log():match("()" .. pattern), log()))
  end

  -- Started, with the port that it answers on.
  local function serve(path, arguments, options)
    local argv = { "serve", "-c", path, "--http", "127.0.0.1:0" }
    for _, argument in ipairs(arguments or {}) do
      argv[#argv + 1] = argument
    end
    service = cli.spawn(argv, options)
    wait_log("HTTP on http")
    return tonumber(log():match("HTTP on http:[^\n]-127.0.0.1:(%d+)"))
  end

  local function stop(signal)
    service:signal(signal or "TERM")
    return assert(service:wait(20))
  end

  before_each(function()
    dir = cli.directory()
  end)

  after_each(function()
    client.close_all()
    if service then
      service:close()
    end
    service = nil
    cli.remove_all()
  end)

  teardown(sandbox.release)

  it("answers until it is stopped, and ends with 0", function()
    local port = serve(cluster())
    assert.equal("ok\n", client.get(port, "/healthz").body)
    assert.equal("ready\n", client.get(port, "/readyz").body)
    assert.equal(404, client.get(port, "/nothing").status)
    assert.equal(3, assert(cjson.decode(client.get(port, "/status").body)).total_shards)
    local metrics = client.get(port, "/metrics").body
    assert.matches('\nshard_healthy{shard="shard1"} 1\n', metrics)
    assert.matches('\nlunashard_http_requests_total{path="other",status="404"} 1\n', metrics)
    assert.matches("\nlunashard_http_connections %d+\n", metrics)
    local page = client.get(port, "/")
    local script = require("lunashard.core.system").sha256(page.body:match("<script>(.-)</script>"))
    assert.is_not_nil(page.headers["content-security-policy"]:find("script-src 'sha256-" .. script .. "'", 1, true))
    local result = stop()
    assert.equal(0, result.code)
    assert.equal("", result.stdout)
    assert.matches("cluster test[^\n]*, 3 shards\n", result.stderr:gsub("cluster [^\n ]+ ", "cluster test "))
    assert.matches("stopping, by signal 15\n$", result.stderr)
  end)

  it("ends with 0 on SIGINT too", function()
    serve(cluster())
    assert.equal(0, stop("INT").code)
  end)

  it("goes on with all servers down, alive and not ready", function()
    local port = serve(cli.write(dir, "down.lua", ([[
      return {
        shards = { { shard_id = "a", host = "127.0.0.1", port = %d, database = "x", user = "x" } },
        strategy = { "hash", shard_key = "id" }, connection_timeout = 1,
      }]]):format(sockets.closed_port())))
    assert.equal(200, client.get(port, "/healthz").status)
    local answer = client.get(port, "/readyz")
    assert.equal(503, answer.status)
    assert.equal("not ready: 0 of 1 shards are healthy, 1 are wanted\n", answer.body)
    assert.equal(0, stop().code)
  end)

  it("is ready with as many shards as are wanted", function()
    local port = serve(cluster(), { "--min-shards", "4" })
    assert.equal("not ready: 3 of 3 shards are healthy, 4 are wanted\n", client.get(port, "/readyz").body)
  end)

  it("says one JSON object a line with --log-format json, whatever the names are", function()
    serve(cluster([[jobs = { { every = 60, run = "none.lua", name = "a\nb\1\255\195\164" } }]]), { "--log-format", "json" })
    wait_log("job a")
    local result = stop()
    local messages = {}
    for line in result.stderr:gmatch("[^\n]+") do
      local object = assert(cjson.decode(line), line)
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$", object.time)
      messages[#messages + 1] = object.message
      if object.kind == "job" then
        assert.matches("^job a\nb\1%?\195\164 failed: cannot read the job", object.message)
      end
    end
    assert.equal("stopping, by signal 15", messages[#messages])
  end)

  it("reads the cluster file again on SIGHUP, and its jobs", function()
    local marker = dir .. "/ran"
    cli.write(dir, "job.lua", ('local file = io.open(%q, "w") file:write("x") file:close()'):format(marker))
    serve(cluster())
    cluster([[query_timeout = 7, jobs = { { every = 60, run = "job.lua" } }]])
    service:signal("HUP")
    wait_log("cluster file read again, %d changes")
    wait_log("query_timeout")
    cli.wait_until("the job ran", function()
      return io.open(marker)
    end)
    cluster([[query_timeot = 8]])
    service:signal("HUP")
    wait_log("nothing was changed: [^\n]*query_timeot[^\n]*query_timeout")
    assert.equal(0, stop().code)
  end)

  it("loads plug-ins again as they are saved", function()
    local folder = plugins.folder({ ["strategies/tier.lua"] = plugins.strategy() })
    finally(plugins.clean)
    local port = serve(cluster(('plugins = %q, strategy = { "tier", shard_key = "user_id", key_type = "int8" }'):format(
      folder.path)))
    folder:write("strategies/tier.lua", plugins.strategy({ head = "-- the second" }))
    wait_log("strategy tier reloaded %(generation 2%)")
    local status = assert(cjson.decode(client.get(port, "/status").body))
    assert.equal(2, status.plugins[1].generation)
    assert.equal(0, stop().code)
  end)

  it("lets a job end when it is told to stop, and says meanwhile that it is not ready", function()
    cli.write(dir, "job.lua", [[
      io.stderr:write("begun\n")
      local path = ...
      while not io.open(]] .. ("%q"):format(dir .. "/go") .. [[) do require("lunashard").sleep(0.01) end
      io.stderr:write("done\n")
    ]])
    local port = serve(cluster([[jobs = { { every = 60, run = "job.lua" } }]]))
    wait_log("begun")
    assert.matches('\nlunashard_job_running{name="job.lua"} 1\n', client.get(port, "/metrics").body)
    service:signal("TERM")
    wait_log("stopping")
    assert.equal("not ready: stopping\n", client.get(port, "/readyz").body)
    cli.write(dir, "go", "")
    local result = assert(service:wait(20))
    assert.equal(0, result.code)
    assert.matches("done\n$", result.stderr)
  end)

  it("cancels a job at the end of --stop-timeout; a second signal ends it at once", function()
    cli.write(dir, "job.lua", [[
      io.stderr:write("begun\n")
      router:execute("SELECT pg_sleep(60)", nil, { shard_id = "shard1", timeout = 60 })
    ]])
    local path = cluster([[jobs = { { every = 60, run = "job.lua" } }]])
    serve(path, { "--stop-timeout", "0.1" })
    wait_log("begun")
    assert.equal(0, stop().code)
    service:close()
    serve(path)
    wait_log("begun")
    service:signal("TERM")
    wait_log("stopping")
    assert.equal(143, stop().code)
  end)

  it("ends when told to though a job computes without an end #long", function()
    cli.write(dir, "job.lua", 'io.stderr:write("begun\\n") while true do end')
    serve(cluster([[jobs = { { every = 60, run = "job.lua" } }]]), { "--stop-timeout", "1" })
    wait_log("begun")
    local result = stop()
    assert.is_not_nil(result.code and result.code > 128 or result.signal)
    assert.is_true(result.code ~= 0)
  end)

  it("tells systemd when it is ready, reads anew, is well and stops", function()
    local heard = sockets.datagrams(dir .. "/notify")
    finally(heard.close)
    serve(cluster(), {}, { env = { NOTIFY_SOCKET = dir .. "/notify", WATCHDOG_USEC = "40000", JOURNAL_STREAM = "8:1" } })
    local function wait_for(text)
      cli.wait_until(text .. " was heard", function()
        return heard.read():find(text, 1, true)
      end)
    end
    wait_for("READY=1")
    wait_for("WATCHDOG=1")
    service:signal("HUP")
    wait_for("RELOADING=1\nMONOTONIC_USEC=")
    local result = stop()
    wait_for("STOPPING=1")
    local said = result.stderr:gsub("lunashard: everything stood still for [^\n]*\n", "")
    assert.matches("^lunashard: cluster", said) -- the journal has the time
  end)

  it("takes the secret from a file that others cannot read, or from the environment", function()
    local path = cluster()
    local secret = cli.write(dir, "secret", "0123456789abcdef\n")
    local result = cli.run({ "serve", "-c", path, "--http", "127.0.0.1:0", "--http-auth", secret })
    assert.equal(1, result.code)
    assert.matches("%-%-http%-auth: [^\n]*secret: others may read it %(mode 644%)", result.stderr)
    assert(require("lunashard.core.system").chmod(secret, 384))
    local port = serve(path, { "--http-auth", secret })
    assert.equal(401, client.get(port, "/").status)
    assert.equal(200, client.get(port, "/", { headers = { Authorization = "Bearer 0123456789abcdef" } }).status)
    assert.equal(0, stop().code)
    service:close()
    port = serve(path, {}, { env = { LUNASHARD_HTTP_AUTH = "fedcba9876543210" } })
    assert.equal(200, client.get(port, "/", { headers = { Authorization = "Bearer fedcba9876543210" } }).status)
    assert.is_nil(stop().stderr:find("fedcba"))
  end)

  it("does not begin where everybody could read, where it cannot listen, or with what it does not know", function()
    local path = cluster()
    local function refused(code, pattern, ...)
      local result = cli.run({ "serve", "-c", path, ... })
      assert.equal(code, result.code, result.stderr)
      assert.matches(pattern, result.stderr)
      assert.is_nil(result.stderr:find("traceback"))
    end
    local taken = sockets.silent_server()
    finally(taken.close)
    refused(1, "refusing to listen on 0.0.0.0 without a secret", "--http", ":0")
    refused(1, "refusing to listen on :: without a secret", "--http", "[::]:0")
    refused(1, "cannot listen on port %d+ of 127.0.0.1: Address already in use", "--http", "127.0.0.1:" .. taken.port)
    refused(1, "%-%-http%-auth: [^\n]*none: No such file", "--http-auth", dir .. "/none")
    refused(2, "is not an address and a port", "--http", "9180")
    refused(2, "is not an address and a port", "--http", "127.0.0.1:99999")
    refused(2, "is not a number of seconds", "--stop-timeout", "0")
    refused(2, "log%-format", "--log-format", "xml")
    assert.equal(2, cli.run({ "serve" }).code)
    assert.equal(1, cli.run({ "serve", "-c", dir .. "/none.lua" }).code)
  end)

  it("refuses jobs that are wrong with their place in the file", function()
    for text, message in pairs({
      [ [[jobs = { { run = "a.lua" } }]] ] = "jobs%[1%]%.every: missing; expected a number above 0",
      [ [[jobs = { { every = 0, run = "a.lua" } }]] ] = "jobs%[1%]%.every: expected a number above 0, got 0",
      [ [[jobs = { { every = 1 } }]] ] = "jobs%[1%]%.run: missing",
      [ [[jobs = { { every = 1, run = "a.lua", timout = 1 } }]] ] = 'unknown option "timout" of jobs%[1%]',
      [ [[jobs = { { every = 1, run = "a" }, { every = 2, run = "./a" } }]] ] = 'jobs%[2%]%.name: "a" is already',
    }) do
      local result = cli.run({ "serve", "-c", cluster(text), "--http", "none" })
      assert.equal(1, result.code)
      assert.matches(message, result.stderr)
    end
  end)

  -- A job that asks a server again and again, and a count of how often it did.
  local function busy()
    local marker = dir .. "/count"
    cli.write(dir, "job.lua", ([[
      local n = (manager.count or 0) + 1
      manager.count = n
      assert(router:execute("SELECT 1", nil, { shard_id = "shard1" }))
      assert(require("lunashard.core.system").write_file(%q, tostring(n), 384))
    ]]):format(marker))
    return cluster([[jobs = { { every = 0.02, timeout = 10, run = "job.lua" } }]]), function()
      local file = io.open(marker)
      local n = file and file:read("*n") or 0
      if file then
        file:close()
      end
      return n
    end
  end

  local function goes_on(count)
    local now = count()
    cli.wait_until("queries went on", function()
      return count() >= now + 3
    end)
  end

  it("goes on under a thousand connections", function()
    sockets.raise_descriptor_limit(2048)
    local path, count = busy()
    local port = serve(path)
    for i = 1, 1000 do
      local connection = client.connect(port)
      if i % 2 == 0 then
        connection:send("GET / HTTP/1.1\r\nX: ")
      end
    end
    goes_on(count)
    client.close_all()
    cli.wait_until("it answers again", function()
      return client.get(port, "/healthz").status == 200
    end)
    assert.equal(0, stop().code)
    assert.is_nil(log():match("[^\n]*failed[^\n]*"))
  end)

  it("goes on when no descriptor is left for connections", function()
    local path, count = busy()
    local script = ('ulimit -n 40; exec "%s" serve -c "%s" --http 127.0.0.1:0'):format(cli.binary, path)
    service = assert(require("lunashard.process").spawn({ argv = { "sh", "-c", script } }))
    wait_log("HTTP on http")
    local port = tonumber(log():match("127.0.0.1:(%d+)/"))
    goes_on(count)
    for _ = 1, 60 do
      client.connect(port)
    end
    local last = client.connect(port)
    assert.matches("^HTTP/1.1 503", last:wait())
    client.close_all()
    cli.wait_until("it answers again", function()
      return client.get(port, "/healthz").status == 200
    end)
    goes_on(count)
    assert.equal(0, stop().code)
  end)
end)
