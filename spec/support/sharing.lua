--- What the specs of shared connections have in common: tables whose rows say what must be read from them,
-- functions that write in secret, and neighbours: tasks that use the pool all the time and check what they are told.
local pools = require("spec.support.pools")
local task = require("lunashard.task")

local sharing = {}

sharing.ITEMS, sharing.COUNTERS = 200, 32

-- The application's role owns nothing here, so that row security holds for it.
local SCHEMA = [[
  DROP SCHEMA IF EXISTS sharing CASCADE;
  CREATE SCHEMA sharing;
  CREATE TABLE sharing.item (id int8 PRIMARY KEY, v int8);
  INSERT INTO sharing.item SELECT g, g * 7 + 3 FROM generate_series(1, %d) g;
  CREATE TABLE sharing.counter (id int8 PRIMARY KEY, n int8 NOT NULL DEFAULT 0);
  INSERT INTO sharing.counter SELECT g FROM generate_series(1, %d) g;
  CREATE TABLE sharing.log (id int8);
  CREATE INDEX ON sharing.log (id);
  CREATE TABLE sharing.taken (id int8 PRIMARY KEY);
  CREATE TABLE sharing.deferred (id int8 UNIQUE DEFERRABLE INITIALLY DEFERRED);
  CREATE TABLE sharing.guarded (id int8 PRIMARY KEY);
  CREATE SEQUENCE sharing.ticket;
  CREATE FUNCTION sharing.write(id int8) RETURNS int8 VOLATILE LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO sharing.log VALUES (id); RETURN id; END $$;
  CREATE FUNCTION sharing.mislabelled(id int8) RETURNS int8 STABLE LANGUAGE plpgsql AS $$
    BEGIN RETURN sharing.write(id); END $$;
  CREATE FUNCTION sharing.allow(id int8) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM sharing.write(id); RETURN true; END $$;
  CREATE FUNCTION sharing.nap(seconds float8) RETURNS boolean STABLE LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(seconds); RETURN true; END $$;
  CREATE VIEW sharing.secret AS SELECT id, sharing.write(id) AS written FROM sharing.item;
  CREATE VIEW sharing.secret_again AS SELECT id, written FROM sharing.secret;
  CREATE VIEW sharing.next_ticket AS SELECT nextval('sharing.ticket') AS ticket;
  INSERT INTO sharing.guarded SELECT id FROM sharing.item;
  ALTER TABLE sharing.guarded ENABLE ROW LEVEL SECURITY;
  CREATE POLICY watched ON sharing.guarded USING (sharing.allow(id));]]

local GRANTS = [[
  GRANT ALL ON SCHEMA sharing TO %s;
  GRANT ALL ON ALL TABLES IN SCHEMA sharing TO %s;
  GRANT ALL ON ALL SEQUENCES IN SCHEMA sharing TO %s]]

-- What a session must look like to everybody who shares it.
local SESSION = [[
  SELECT current_setting('work_mem') AS work_mem, current_setting('search_path') AS search_path,
    current_setting('TimeZone') AS time_zone, current_user::text AS who,
    coalesce(current_setting('sharing.mark', true), '') AS mark,
    (SELECT count(*) FROM pg_listening_channels()) AS channels,
    (SELECT count(*) FROM pg_cursors WHERE is_holdable) AS cursors,
    (SELECT count(*) FROM pg_prepared_statements WHERE from_sql) AS prepared,
    coalesce(to_regclass('pg_temp.left_over')::text, '') AS temporary]]

--- Statements that may share a connection.
sharing.READ = "SELECT id, v FROM sharing.item WHERE id = $1"
sharing.INSERT = "INSERT INTO sharing.log (id) VALUES ($1)"
sharing.COUNT = "UPDATE sharing.counter SET n = n + 1 WHERE id = $1 RETURNING n"
--- A read that takes as long as its second parameter says: some 100 ns a unit.
sharing.SLOW_READ = "SELECT v FROM sharing.item WHERE id = $1 AND (SELECT count(*) FROM generate_series(1, $2::int)) >= 0"

--- Run statements as superuser that make something in the schema `sharing`, for the application to use.
function sharing.define(statements)
  local app = pools.server.user
  local sql = statements .. ";" .. GRANTS:format(app, app, app)
  assert(pools.as_admin():execute(sql, nil, { simple = true }))
end

--- Make the tables; to be called after `pools.start`.
function sharing.create()
  sharing.define(SCHEMA:format(sharing.ITEMS, sharing.COUNTERS))
end

--- To be called before `pools.stop`.
function sharing.drop()
  pools.admin("DROP SCHEMA sharing CASCADE")
end

--- How many statements have run on shared connections, and how many of these in batches.
function sharing.counts(pool)
  local stats = pool:stats()
  return stats.shared, stats.batched
end

--- Run a function and tell how many of its statements have shared a connection.
-- @treturn int shared
-- @treturn int batched
function sharing.shared_by(pool, fn)
  local shared, batched = sharing.counts(pool)
  fn()
  local shared_after, batched_after = sharing.counts(pool)
  return shared_after - shared, batched_after - batched
end

--- Run a statement as often as it takes until it shares a connection. Texts are looked at from their third execution
-- on, beside the work.
-- @tparam Pool pool
-- @string sql
-- @tparam[opt] table|function params the parameters, or what gives them for each run
function sharing.warm(pool, sql, params)
  local deadline = task.now() + 5
  repeat
    local shared = sharing.shared_by(pool, function()
      assert(pool:execute(sql, type(params) == "function" and params() or params))
    end)
    assert(shared > 0 or task.now() < deadline, "it never shares a connection: " .. sql)
    task.sleep(0.001)
  until shared > 0
end

--- Run statements, whether they succeed or not, until they have been looked at.
-- @tparam Pool pool
-- @tparam {string,...} statements
function sharing.accustom(pool, statements)
  for _ = 1, 8 do
    for _, sql in ipairs(statements) do
      pool:execute(sql)
    end
  end
  sharing.warm(pool, sharing.READ, { 1 })
end

--- Run a function in n tasks at the same time and wait for all of them; raises what the first raised.
function sharing.all(n, fn)
  local fns = {}
  for i = 1, n do
    fns[i] = function()
      return fn(i)
    end
  end
  return assert(task.gather(fns, { timeout = 30 }))
end

local next_id = 0

--- An id that no statement of this run has used; far from those of items.
function sharing.new_id()
  next_id = next_id + 1
  return 1000000 + next_id
end

--- How often each id was written to `sharing.log`.
function sharing.written()
  local times = {}
  for _, row in ipairs(pools.admin("SELECT id, count(*) AS n FROM sharing.log GROUP BY id")) do
    times[row.id] = row.n
  end
  return times
end

local Neighbours = {}
Neighbours.__index = Neighbours

function Neighbours:complain(...)
  self.complaints[#self.complaints + 1] = (...):format(select(2, ...))
end

-- Is this a failure that may happen here? Whatever may not is complained of.
function Neighbours:failed(what, err)
  self.failures[#self.failures + 1] = err
  self.stopping = self.stopping or err.code == "CLOSED"
  if not (self.may_fail and self.may_fail(err)) then
    self:complain("%s: %s (%s)", what, tostring(err), tostring(err.sqlstate))
  end
  return err.code == "UNKNOWN_OUTCOME"
end

function Neighbours:read(execute)
  local id = math.random(sharing.ITEMS)
  local result, err = execute(sharing.READ, { id }, { read_only = true })
  if not result then
    self:failed("read", err)
  elseif #result.rows ~= 1 or result.rows[1].id ~= id or result.rows[1].v ~= id * 7 + 3 then
    self:complain("asked for item %d, got %s", id, result.rows[1] and tostring(result.rows[1].v) or "nothing")
  end
end

function Neighbours:insert(execute)
  local id = sharing.new_id()
  self.inserted[id] = { 0, 1 } -- in case the task does not live to see the answer
  local result, err = execute(sharing.INSERT, { id })
  if result then
    self.inserted[id] = { 1, 1 }
  else
    self.inserted[id] = { 0, self:failed("insert", err) and 1 or 0 }
  end
end

-- What was acknowledged before must be seen by whoever asks afterwards.
function Neighbours:count(execute)
  local counter = self.counters[math.random(sharing.COUNTERS)]
  local least, most = counter.least, counter.most
  counter.most = most + 1
  local result, err = execute(sharing.COUNT, { counter.id })
  if result then
    counter.least = counter.least + 1
    if result.rows[1].n <= least then
      self:complain("counter %d: at least %d before, %d after", counter.id, least, result.rows[1].n)
    end
  elseif not self:failed("count", err) then
    counter.most = counter.most - 1
  end
end

function Neighbours:look_at_session(execute)
  local result, err = execute(SESSION, nil, { read_only = true })
  if not result then
    self:failed("session", err)
    return
  end
  for name, value in pairs(self.session) do
    if result.rows[1][name] ~= value then
      self:complain("the session's %s is %s", name, tostring(result.rows[1][name]))
    end
  end
end

local WORKS = { "read", "read", "read", "insert", "count", "look_at_session" }

function Neighbours:live(i, execute)
  while not self.stopping do
    self[WORKS[math.random(#WORKS)]](self, execute)
    self.rounds_of[i] = self.rounds_of[i] + 1
    if self.pause then
      task.sleep(self.pause)
    end
  end
end

--- Start neighbours. Their statements are known to the pool when this returns.
-- @tparam Pool pool
-- @tparam[opt] table options `n` [8], `may_fail`: function(err) -> boolean, `pause` between statements [none],
--   `execute` instead of the pool's
function sharing.neighbours(pool, options)
  options = options or {}
  local self = setmetatable({
    complaints = {}, failures = {}, inserted = {}, counters = {}, rounds_of = {}, tasks = {},
    may_fail = options.may_fail, pause = options.pause,
  }, Neighbours)
  local execute = options.execute or function(...)
    return pool:execute(...)
  end
  for _, row in ipairs(pools.admin("SELECT id, n FROM sharing.counter ORDER BY id")) do
    self.counters[row.id] = { id = row.id, least = row.n, most = row.n }
  end
  self.session = assert(execute(SESSION)).rows[1]
  sharing.warm(pool, sharing.READ, { 1 })
  sharing.warm(pool, SESSION)
  sharing.warm(pool, sharing.INSERT, { 1 })
  sharing.warm(pool, sharing.COUNT, { 0 })
  for i = 1, options.n or 8 do
    self.rounds_of[i] = 0
    self.tasks[i] = task.spawn(self.live, self, i, execute)
  end
  return self
end

--- Wait until each has made so many more rounds.
function Neighbours:go_on(rounds)
  for i = 1, #self.tasks do
    local wanted = self.rounds_of[i] + rounds
    pools.wait_until(("neighbour %d goes on (%s)"):format(i, self.complaints[1] or "without a complaint"), function()
      return self.rounds_of[i] >= wanted
    end, 20)
  end
end

--- End them, and raise what was wrong: with their answers, and with what the tables say now.
function Neighbours:stop()
  self.stopping = true
  for i = 1, #self.tasks do
    assert(self.tasks[i]:join(20))
  end
  local times = sharing.written()
  for id, allowed in pairs(self.inserted) do
    local n = times[id] or 0
    if n < allowed[1] or n > allowed[2] then
      self:complain("insert %d: there %d times, expected %d to %d", id, n, allowed[1], allowed[2])
    end
  end
  for _, row in ipairs(pools.admin("SELECT id, n FROM sharing.counter")) do
    local counter = self.counters[row.id]
    if row.n < counter.least or row.n > counter.most then
      self:complain("counter %d: %d, expected %d to %d", row.id, row.n, counter.least, counter.most)
    end
  end
  if #self.complaints > 0 then
    error(#self.complaints .. " complaints, first of all:\n" .. table.concat(self.complaints, "\n", 1,
      math.min(#self.complaints, 5)), 2)
  end
end

--- What surrounds the specs of a file: a server with the schema, and no session left after each.
-- busted's functions are known to spec files alone, which hand them over.
function sharing.around(setup, teardown, after_each)
  setup(function()
    pools.start()
    sharing.create()
  end)

  teardown(function()
    sharing.drop()
    pools.stop()
  end)

  after_each(function()
    pools.close_all()
    pools.wait_until("no session is left", function()
      return pools.sessions() == 0
    end)
  end)
end

return sharing
