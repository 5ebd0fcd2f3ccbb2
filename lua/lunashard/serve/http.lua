--- What `lunashard serve` answers over HTTP: health, metrics, status, the page and its events.
-- Everything comes from memory; an answer neither waits for a server nor for anything else.
-- @module lunashard.serve.http

local access = require("lunashard.serve.access")
local cjson = require("cjson.safe").new()
local core = require("lunashard.core.http")
local errors = require("lunashard.errors")
local events = require("lunashard.events")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local http = {}

local TEXT = "text/plain; charset=utf-8"
local METRICS = "text/plain; version=0.0.4; charset=utf-8"
local JSON = "application/json; charset=utf-8"
local HTML = "text/html; charset=utf-8"
local EVENTS = "text/event-stream; charset=utf-8"

local SAFE = {
  ["Cache-Control"] = "no-store",
  ["Content-Security-Policy"] = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  ["Cross-Origin-Opener-Policy"] = "same-origin",
  ["Cross-Origin-Resource-Policy"] = "same-origin",
  ["Referrer-Policy"] = "no-referrer",
  ["X-Content-Type-Options"] = "nosniff",
  ["X-Frame-Options"] = "DENY",
}

-- The page runs its own script and no other, whatever gets into it.
local PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-%s'; connect-src 'self'; "
  .. "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

local MAX_STREAMS = 32
local MAX_BACKLOG = 4 * 1024 * 1024 -- bytes that wait for one of them; the page of a thousand shards must fit
local TICK = 1 -- seconds between the looks that clients of /events get
local MOST = 0.05 -- of the loop's time, for making an answer: until then the one before is given again
local HEARTBEAT = 15 -- ticks without news after which a client hears that there are none; it may have gone

-- What is not measured yet may be no number.
cjson.encode_invalid_numbers("null")
cjson.encode_sparse_array(true)

-- ---- answers ------------------------------------------------------------------------

local function headers(content_type, more)
  local all = { ["Content-Type"] = content_type }
  for name, value in pairs(SAFE) do
    all[name] = value
  end
  for name, value in pairs(more or {}) do
    all[name] = value
  end
  return all
end

local function plain(status, text, more)
  return status, headers(TEXT, more), text .. "\n"
end

local Server = {}
Server.__index = Server

-- However many ask at once, an answer is not made so often that statements have to wait for it.
local function made(self, path, make)
  local kept, began = self.kept[path], task.now()
  if kept and began < kept.good_until then
    return kept.body
  end
  local body = make()
  local ended = task.now()
  self.kept[path] = { body = body, good_until = ended + (ended - began) / MOST }
  return body
end

local routes = {}

-- Is the process well? It is when it answers.
routes["/healthz"] = { open = true, answer = function()
  return plain(200, "ok")
end }

-- Enough shards to be asked?
routes["/readyz"] = { open = true, answer = function(self)
  local ready, why = self.sources.ready()
  return plain(ready and 200 or 503, ready and "ready" or "not ready: " .. why)
end }

routes["/metrics"] = { answer = function(self)
  return 200, headers(METRICS), made(self, "/metrics", self.sources.metrics)
end }

routes["/status"] = { answer = function(self)
  return 200, headers(JSON), made(self, "/status", function()
    return assert(cjson.encode(self.sources.status())) .. "\n"
  end)
end }

routes["/"] = { answer = function(self)
  return 200, headers(HTML, { ["Content-Security-Policy"] = self.page_policy }), made(self, "/", self.sources.page)
end }

routes["/events"] = { answer = function(self, request)
  if request.method == "HEAD" then
    return 200, headers(EVENTS), ""
  elseif self.open_streams >= MAX_STREAMS then
    return plain(503, "too many listen already", { ["Retry-After"] = "10" })
  end
  local stream = core.stream(MAX_BACKLOG)
  self.streams[stream] = true
  self.open_streams = self.open_streams + 1
  self.has_newcomer = true
  return 200, headers(EVENTS, { ["X-Accel-Buffering"] = "no" }), stream
end }

-- A source that is not there has no route.
local SOURCES = { ["/metrics"] = "metrics", ["/status"] = "status", ["/"] = "page", ["/events"] = "changes" }

local function answer(self, request)
  local route = routes[request.path]
  local status, text, more = access.check(self.access, request, route and route.open)
  if status then
    return plain(status, text, more)
  elseif not route or (SOURCES[request.path] and not self.sources[SOURCES[request.path]]) then
    return plain(404, "there is nothing here")
  end
  return route.answer(self, request)
end

-- One line for a fault, and not one for each scrape.
local function tell_failure(self, path, err)
  local line = ("answering %s failed: %s"):format(path, tostring(err):match("^[^\n]*"))
  if self.told[path] ~= line then
    self.told[path] = line
    warn.emit(line)
  end
end

local function guarded(self, request)
  local ok, status, all, body = pcall(answer, self, request)
  if ok and status == 200 then
    self.told[request.path] = nil
  elseif not ok then
    tell_failure(self, request.path, status)
    status, all, body = plain(500, "internal error; see the log")
  end
  local counted = self.counted[routes[request.path] and request.path or "other"]
  counted[status] = (counted[status] or 0) + 1
  return status, all, body
end

-- ---- events -------------------------------------------------------------------------

local function send(self, text)
  self.quiet = 0
  for stream in pairs(self.streams) do
    if not stream:send(text) then
      self.streams[stream] = nil
      self.open_streams = self.open_streams - 1
    end
  end
end

--- Tell everybody who listens at /events.
-- @string name of the event
-- @string data without line ends, such as JSON
function Server:publish(name, data)
  send(self, ("event: %s\ndata: %s\n\n"):format(name, data))
end

local function publish_changes(self)
  if self.open_streams == 0 then
    return
  end
  local all = self.has_newcomer
  self.has_newcomer = false
  local ok, text = pcall(self.sources.changes, all)
  if not ok then
    self.has_newcomer = true
    tell_failure(self, "/events", text)
  elseif text then
    self:publish("page", text)
  end
end

local function tick(self)
  while not self.closed do
    task.sleep(TICK)
    publish_changes(self)
    self.quiet = self.quiet + 1
    if self.quiet > HEARTBEAT then
      send(self, ": nothing new\n\n")
    end
  end
end

-- ---- open and close -----------------------------------------------------------------

--- Answer requests from now on.
-- @tparam table options `host`, `port`, `auth` (see `lunashard.serve.access`), and limits as `lunashard.core.http` has them
-- @tparam table sources functions that yield nothing: `ready() -> boolean, why`, and where they are wanted
--   `metrics() -> text`, `status() -> table`, `page() -> html` and the text of its `script`, `changes(all) -> text`:
--   JSON without line ends of what has changed on the page since the last call, or of all of it; nil when nothing has
-- @treturn[1] Server with `port`, `counts`, `answers`, `publish`, `close`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: the port is in use, or everybody could read without a secret
function http.listen(options, sources)
  local rules, problem = access.rules(options)
  if not rules then
    return nil, errors.new("INVALID", { message = problem })
  end
  local self = setmetatable({ access = rules, sources = sources, streams = {}, open_streams = 0, quiet = 0, told = {},
    kept = {}, counted = { other = {} }, page_policy = PAGE_POLICY:format(system.sha256(sources.script or "")) }, Server)
  for path in pairs(routes) do
    self.counted[path] = {}
  end
  local given = {}
  for name, value in pairs(options) do
    given[name] = name ~= "auth" and value or nil
  end
  local core_server, err = core.listen(given, function(request)
    return guarded(self, request)
  end)
  if not core_server then
    return nil, err
  end
  self.core = core_server
  if sources.changes then
    self.unsubscribe = events.subscribe(function(event)
      self:publish("event", assert(cjson.encode({ kind = event.kind, shard_id = event.shard_id, endpoint = event.endpoint,
        message = event.message })))
    end)
    self.ticker = task.daemon(tick, self)
  end
  return self
end

--- The port that it listens on.
-- @treturn number
function Server:port()
  return self.core:port()
end

--- What it has done: see `lunashard.core.http`.
-- @treturn table
function Server:counts()
  return self.core:counts()
end

--- How often what was answered.
-- @treturn {table,...} in order, each `path` (one that there is, or `other`), `status`, `count`
function Server:answers()
  local list = {}
  for path, counted in pairs(self.counted) do
    for status, count in pairs(counted) do
      list[#list + 1] = { path = path, status = status, count = count }
    end
  end
  table.sort(list, function(a, b)
    return a.path < b.path or a.path == b.path and a.status < b.status
  end)
  return list
end

--- Answer no longer. May be called again.
function Server:close()
  if self.closed then
    return
  end
  self.closed = true
  if self.unsubscribe then
    self.unsubscribe()
    self.ticker:cancel()
  end
  self.core:close()
end

return http
