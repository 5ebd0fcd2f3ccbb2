-- Requests that were broken at random, thrown at what `lunashard serve` answers. LUNASHARD_FUZZ_SECONDS is for how long
-- (2; `make fuzz-http` takes ten minutes of it, under ASAN), LUNASHARD_SEED repeats a run.
local client = require("spec.support.http")
local http = require("lunashard.serve.http")
local lunashard = require("lunashard")
local task = require("lunashard.task")

local SECONDS = tonumber(os.getenv("LUNASHARD_FUZZ_SECONDS")) or 2
local AT_ONCE = 24

local CORPUS = {
  "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
  "GET /status?a=b&c=%20&d HTTP/1.1\r\nHost: 127.0.0.1:9180\r\nAccept: */*\r\n\r\n",
  "HEAD /metrics HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n",
  "GET /events HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: 7\r\n\r\n",
  "GET /healthz HTTP/1.0\r\n\r\n",
  "POST /status HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nabcde",
  "PUT / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX: y\r\n\r\n",
  "GET /%2e%2e/%00%ff HTTP/1.1\r\nHost: localhost\r\nCookie: a=b; c=\"d\"\r\nAuthorization: Basic YTpi\r\n\r\n",
  "GET http://localhost/readyz HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n",
  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n X: folded\r\n\tmore\r\n\r\n",
}

local PIECES = { "\r\n", "\n", "\r", "\0", ":", " ", "\t", "%", "%00", "%zz", "HTTP/1.1", "HTTP/1.0", "Host: ", "?", "&", "=",
  "Content-Length: 99999999999999999999\r\n", "Content-Length: -1\r\n", "Transfer-Encoding: chunked, chunked\r\n", "\255\254",
  ("a"):rep(5000), ("X: y\r\n"):rep(300), "Connection: keep-alive\r\n", "Range: bytes=0-0,1-1\r\n", "ffffffffffffffff\r\n" }

local random = math.random

local function mutate(text)
  for _ = 1, random(0, 4) do
    local at, what = random(1, #text), random(1, 6)
    if what == 1 then
      text = text:sub(1, at - 1) .. string.char(random(0, 255)) .. text:sub(at + 1)
    elseif what == 2 then
      text = text:sub(1, at) .. PIECES[random(#PIECES)] .. text:sub(at + 1)
    elseif what == 3 then
      text = text:sub(1, at - 1) .. text:sub(at + random(1, 20))
    elseif what == 4 then
      text = text:sub(1, at)
    elseif what == 5 then
      local other = CORPUS[random(#CORPUS)]
      text = text:sub(1, at) .. other:sub(random(#other))
    else
      text = text .. CORPUS[random(#CORPUS)]
    end
    if text == "" then
      return "\r\n"
    end
  end
  return text
end

-- In pieces, with pauses or without; read, half read or not read at all; ended by us or left to be ended.
local function attack(port)
  local connection = client.connect(port, random(4) == 1 and 2048 or nil)
  local text = mutate(CORPUS[random(#CORPUS)])
  local at = 1
  while at <= #text do
    local n = random(3) == 1 and random(1, 40) or #text
    if not connection:send(text:sub(at, at + n - 1)) then
      break
    end
    at = at + n
    if random(8) == 1 then
      task.sleep(0)
    end
  end
  if random(3) > 1 then
    task.sleep(random() * 0.01)
    connection:read()
  end
  connection:close()
end

describe("the HTTP surface", function()
  it("stands requests that were broken at random", function()
    local seed = tonumber(os.getenv("LUNASHARD_SEED")) or os.time()
    math.randomseed(seed)
    local server = assert(http.listen({ host = "127.0.0.1", port = 0, max_connections = 64, request_timeout = 0.5,
      answer_timeout = 0.5, idle_timeout = 0.5 }, {
      ready = function() return random(2) == 1, "tossed" end,
      metrics = function() return ("up 1\n"):rep(random(1, 20000)) end,
      status = function() return { text = ("\"</script>\n\0"):rep(random(1, 3000)) } end,
      changes = function() return random(2) == 1 and ("x"):rep(random(1, 50000)) or nil end,
      page = function() return random(20) == 1 and error("an error") or "<!doctype html>" end,
    }))
    local before = lunashard.set_warn(function() end)
    finally(function()
      lunashard.set_warn(before)
      server:close()
      client.close_all()
    end)
    local port, ends, tasks, done = server:port(), task.now() + SECONDS, {}, 0
    for i = 1, AT_ONCE do
      tasks[i] = task.spawn(function()
        while task.now() < ends do
          attack(port)
          done = done + 1
        end
      end)
    end
    local answered = 0
    while task.now() < ends do
      server:publish("event", ("x"):rep(random(1, 100000)))
      local answer = client.get(port, "/healthz")
      assert.is_true(answer.status == 200 or answer.status == 503, ("seed %d: %s"):format(seed, answer.text))
      answered = answered + (answer.status == 200 and 1 or 0)
      task.sleep(0.01)
    end
    for i = 1, AT_ONCE do
      assert(tasks[i]:join())
    end
    client.close_all()
    local deadline = task.now() + 10
    while server:counts().connections > 0 and task.now() < deadline do
      server:publish("event", "x")
      task.sleep(0.05)
    end
    local counts = server:counts()
    assert.equal(0, counts.connections, "seed " .. seed)
    assert.equal(0, counts.streams, "seed " .. seed)
    assert.equal(200, client.get(port, "/healthz").status)
    assert.is_true(done > 100 and answered > 10, ("seed %d: only %d requests, %d answers"):format(seed, done, answered))
    if SECONDS > 10 then
      print(("%d broken requests, %d reached the handler, %d connections turned away, seed %d"):format(done, counts.requests,
        counts.refused, seed))
    end
  end)
end)
