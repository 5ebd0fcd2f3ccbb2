local client = require("spec.support.http")
local core = require("lunashard.core.http")
local http = require("lunashard.serve.http")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local function wait_until(what, condition)
  local deadline = task.now() + 10
  while not condition() do
    if task.now() > deadline then
      error("waited in vain until " .. what, 2)
    end
    task.sleep(0.005)
  end
end

describe("the HTTP server", function()
  local server, seen, streams

  local function listen(options)
    local all = { host = "127.0.0.1", port = 0 }
    for name, value in pairs(options or {}) do
      all[name] = value
    end
    server = assert(core.listen(all, function(request)
      seen[#seen + 1] = request
      if request.path == "/raise" then
        error("a secret of the handler")
      elseif request.path == "/yield" then
        lunashard.sleep(0.001)
      elseif request.path == "/close" then
        server:close()
        collectgarbage()
      elseif request.path == "/big" then
        return 200, {}, ("x"):rep(8 * 1024 * 1024)
      elseif request.path == "/header" then
        return 200, { ["X-Name"] = "a\r\nX-Other: b" }, ""
      elseif request.path == "/stream" then
        streams[#streams + 1] = core.stream(200000)
        return 200, { ["Content-Type"] = "text/event-stream" }, streams[#streams]
      elseif request.path == "/again" then
        return 200, {}, streams[1]
      end
      return 200, { ["Content-Type"] = "text/plain" }, request.method .. " " .. request.path
    end))
    return server:port()
  end

  before_each(function()
    seen, streams = {}, {}
  end)

  after_each(function()
    client.close_all()
    if server then
      server:close()
    end
    server = nil
  end)

  it("answers GET, and HEAD with the same headers and no body", function()
    local port = listen()
    local answer = client.get(port, "/a%20b?c=d")
    assert.equal(200, answer.status)
    assert.equal("GET /a b", answer.body)
    assert.equal("text/plain", answer.headers["content-type"])
    assert.equal("127.0.0.1", seen[1].peer)
    assert.equal("127.0.0.1:" .. port, seen[1].headers.host)
    local head = client.get(port, "/a", { method = "HEAD" })
    assert.equal("", head.body)
    assert.equal("7", head.headers["content-length"])
  end)

  it("refuses other methods and bodies without asking the handler", function()
    local port = listen()
    for _, method in ipairs({ "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get" }) do
      local answer = client.get(port, "/", { method = method })
      assert.equal(405, answer.status, method)
      assert.equal("GET, HEAD", answer.headers.allow)
    end
    assert.equal(413, client.get(port, "/", { headers = { ["Content-Length"] = "5" } }).status)
    assert.equal(413, client.get(port, "/", { headers = { ["Transfer-Encoding"] = "chunked" } }).status)
    assert.equal(0, #seen)
  end)

  it("says nothing but 500 when its handler raises, yields or answers what cannot be sent", function()
    local port = listen()
    for _, path in ipairs({ "/raise", "/yield", "/header" }) do
      local answer = client.get(port, path)
      assert.equal(500, answer.status, path)
      assert.equal("internal error\n", answer.body)
    end
    assert.equal(200, client.get(port, "/").status)
  end)

  it("answers requests that come at once, in order", function()
    local connection = client.connect(listen())
    local text = {}
    for i = 1, 50 do
      text[i] = ("GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n"):format(i)
    end
    connection:send(table.concat(text))
    for i = 1, 50 do
      assert.equal("GET /" .. i, connection:answer().body)
    end
  end)

  it("answers requests that come byte by byte", function()
    local connection = client.connect(listen())
    for char in ("GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n"):gmatch(".") do
      connection:send(char)
      task.sleep(0.001)
    end
    assert.equal("GET /slow", connection:answer().body)
  end)

  it("ends a request that trickles in for too long, whatever else goes on", function()
    local port = listen({ request_timeout = 0.5 })
    local slow, began = client.connect(port), task.now()
    slow:send("GET / HTTP/1.1\r\nHost: localhost\r\n")
    while slow:send("X-A: b\r\n") and not slow.ended do
      assert.equal(200, client.get(port, "/").status)
      slow:read()
      assert.is_true(task.now() - began < 10)
      task.sleep(0.05)
    end
    assert.equal(1, server:counts().timeouts)
    assert.equal("", slow.received:match("200 OK") or "")
  end)

  it("ends connections that say nothing, before and after a request", function()
    local port = listen({ request_timeout = 0.2, idle_timeout = 0.2 })
    local silent, idle = client.connect(port), client.connect(port)
    idle:send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    idle:answer()
    silent:wait()
    idle:wait()
    wait_until("both are gone", function()
      return server:counts().connections == 0
    end)
  end)

  it("ends a connection whose client does not take its answer", function()
    local port = listen({ answer_timeout = 0.3 })
    local connection = client.connect(port, 4096)
    connection:send("GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until("it is gone", function()
      return server:counts().requests == 1 and server:counts().connections == 0
    end)
    assert.equal(1, server:counts().timeouts)
  end)

  it("refuses what is no HTTP, or too long, and goes on", function()
    local port = listen({ max_request = 4096, request_timeout = 0.3 })
    local bad = {
      "\r\n\r\n",
      "\0\0\0\0\r\n\r\n",
      "\22\3\1\2\0\1\0\1\252\3\3",
      "GET\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "GET / HTTP/1.1\r\n\r\n", -- no Host
      "GET / HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
      "GET /" .. ("a"):rep(10000) .. " HTTP/1.1\r\nHost: localhost\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: localhost\r\nX: " .. ("a"):rep(10000) .. "\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: localhost\r\n" .. ("X: y\r\n"):rep(5000) .. "\r\n",
      "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
      "GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    }
    for i, text in ipairs(bad) do
      local connection = client.connect(port)
      connection:send(text)
      local received = connection:wait()
      assert.is_true(received == "" or received:find("^HTTP/1%.[01] [45]") ~= nil, i .. ": " .. received)
      connection:close()
    end
    assert.equal(0, #seen)
    assert.equal(200, client.get(port, "/").status)
  end)

  it("turns connections beyond its limit away, and takes new ones when others are gone", function()
    local port = listen({ max_connections = 5 })
    local kept = {}
    for i = 1, 5 do
      kept[i] = client.connect(port)
      kept[i]:send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    end
    wait_until("all are there", function()
      return server:counts().streams == 5
    end)
    local more = client.connect(port)
    assert.matches("^HTTP/1.1 503 ", more:wait())
    assert.equal(1, server:counts().refused)
    kept[1]:close()
    wait_until("one is gone", function()
      streams[1]:send("hello\n")
      return server:counts().connections == 4
    end)
    assert.equal(200, client.get(port, "/").status)
  end)

  it("takes the place of a connection that asks for nothing for a new one", function()
    local port = listen({ max_connections = 5, request_timeout = 60 })
    local silent = {}
    for i = 1, 5 do
      silent[i] = client.connect(port)
      silent[i]:send(i % 2 == 0 and "GET / HTTP/1.1\r\n" or "")
    end
    wait_until("a sixth is answered", function()
      return client.get(port, "/").status == 200
    end)
    silent[1]:wait() -- the oldest
    wait_until("the others alone are left", function()
      return server:counts().connections == 4
    end)
  end)

  it("says that its port is in use, and what is no address", function()
    local port = listen()
    local other, err = core.listen({ host = "127.0.0.1", port = port }, print)
    assert.is_nil(other)
    assert.equal("INVALID", err.code)
    assert.matches("cannot listen on port " .. port .. " of 127.0.0.1: Address already in use", err.message)
    other, err = core.listen({ host = "somewhere" }, print)
    assert.is_nil(other)
    assert.equal("cannot listen on somewhere: expected a numeric address", err.message)
  end)

  it("refuses options that it does not know or cannot use", function()
    assert.error_matches(function()
      core.listen({ host = "127.0.0.1", prot = 1 }, print)
    end, "listen: unknown option prot")
    assert.error_matches(function()
      core.listen({ host = "127.0.0.1", port = 70000 }, print)
    end, "listen: port must be a number from 0 to 65535")
    assert.error_matches(function()
      core.listen({ host = "127.0.0.1", request_timeout = 0 / 0 }, print)
    end, "listen: request_timeout must be a number")
  end)

  it("may be closed by its handler", function()
    local port = listen()
    client.get(port, "/close")
    assert.equal(0, server:counts().connections)
    local refused = client.connect(port)
    assert.is_false(refused:send("GET / HTTP/1.1\r\n\r\n"))
  end)

  describe("with streams", function()
    local function open_stream(port)
      local connection = client.connect(port, 4096)
      connection:send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
      connection:wait("\r\n\r\n")
      return connection, streams[#streams]
    end

    it("sends what is added, when it is added, and ends", function()
      local connection, stream = open_stream(listen())
      assert.is_true(stream:is_open())
      assert.is_true(stream:send("one\n"))
      connection:wait("one\n")
      assert.is_true(stream:send("two\n"))
      assert.is_true(stream:send("three\n"))
      connection:wait("two\nthree\n")
      stream:close()
      connection:wait("\r\n0\r\n\r\n")
      assert.is_false(stream:is_open())
      assert.is_false(stream:send("four"))
      wait_until("it is forgotten", function()
        return server:counts().streams == 0
      end)
    end)

    it("notices that a client has gone", function()
      local connection, stream = open_stream(listen())
      connection:close()
      wait_until("it is noticed", function()
        return not stream:send("hello\n")
      end)
      wait_until("it is forgotten", function()
        return server:counts().streams == 0 and server:counts().connections == 0
      end)
    end)

    it("cuts off a client that does not read, and no other", function()
      local port = listen()
      local _, slow = open_stream(port)
      local other, fast = open_stream(port)
      local sent = 0
      wait_until("it is cut off", function()
        fast:send("x")
        sent = sent + 1
        if sent % 100 == 0 then
          other:read()
          task.sleep(0)
        end
        return not slow:send(("y"):rep(100000))
      end)
      assert.is_true(fast:is_open())
      fast:send("the end")
      other:wait("the end")
      wait_until("it is forgotten", function()
        return server:counts().connections == 1
      end)
    end)

    it("answers one request with one", function()
      local port = listen()
      open_stream(port)
      assert.equal(500, client.get(port, "/again").status)
      assert.is_true(streams[1]:is_open())
    end)

    it("closes them with the server, and keeps those that nobody closed from harm", function()
      local connection, stream = open_stream(listen())
      stream:send("one")
      server:close()
      connection:wait()
      assert.is_false(stream:is_open())
      assert.is_false(stream:send("two"))
      stream:close()
      open_stream(listen())
      streams, stream = {}, nil
      collectgarbage()
      collectgarbage()
      wait_until("the forgotten one has ended", function()
        return server:counts().streams == 0
      end)
      assert.is_nil(stream)
    end)
  end)
end)

describe("what is served", function()
  local server

  local function listen(sources, auth)
    sources.ready = sources.ready or function()
      return true
    end
    server = assert(http.listen({ host = "127.0.0.1", port = 0, auth = auth }, sources))
    return server:port()
  end

  after_each(function()
    client.close_all()
    if server then
      server:close()
    end
    server = nil
  end)

  it("has a route for each thing that there is, and 404 for the rest", function()
    local port = listen({
      metrics = function() return "up 1\n" end,
      status = function() return { a = { 1, 0 / 0 } } end,
      page = function() return "<!doctype html>" end,
      script = "abc",
    })
    assert.equal("ok\n", client.get(port, "/healthz").body)
    assert.equal("ready\n", client.get(port, "/readyz").body)
    assert.equal("up 1\n", client.get(port, "/metrics").body)
    assert.equal('{"a":[1,null]}\n', client.get(port, "/status").body)
    local page = client.get(port, "/")
    assert.equal("text/html; charset=utf-8", page.headers["content-type"])
    assert.matches("default%-src 'none'.* script%-src 'sha256%-ungWv48Bz%+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='; ",
      page.headers["content-security-policy"])
    assert.equal("nosniff", page.headers["x-content-type-options"])
    assert.equal("no-store", page.headers["cache-control"])
    for _, path in ipairs({ "/nothing", "//", "/metrics/", "/..", "/%2fstatus" }) do
      assert.equal(404, client.get(port, path).status, path)
    end
    assert.equal(400, client.get(port, "/status%00x").status)
  end)

  it("makes an answer anew when twenty times as long has passed as it took, and not before", function()
    local made, slow = 0, true
    local port = listen({ metrics = function()
      made = made + 1
      local until_then = task.now() + (slow and 0.02 or 0)
      while task.now() < until_then do end -- what makes it does not yield
      return made .. "\n"
    end })
    local began = task.now()
    assert.equal("1\n", client.get(port, "/metrics").body)
    repeat
      local body = client.get(port, "/metrics").body
      assert.is_true(body == "1\n" or task.now() >= began + 0.4)
    until body ~= "1\n"
    slow = false
    wait_until("the slow answer is not good any more", function()
      return client.get(port, "/metrics").body == "3\n"
    end)
    task.sleep(0.01)
    assert.equal("4\n", client.get(port, "/metrics").body)
  end)

  it("counts answers by path and status, with what there is none of together", function()
    local port = listen({ metrics = function() error("no") end })
    local before = lunashard.set_warn(function() end)
    finally(function() lunashard.set_warn(before) end)
    for _, path in ipairs({ "/metrics", "/healthz", "/healthz", "/a", "/b", "/status" }) do
      client.get(port, path)
    end
    assert.same({
      { path = "/healthz", status = 200, count = 2 }, { path = "/metrics", status = 500, count = 1 },
      { path = "/status", status = 404, count = 1 }, { path = "other", status = 404, count = 2 },
    }, server:answers())
  end)

  it("has no route for what there is no source of", function()
    local port = listen({})
    for _, path in ipairs({ "/metrics", "/status", "/", "/events" }) do
      assert.equal(404, client.get(port, path).status)
    end
  end)

  it("is not ready with too few shards, and says why", function()
    local port = listen({ ready = function() return false, "1 of 3 shards are healthy" end })
    local answer = client.get(port, "/readyz")
    assert.equal(503, answer.status)
    assert.equal("not ready: 1 of 3 shards are healthy\n", answer.body)
    assert.equal(200, client.get(port, "/healthz").status)
  end)

  it("warns once of a source that raises, and tells the client nothing", function()
    local fails = true
    local port = listen({ metrics = function() return fails and error("shard7 is odd") or "up 1\n" end })
    local warnings = {}
    local before = lunashard.set_warn(function(message) warnings[#warnings + 1] = message end)
    finally(function() lunashard.set_warn(before) end)
    for _ = 1, 3 do
      local answer = client.get(port, "/metrics")
      assert.equal(500, answer.status)
      assert.is_nil(answer.body:find("shard7"))
    end
    assert.equal(1, #warnings)
    assert.matches("answering /metrics failed: .*shard7 is odd", warnings[1])
    fails = false
    assert.equal(200, client.get(port, "/metrics").status)
  end)

  it("is refused to pages whose name was made to point here", function()
    local port = listen({})
    for host, status in pairs({ ["evil.example"] = 421, ["evil.example:" .. port] = 421, ["127.0.0.1.evil.example"] = 421,
      ["localhost.evil.example"] = 421, ["localhost"] = 200, ["LOCALHOST:80"] = 200, ["127.0.0.1"] = 200, ["[::1]:80"] = 200 }) do
      assert.equal(status, client.get(port, "/healthz", { headers = { Host = host } }).status, host)
    end
  end)

  it("takes the token, as a bearer or as the password of a user, but for health", function()
    local port = listen({ status = function() return {} end }, "0123456789abcdef")
    local function status(given, path)
      return client.get(port, path or "/status", { headers = { Authorization = given } }).status
    end
    local warnings = {}
    local before = lunashard.set_warn(function(message) warnings[#warnings + 1] = message end)
    finally(function() lunashard.set_warn(before) end)
    assert.equal(401, status(nil))
    assert.equal(401, status(nil, "/nothing"))
    assert.equal(401, status(nil, "/events"))
    assert.equal(200, status(nil, "/healthz"))
    assert.equal(200, status(nil, "/readyz"))
    assert.equal(200, status("Bearer 0123456789abcdef"))
    assert.equal(200, status("Basic bHVuYXNoYXJkOjAxMjM0NTY3ODlhYmNkZWY="))
    for _, wrong in ipairs({ "Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "",
      "Basic MDEyMzQ1Njc4OWFiY2RlZg==", "0123456789abcdef" }) do
      assert.equal(401, status(wrong), wrong)
    end
    assert.equal(1, #warnings) -- at first; then once in a while
    assert.matches("without the right secret, the last from 127.0.0.1", warnings[1])
    assert.is_nil(warnings[1]:find("0123"))
  end)

  it("takes a user with a password", function()
    local port = listen({ status = function() return {} end }, "ann:0123456789abcdef")
    local function status(given)
      return client.get(port, "/status", { headers = { Authorization = given } }).status
    end
    assert.equal(200, status("Basic YW5uOjAxMjM0NTY3ODlhYmNkZWY="))
    assert.equal(401, status("Bearer ann:0123456789abcdef"))
    local challenge = client.get(port, "/status").headers["www-authenticate"]
    assert.equal('Basic realm="lunashard", charset="UTF-8"', challenge)
  end)

  it("is not served to other machines without a secret that is one", function()
    for _, auth in ipairs({ false, "short", "user:short", "0123456789\nabcdef" }) do
      local refused, err = http.listen({ host = "0.0.0.0", port = 0, auth = auth or nil }, { ready = print })
      assert.is_nil(refused)
      assert.equal("INVALID", err.code)
      assert.matches(auth and "must have 16 characters or more" or "refusing to listen on 0.0.0.0 without a secret", err.message)
    end
  end)

  it("tells those who listen to events of changes that are large, as with very many shards", function()
    local large = ("x"):rep(2 ^ 20) .. "!"
    local port = listen({ changes = function(all) return all and large or nil end })
    local connection = client.connect(port)
    connection:send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert.is_true(#connection:wait("!\n\n") > 2 ^ 20)
  end)

  it("tells those who listen to events what happens", function()
    local port = listen({ changes = function(all) return all and [[{"n":42}]] or nil end })
    local connection = client.connect(port)
    connection:send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    connection:wait("\r\n\r\n")
    local before = lunashard.set_warn(function() end)
    require("lunashard.events").emit({ kind = "health", shard_id = "a", message = "a is\ndown" })
    lunashard.set_warn(before)
    connection:wait('event: event\ndata: [^\n]*"message":"a is\\ndown"[^\n]*\n\n')
    connection:wait('event: page\ndata: {"n":42}\n\n')
  end)
end)
