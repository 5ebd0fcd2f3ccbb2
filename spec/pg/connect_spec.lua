local errors = require("lunashard.errors")
local pools = require("spec.support.pools")
local process = require("lunashard.process")
local sockets = require("spec.support.sockets")
local task = require("lunashard.task")

describe("connecting", function()
  local server

  setup(function()
    server = pools.start({ tls = true })
  end)

  teardown(function()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
  end)

  local function first_row(options, sql)
    local result = assert(pools.open(options):execute(sql))
    return result.rows[1], result
  end

  describe("to a server that is there", function()
    it("works by address, and the result names the endpoint", function()
      local row, result = first_row({}, "SELECT current_user::text AS who, current_database()::text AS db")
      assert.equal("app", row.who)
      assert.equal(server.database, row.db)
      assert.equal("127.0.0.1:" .. server.port, result.endpoint)
    end)

    it("works by name, which is resolved without blocking", function()
      local row, result = first_row({ host = "localhost" }, "SELECT host(inet_server_addr()) AS address")
      assert.equal("127.0.0.1", row.address)
      assert.equal("localhost:" .. server.port, result.endpoint)
    end)

    it("passes the application name on", function()
      local row = first_row({ application_name = "spec connect" }, "SELECT current_setting('application_name') AS name")
      assert.equal("spec connect", row.name)
    end)

    it("asks whether the other side is still there when nothing has come for half a minute", function()
      local pool = pools.open({ sslmode = "disable" })
      local own = assert(pool:execute("SELECT inet_client_port() AS port")).rows[1].port
      -- The kernel's list of connections: local address, remote address, state, queues, what its timer waits for and how
      -- long, in hundredths of a second.
      local pattern = ("%%x+:%04X %%x+:%04X 01 %%x+:%%x+ (%%x+):(%%x+)"):format(own, server.port)
      local file = assert(io.open("/proc/self/net/tcp"))
      local timer, left = file:read("*a"):match(pattern)
      file:close()
      assert.equal("02", timer, "no keepalive is on")
      assert.is_true(tonumber(left, 16) <= 3000, left)
    end)

    it("measures a ping and tells what it found", function()
      local found = assert(pools.open():ping(task.now() + 5))
      assert.is_true(found.latency > 0 and found.latency < 5)
      assert.is_false(found.in_recovery)
      assert.is_truthy(tostring(found.server_version):find("^1%d"))
    end)
  end)

  describe("with passwords", function()
    it("reports a wrong one as AUTH, with the server's words and without the password", function()
      local err = pools.failure("AUTH", pools.open({ password = "sesame-7731" }):execute("SELECT 1"))
      assert.is_truthy(err.message:find("password authentication failed", 1, true), err.message)
      assert.is_nil(tostring(err):find("sesame", 1, true))
      assert.is_false(err.retryable)
      assert.equal("shard1", err.shard_id)
      assert.equal("127.0.0.1:" .. server.port, err.endpoint)
    end)

    it("reports a missing one as AUTH", function()
      local before = sockets.setenv("PGPASSFILE", "/no/such/file")
      local err = pools.failure("AUTH", pools.open({ password = false }):execute("SELECT 1"))
      sockets.setenv("PGPASSFILE", before)
      assert.is_truthy(err.message:find("password", 1, true), err.message)
    end)

    it("finds one in a passfile", function()
      local row = first_row({ password = false, passfile = server.passfile }, "SELECT 1 AS one")
      assert.equal(1, row.one)
    end)

    it("finds one in a passfile by the server's name, although the address is what libpq is given", function()
      local path = os.tmpname()
      local file = assert(io.open(path, "w"))
      file:write(("localhost:%d:*:app:%s\n"):format(server.port, server.password))
      file:close()
      assert.equal(0, assert(process.run({ argv = { "chmod", "600", path } })).code)
      local by_name = pools.open({ password = false, passfile = path, host = "localhost" })
      local result, err = by_name:execute("SELECT 1 AS one")
      os.remove(path)
      assert.is_nil(err)
      assert.equal(1, result.rows[1].one)
    end)

    it("finds one in PGPASSWORD", function()
      local before = sockets.setenv("PGPASSWORD", server.password)
      local result, err = pools.open({ password = false }):execute("SELECT 1 AS one")
      sockets.setenv("PGPASSWORD", before)
      assert.is_nil(err)
      assert.equal(1, result.rows[1].one)
    end)

    it("prefers the option to PGPASSWORD", function()
      local before = sockets.setenv("PGPASSWORD", "not this one")
      local result, err = pools.open():execute("SELECT 1 AS one")
      sockets.setenv("PGPASSWORD", before)
      assert.is_nil(err)
      assert.equal(1, result.rows[1].one)
    end)

    it("does not open one connection after another for a refused login", function()
      local pool = pools.open({ password = "wrong" })
      for _ = 1, 3 do
        pools.failure("AUTH", pool:execute("SELECT 1"))
      end
      assert.is_true(pool:stats().connect_failures <= 3)
      assert.equal(0, pool:stats().size)
    end)
  end)

  describe("to a database that is not there", function()
    it("says so in the server's words", function()
      local result, err = pools.open({ database = "no_such_db" }):execute("SELECT 1")
      assert.is_nil(result)
      assert.is_true(errors.is(err))
      assert.is_truthy(err.message:find('database "no_such_db" does not exist', 1, true), err.message)
    end)
  end)

  describe("to a server that is not there", function()
    it("fails at once with SHARD_DOWN, naming the endpoint", function()
      local port = sockets.closed_port()
      local seconds, result, err = pools.timed(function()
        return pools.open({ port = port }):execute("SELECT 1")
      end)
      pools.failure("SHARD_DOWN", result, err)
      assert.is_true(seconds < 1, seconds)
      assert.equal("127.0.0.1:" .. port, err.endpoint)
      assert.is_true(err.retryable)
      assert.is_truthy(err.message:find("refused", 1, true), err.message)
      assert.is_nil(err.message:find("\n", 1, true))
    end)

    it("fails with SHARD_DOWN for a name that does not exist, and repeats the name", function()
      local err = pools.failure("SHARD_DOWN", pools.open({ host = "no-such-host.invalid" }):execute("SELECT 1"))
      assert.is_truthy(tostring(err):find("no-such-host.invalid", 1, true), tostring(err))
    end)

    it("tells every waiting task when it cannot connect", function()
      local pool = pools.open({ port = sockets.closed_port(), max_size = 2 })
      local seconds, failed = pools.timed(function()
        local fns, count = {}, 0
        for i = 1, 20 do
          fns[i] = function()
            pools.failure("SHARD_DOWN", pool:execute("SELECT 1"))
            count = count + 1
          end
        end
        assert(task.gather(fns))
        return count
      end)
      assert.equal(20, failed)
      assert.is_true(seconds < 3, seconds)
    end)
  end)

  describe("to a server that accepts and never answers", function()
    it("fails with SHARD_DOWN after connection_timeout", function()
      local silent = sockets.silent_server()
      local seconds, result, err = pools.timed(function()
        return pools.open({ port = silent.port, connection_timeout = 0.4 }):execute("SELECT 1")
      end)
      silent.close()
      pools.failure("SHARD_DOWN", result, err)
      assert.is_true(seconds >= 0.39 and seconds < 1.5, seconds)
    end)

    it("lets a shorter deadline of the caller win", function()
      local silent = sockets.silent_server()
      local pool = pools.open({ port = silent.port, connection_timeout = 5 })
      local seconds, result, err = pools.timed(function()
        return pool:execute("SELECT 1", nil, { deadline = task.now() + 0.2 })
      end)
      pool:close()
      silent.close()
      assert.is_nil(result)
      assert.is_true(errors.is(err))
      assert.is_true(seconds >= 0.19 and seconds < 1, seconds)
    end)

    it("does not block other tasks meanwhile", function()
      local silent = sockets.silent_server()
      local stuck = pools.open({ port = silent.port, connection_timeout = 0.5 })
      local good = pools.open()
      assert(good:execute("SELECT 1"))
      local waiting = task.spawn(function()
        return stuck:execute("SELECT 1")
      end)
      local longest = 0
      for _ = 1, 20 do
        longest = math.max(longest, (pools.timed(function()
          return assert(good:execute("SELECT 1"))
        end)))
        task.sleep(0.01)
      end
      assert(waiting:join(5))
      silent.close()
      assert.is_true(longest < 0.2, longest)
    end)
  end)

  describe("with TLS", function()
    local IS_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"

    it("encrypts when asked to", function()
      assert.is_true(first_row({ sslmode = "require" }, IS_ENCRYPTED).ssl)
    end)

    it("does not encrypt with sslmode = disable", function()
      assert.is_false(first_row({ sslmode = "disable" }, IS_ENCRYPTED).ssl)
    end)

    it("accepts the right name and authority with verify-full", function()
      local options = { host = "localhost", sslmode = "verify-full", sslrootcert = server.ca_file }
      assert.is_true(first_row(options, IS_ENCRYPTED).ssl)
    end)

    it("accepts the right address with verify-full", function()
      local options = { host = "127.0.0.1", sslmode = "verify-full", sslrootcert = server.ca_file }
      assert.is_true(first_row(options, IS_ENCRYPTED).ssl)
    end)

    it("refuses a certificate of another authority", function()
      local key, cert = os.tmpname(), os.tmpname()
      local made = assert(process.run({
        argv = { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
          "-keyout", key, "-out", cert, "-subj", "/CN=Another CA", "-days", "2" },
      }))
      assert.equal(0, made.code, made.stderr)
      local result, err = pools
        .open({ host = "localhost", sslmode = "verify-full", sslrootcert = cert })
        :execute("SELECT 1")
      os.remove(key)
      os.remove(cert)
      assert.is_nil(result)
      assert.is_true(errors.is(err))
      assert.is_truthy(err.message:find("certificate verify failed", 1, true), err.message)
    end)

    describe("and a certificate for another name", function()
      local cert

      -- Made by the server's own user, for the key must be nobody else's.
      setup(function()
        pools.admin("CREATE TABLE output (line text)")
        local command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout other.key "
          .. "-out other.crt -subj /CN=db.example.com -days 2 2>&1"
        pools.admin("COPY output FROM PROGRAM '" .. command .. "'")
        pools.admin("ALTER SYSTEM SET ssl_cert_file = 'other.crt'")
        pools.admin("ALTER SYSTEM SET ssl_key_file = 'other.key'")
        pools.admin("SELECT pg_reload_conf()")
        pools.wait_until("the server has read it", function()
          return pools.admin("SELECT current_setting('ssl_cert_file') AS v")[1].v == "other.crt"
        end)
        cert = os.tmpname()
        local file = assert(io.open(cert, "w"))
        file:write(pools.admin("SELECT pg_read_file('other.crt') AS v")[1].v)
        file:close()
      end)

      teardown(function()
        os.remove(cert)
        pools.admin("ALTER SYSTEM RESET ssl_cert_file")
        pools.admin("ALTER SYSTEM RESET ssl_key_file")
        pools.admin("SELECT pg_reload_conf()")
      end)

      it("refuses it with verify-full", function()
        local options = { host = "localhost", sslmode = "verify-full", sslrootcert = cert }
        local result, err = pools.open(options):execute("SELECT 1")
        assert.is_nil(result)
        assert.is_true(errors.is(err))
        assert.is_truthy(err.message:find('does not match host name "localhost"', 1, true), err.message)
      end)

      it("accepts it when only the authority is verified", function()
        local options = { host = "localhost", sslmode = "verify-ca", sslrootcert = cert }
        assert.is_true(first_row(options, IS_ENCRYPTED).ssl)
      end)
    end)

    it("says which file is missing", function()
      local options = { sslmode = "verify-ca", sslrootcert = "/no/such/ca.crt" }
      local result, err = pools.open(options):execute("SELECT 1")
      assert.is_nil(result)
      assert.is_truthy(tostring(err):find("/no/such/ca.crt", 1, true), tostring(err))
    end)
  end)

  describe("pins what texts mean", function()
    local PINNED = {
      datestyle = "ISO, MDY",
      intervalstyle = "postgres",
      bytea_output = "hex",
      standard_conforming_strings = "on",
      client_encoding = "UTF8",
    }
    local ROLE_SETTINGS = {
      datestyle = "'SQL, DMY'",
      intervalstyle = "'iso_8601'",
      bytea_output = "'escape'",
      extra_float_digits = "'-5'",
      standard_conforming_strings = "off",
      client_encoding = "'LATIN1'",
    }

    setup(function()
      for name, value in pairs(ROLE_SETTINGS) do
        pools.admin(("ALTER ROLE app SET %s = %s"):format(name, value))
      end
    end)

    teardown(function()
      pools.admin("ALTER ROLE app RESET ALL")
    end)

    local function check(run)
      for name, value in pairs(PINNED) do
        local row = assert(run("SELECT current_setting('" .. name .. "') AS v")).rows[1]
        assert.equal(value:match("^[^,]+"), row.v:match("^[^,]+"), name)
      end
      local row = assert(run([[SELECT 0.1::float8 + 0.2 AS f, '\x00ff'::bytea AS b, date '2024-02-29' AS d,
        interval '1 day 2 hours' AS i, 'é€' AS t]])).rows[1]
      assert.equal(0.1 + 0.2, row.f)
      assert.equal("\0\255", row.b)
      assert.equal("2024-02-29", row.d)
      assert.equal("1 day 02:00:00", row.i)
      assert.equal("é€", row.t)
    end

    it("whatever ALTER ROLE SET says", function()
      local pool = pools.open()
      check(function(sql)
        return pool:execute(sql)
      end)
    end)

    it("again for the next one after somebody has set them otherwise", function()
      local pool = pools.open({ max_size = 1 })
      local lease = assert(pool:acquire(task.now() + 5))
      assert(lease:execute("SET datestyle = 'German'"))
      assert(lease:execute("SET bytea_output = 'escape'"))
      assert(lease:execute("SET intervalstyle = 'sql_standard'"))
      lease:release()
      check(function(sql)
        return pool:execute(sql)
      end)
    end)
  end)

  describe("refuses options that cannot be meant", function()
    it("naming the nearest one for a typing error", function()
      local ok, message = pcall(pools.open, { conection_timeout = 3 })
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find("conection_timeout", 1, true), message)
      assert.is_truthy(tostring(message):find('did you mean "connection_timeout"', 1, true), message)
    end)

    for name, value in pairs({
      port = 65536,
      max_size = 0,
      min_size = -1,
      connection_timeout = -1,
      statement_cache = 1.5,
      host = 7,
    }) do
      it(("such as %s = %s"):format(name, tostring(value)), function()
        local ok, message = pcall(pools.open, { [name] = value })
        assert.is_false(ok)
        assert.is_string(message)
        assert.is_truthy(message:find(name, 1, true), message)
      end)
    end

    it("such as a min_size beyond max_size", function()
      local ok, message = pcall(pools.open, { min_size = 5, max_size = 4 })
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find("min_size", 1, true), message)
    end)
  end)
end)
