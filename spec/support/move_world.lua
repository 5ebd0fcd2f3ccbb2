--- A cluster with a catalog whose rows move while they are written, and the checks that none was lost on the way.
-- Writers are tasks that speak SQL to the shards themselves and call the guards as a router does. What they were told is
-- kept; `check` compares it with all shards.
-- @module spec.support.move_world

local cluster = require("spec.support.cluster")
local errors = require("lunashard.errors")
local install = require("lunashard.catalog.install")
local move = require("lunashard.rebalancer.move")
local task = require("lunashard.task")

local moving = {}

local World = {}
World.__index = World

local TABLES = {
  mv_users = { shard_key = "user_id", type = "int8" },
  mv_orders = { shard_key = "user_id", type = "int8" },
}

-- A name that sorts before its parent's, a generated column, an identity and a sequence.
local SCHEMA = [[
  DROP TABLE IF EXISTS mv_orders, mv_users CASCADE;
  CREATE TABLE mv_users (user_id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, note text);
  CREATE TABLE mv_orders (user_id bigint REFERENCES mv_users ON DELETE CASCADE, token bigint, serial bigserial,
    twice bigint GENERATED ALWAYS AS (token * 2) STORED, PRIMARY KEY (user_id, token))]]

local UNDO = [[
  DROP TABLE IF EXISTS mv_orders, mv_users CASCADE;
  DROP SCHEMA IF EXISTS lunashard, lunashard_staging, lunashard_catalog CASCADE]]

--- All tables of the worlds, for a cluster file.
moving.TABLES = TABLES

local function on_all(manager, sql)
  for _, member in ipairs(manager.members) do
    assert(member.primary.pool:execute(sql, nil, { simple = true }))
  end
end

--- Install a catalog on a cluster, make tables, write users. Yields.
-- @tparam[opt] table options `tables`, `schema`, `undo`, `users` [120], `cluster`: options of the manager; `fill` =
--   false: no rows
-- @treturn World `manager`, `router`, `catalog`
function moving.open(options)
  options = options or {}
  local given = { tables = options.tables or TABLES }
  for name, value in pairs(options.cluster or {}) do
    given[name] = value
  end
  local undo = options.undo or UNDO
  local first = cluster.manager(given)
  for _, member in ipairs(first.members) do
    member:open()
  end
  on_all(first, undo)
  on_all(first, options.schema or SCHEMA)
  first:shutdown()
  local _, static = cluster.connect(given)
  assert(install.run(static))
  static:shutdown()
  local router, manager = cluster.connect(given)
  local self = setmetatable({ manager = manager, router = router, catalog = assert(manager.catalog), undo = undo,
    options = given, group = options.group or "int8", users = options.users or 120, tokens = {}, counters = {},
    problems = {}, next_token = 0, refused = 0, map = {} }, World)
  if options.fill ~= false then
    for user = 1, self.users do
      self:write(user, "INSERT INTO mv_users (user_id) VALUES ($1)", { user })
      self.counters[user] = 0
    end
  end
  return self
end

--- Remove what `open` made. Yields.
function World:close()
  self:stop()
  on_all(self.manager, self.undo)
  self.manager:shutdown()
end

-- ---- writing as a router does ------------------------------------------------------------

local PLACE = "SELECT shard_id, version FROM lunashard_catalog.bucket WHERE grp = $1 AND bucket = $2"

-- Where a key lives, as far as we know; asked anew when a shard has refused us.
function World:place(key, anew)
  local bucket = tostring(assert(self.catalog.groups[self.group].bound:bucket(key)))
  local place = not anew and self.map[bucket]
  if not place then
    local row = assert(self.catalog:execute(PLACE, { self.group, bucket })).rows[1]
      or { shard_id = assert(self.catalog.groups[self.group].bound:route(key)), version = 1 } -- of an open group
    place = { bucket = bucket, shard_id = row.shard_id, version = row.version }
    self.map[bucket] = place
  end
  return place
end

local function attempt(self, place, sql, params, isolation)
  local pool = self.manager.by_id[place.shard_id].primary.pool
  local lease = assert(pool:acquire(task.now() + 30))
  local opts = { deadline = task.now() + 30 }
  local result, err = lease:execute("BEGIN ISOLATION LEVEL " .. isolation, nil, opts)
  if result then
    result, err = lease:execute("SELECT lunashard.guard($1, $2, $3)", { self.group, place.bucket, place.version }, opts)
  end
  if result then
    result, err = lease:execute(sql, params, opts)
  end
  local done, problem
  if result then
    done, problem = lease:execute("COMMIT", nil, opts)
    assert(not done or done.command == "COMMIT", "a transaction was rolled back by its COMMIT")
  end
  lease:release()
  return done and result, problem or err
end

--- Write a key where it lives, however often that takes. Yields.
-- @param key
-- @string sql
-- @tparam table params
-- @string[opt="READ COMMITTED"] isolation
-- @treturn table the result
function World:write(key, sql, params, isolation)
  local anew = false
  local deadline = task.now() + 60
  while true do
    local result, err = attempt(self, self:place(key, anew), sql, params, isolation or "READ COMMITTED")
    if result then
      return result
    elseif not errors.is(err, "SQL") or err.sqlstate ~= "LS001" and err.sqlstate ~= "40001" or task.now() > deadline then
      error(err, 0)
    end
    self.refused, anew = self.refused + 1, true
    task.sleep(0.002)
  end
end

local LEVELS = { "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE" }

-- One change of a user of one's own: what is acknowledged is noted.
local function change(self, user)
  local level = LEVELS[math.random(3)]
  local dice = math.random()
  local own = self.tokens[user] or {}
  self.tokens[user] = own
  if dice < 0.4 then
    self.next_token = self.next_token + 1
    local token = self.next_token
    self:write(user, "INSERT INTO mv_orders (user_id, token) VALUES ($1, $2)", { user, token }, level)
    own[token] = true
  elseif dice < 0.6 and next(own) then
    local token = next(own)
    local result = self:write(user, "DELETE FROM mv_orders WHERE user_id = $1 AND token = $2", { user, token }, level)
    own[token] = nil
    if result.row_count ~= 1 then
      table.insert(self.problems, ("token %d of %d was acknowledged and not there to be deleted"):format(token, user))
    end
  else
    local result = self:write(user, "UPDATE mv_users SET n = n + 1 WHERE user_id = $1 RETURNING n", { user }, level)
    self.counters[user] = self.counters[user] + 1
    if not result.rows[1] or result.rows[1].n ~= self.counters[user] then
      table.insert(self.problems, ("counter of %d was %s after %d acknowledged steps"):format(user,
        tostring(result.rows[1] and result.rows[1].n), self.counters[user]))
    end
  end
  self.writes = (self.writes or 0) + 1
end

--- How many rows of `mv_users` a shard has.
-- @string shard_id
function World:rows_on(shard_id)
  return assert(self.manager.by_id[shard_id].primary.pool:execute("SELECT count(*) AS n FROM mv_users")).rows[1].n
end

--- Start writers, each with users of its own.
-- @int[opt=4] n
function World:start(n)
  n = n or 4
  self.writers, self.running = {}, true
  for i = 1, n do
    self.writers[i] = task.spawn(function()
      while self.running do
        change(self, math.random(0, math.floor(self.users / n) - 1) * n + i)
      end
    end):watch()
  end
end

--- End the writers. Yields.
function World:stop()
  self.running = false
  for _, writer in ipairs(self.writers or {}) do
    assert(writer:join(60))
  end
  self.writers = nil
end

-- ---- jobs -------------------------------------------------------------------------------------

--- Plan a job of moves between two shards. Yields.
-- @string source
-- @string destination
-- @tparam[opt] table options `keys` (whose buckets move) [all users], `moves`: how many to share them [1]
-- @treturn table job `id`, `moves` (rows), `token`
function World:plan(source, destination, options)
  options = options or {}
  local owned, seen = {}, {}
  for i = 1, options.keys and #options.keys or self.users do
    local place = self:place(options.keys and options.keys[i] or i, true)
    owned[#owned + 1] = place.shard_id == source and not seen[place.bucket] and place.bucket or nil
    seen[place.bucket] = true
  end
  local id = assert(self.catalog:execute("INSERT INTO lunashard_catalog.job (grp, kind, strategy, status) "
    .. "VALUES ($1, 'list', 'live_migration', 'running') RETURNING id", { self.group })).rows[1].id
  local job, n = { id = id, moves = {}, token = 0 }, options.moves or 1
  for seq = 1, n do
    local part = {}
    for i = seq, #owned, n do
      part[#part + 1] = owned[i]
    end
    assert(self.catalog:execute("INSERT INTO lunashard_catalog.move (job, seq, source, destination, buckets) "
      .. "VALUES ($1, $2, $3, $4, $5)", { id, seq, source, destination, part }))
    job.moves[seq] = { job = id, seq = seq }
  end
  return job
end

--- Become the job's mover: the token grows. Yields.
-- @tparam table job
-- @tparam[opt] table more fields of the context
-- @treturn table the context of moves
function World:context(job, more)
  job.token = assert(self.catalog:execute("UPDATE lunashard_catalog.job SET token = token + 1 WHERE id = $1 RETURNING token",
    { job.id })).rows[1].token
  local context = { manager = self.manager, catalog = self.catalog, job = job, token = job.token,
    options = { batch_size = 100, max_cutover = 60 } }
  for name, value in pairs(more or {}) do
    context[name] = value
  end
  return context
end

--- Run a move of a job. Yields.
-- @tparam table job
-- @tparam[opt] table more fields of the context
-- @int[opt=1] seq
function World:run(job, more, seq)
  return move.run(self:context(job, more), job.moves[seq or 1])
end

-- ---- checking ------------------------------------------------------------------------------------

local MISPLACED = [[SELECT user_id FROM mv_users UNION SELECT user_id FROM mv_orders]]
local LEFT = [[
  SELECT 'relation ' || c.relname AS what FROM pg_class c WHERE c.relnamespace = 'lunashard_staging'::regnamespace
    AND c.relkind = 'r'
  UNION ALL SELECT 'function ' || p.proname FROM pg_proc p WHERE p.pronamespace = 'lunashard_staging'::regnamespace
  UNION ALL SELECT 'trigger ' || t.tgname FROM pg_trigger t WHERE t.tgname LIKE 'lunashard%'
  UNION ALL SELECT 'move ' || m.job || '.' || m.seq || ' ' || m.step FROM lunashard.move m
  UNION ALL SELECT 'transition' FROM lunashard.state s WHERE s.in_transition <> 0
  UNION ALL SELECT 'epoch' FROM lunashard.state s, lunashard.epoch e WHERE s.version <> e.last_value]]

local function compare_owners(self, complaints)
  local known = {}
  for _, row in ipairs(assert(self.catalog:execute(
    "SELECT bucket, shard_id, version FROM lunashard_catalog.bucket WHERE grp = $1", { self.group })).rows) do
    known[row.bucket] = row
  end
  for _, member in ipairs(self.manager.members) do
    local owned = assert(member.primary.pool:execute("SELECT bucket, version FROM lunashard.bucket WHERE grp = $1",
      { self.group })).rows
    for _, row in ipairs(owned) do
      local one = known[row.bucket]
      if not one or one.shard_id ~= member.shard_id or one.version ~= row.version then
        table.insert(complaints, ("%s owns %s at %d, the catalog says otherwise"):format(member.shard_id, row.bucket,
          row.version))
      end
      known[row.bucket] = nil
    end
  end
  for bucket in pairs(known) do
    table.insert(complaints, ("nobody owns %s"):format(bucket))
  end
end

--- What moves have left behind on the shards. Yields.
-- @treturn {string,...}
function World:leftovers()
  local list = {}
  for _, member in ipairs(self.manager.members) do
    for _, row in ipairs(assert(member.primary.pool:execute(LEFT)).rows) do
      table.insert(list, member.shard_id .. ": " .. row.what)
    end
  end
  return list
end

local function collect(self, complaints)
  local users, tokens = {}, {}
  for _, member in ipairs(self.manager.members) do
    for _, row in ipairs(assert(member.primary.pool:execute("SELECT user_id, n FROM mv_users")).rows) do
      if users[row.user_id] then
        table.insert(complaints, ("user %d is there twice"):format(row.user_id))
      end
      users[row.user_id] = row.n
    end
    for _, row in ipairs(assert(member.primary.pool:execute("SELECT user_id, token, twice FROM mv_orders")).rows) do
      if tokens[row.token] or row.twice ~= 2 * row.token then
        table.insert(complaints, ("token %d is there twice, or changed"):format(row.token))
      end
      tokens[row.token] = row.user_id
    end
    for _, row in ipairs(assert(member.primary.pool:execute(MISPLACED)).rows) do
      local place = self:place(row.user_id, true)
      if place.shard_id ~= member.shard_id then
        table.insert(complaints, ("rows of %d are on %s and belong to %s"):format(row.user_id, member.shard_id,
          place.shard_id))
      end
    end
  end
  return users, tokens
end

--- Everything that is not as it was acknowledged. Yields; the writers are to be stopped before.
-- @treturn {string,...}
function World:check()
  local complaints = { unpack(self.problems) }
  local users, tokens = collect(self, complaints)
  for user, n in pairs(self.counters) do
    if users[user] ~= n then
      table.insert(complaints, ("counter of %d is %s after %d acknowledged steps"):format(user, tostring(users[user]), n))
    end
  end
  -- No comparison with `user` in the inner loop: compiled by LuaJIT 2.1 of March 2022, it sees another key than that of the outer
  -- one, which is read when `next` of the inner one has overwritten it.
  for user, own in pairs(self.tokens) do
    for token in pairs(own) do
      if not tokens[token] then
        table.insert(complaints, ("token %d of %d was acknowledged and is gone"):format(token, user))
      end
    end
  end
  for token, user in pairs(tokens) do
    if not (self.tokens[user] and self.tokens[user][token]) then
      table.insert(complaints, ("token %d of %d was deleted and is there"):format(token, user))
    end
  end
  compare_owners(self, complaints)
  for _, what in ipairs(self:leftovers()) do
    table.insert(complaints, "left: " .. what)
  end
  return complaints
end

return moving
