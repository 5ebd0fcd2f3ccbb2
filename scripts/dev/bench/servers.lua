--- The servers of the benchmarks: a sandbox of three shards, and what the groups ask for on them.
local peers = require("peers")
local psql = require("psql")
local sandbox = require("lunashard.sandbox")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local servers = { data = {} }

--- Rows of `users` in all, with keys from 1 on.
servers.USERS = 900000
--- Rows of one bulk load.
servers.LOADS = 1000000
--- Rows that move to another shard.
servers.MOVED = 300000

-- The same for everyone. The sandbox has fsync off already; nothing else may run by itself while we measure.
local SETTINGS = [[
ALTER SYSTEM SET shared_buffers = '128MB';
ALTER SYSTEM SET max_connections = 300;
ALTER SYSTEM SET max_wal_size = '2GB';
ALTER SYSTEM SET checkpoint_timeout = '1h';
ALTER SYSTEM SET autovacuum = off;
ALTER SYSTEM SET max_parallel_workers_per_gather = 0;
]]

--- What the settings say, for the table's foot.
servers.SETTINGS = "PostgreSQL servers on the same machine, TCP on 127.0.0.1, fsync off, shared_buffers 128 MB, "
  .. "no parallel plans, no autovacuum"

local function adopt(ctx, description)
  ctx.cluster_file, ctx.passfile = description.cluster_file, description.passfile
  ctx.sandbox_dir, ctx.work_dir = description.dir, description.dir .. "/bench"
  ctx.servers = {}
  for i, one in ipairs(description.servers) do
    ctx.servers[i] = { host = one.host, port = one.port, database = one.database }
  end
end

--- Start them. Yields.
-- @tparam table ctx `sandbox`: its name; gets `servers`, `cluster_file`, `passfile`, `password`, `work_dir`
function servers.start(ctx)
  local options = { name = ctx.sandbox, shards = 3 }
  local description = assert(sandbox.start(options))
  adopt(ctx, description)
  psql.everywhere(ctx, SETTINGS, psql.as_superuser)
  assert(sandbox.stop({ name = ctx.sandbox }))
  adopt(ctx, assert(sandbox.start(options))) -- ports may have changed
  assert(system.mkdir(ctx.work_dir, 448))
  ctx.password = assert(sandbox.credentials({ name = ctx.sandbox })).password
end

--- Stop them and remove everything. Yields.
function servers.destroy(ctx)
  assert(sandbox.destroy({ name = ctx.sandbox }))
end

--- Write a file in the benchmark's directory; gives its path.
function servers.write(ctx, name, content)
  local path = ctx.work_dir .. "/" .. name
  assert(system.write_file(path, content, 420))
  return path
end

-- Rows lie where the strategy `hash` puts them, which is where PostgreSQL's own PARTITION BY HASH does. The copy
-- with keys from 1 on is for peers that cannot route: the same rows but for the keys.
local USERS = [[
CREATE TABLE placement (user_id bigint) PARTITION BY HASH (user_id);
CREATE TABLE users (
  user_id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, is_active boolean NOT NULL,
  created_at timestamptz NOT NULL
);
INSERT INTO users
  SELECT k, 'user ' || k, 'user' || k || '@example.com', k %% 3 <> 0, timestamptz '2026-01-01 00:00Z' + k * interval '1 s'
  FROM generate_series(1::bigint, %d) k WHERE satisfies_hash_partition('placement'::regclass, 3, %d, k);
CREATE TABLE users_local (LIKE users INCLUDING ALL);
INSERT INTO users_local
  SELECT row_number() OVER (ORDER BY user_id), name, email, is_active, created_at FROM users ORDER BY user_id;
]]

function servers.data.users(ctx)
  psql.everywhere(ctx, function(i)
    return USERS:format(servers.USERS, i)
  end)
  psql.everywhere(ctx, "VACUUM ANALYZE users; VACUUM ANALYZE users_local; CHECKPOINT;", psql.as_superuser)
  -- What every shard has a row for.
  local counts = psql.everywhere(ctx, "SELECT count(*) FROM users_local")
  ctx.local_keys = math.huge
  for _, count in ipairs(counts) do
    ctx.local_keys = math.min(ctx.local_keys, tonumber(count))
  end
end

-- One digit for each key: the index of its shard, for routing in Python.
function servers.data.routes(ctx)
  ctx.routes = servers.write(ctx, "routes", (assert(psql.run(ctx, ctx.servers[1], ([[
    SELECT string_agg(CASE WHEN satisfies_hash_partition('placement'::regclass, 3, 0, k) THEN '0'
                           WHEN satisfies_hash_partition('placement'::regclass, 3, 1, k) THEN '1' ELSE '2' END,
                      '' ORDER BY k) FROM generate_series(1::bigint, %d) k
  ]]):format(servers.LOADS))):gsub("%s", "")))
end

function servers.data.orders(ctx)
  psql.everywhere(ctx, [[CREATE TABLE orders (
    order_id bigserial PRIMARY KEY, user_id bigint NOT NULL, amount bigint NOT NULL, note text NOT NULL)]])
end

function servers.data.loads(ctx)
  psql.everywhere(ctx, [[CREATE TABLE loads (
    user_id bigint PRIMARY KEY, name text NOT NULL, email text NOT NULL, is_active boolean NOT NULL)]])
  local path = ctx.work_dir .. "/loads.tsv"
  local file = assert(io.open(path, "wb"))
  for key = 1, servers.LOADS do
    file:write(("%d\tuser %d\tuser%d@example.com\t%s\n"):format(key, key, key, key % 3 ~= 0 and "t" or "f"))
  end
  file:close()
  ctx.loads = path
end

function servers.data.databases(ctx)
  local lines = {}
  for i = 1, 16 do
    lines[i] = ("CREATE DATABASE bench_%d OWNER app;"):format(i)
  end
  assert(psql.as_superuser(ctx, ctx.servers[1], table.concat(lines, "\n")))
end

-- Two shards in databases of their own, with a catalog. All rows lie on the first one: those keys alone are taken that the
-- strategy `hash` puts there.
local MOVED = [[
CREATE TABLE moved (user_id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0, note text NOT NULL);
CREATE INDEX moved_note ON moved (note);
CREATE TABLE move_peer (LIKE moved INCLUDING ALL);
CREATE TABLE move_placement (user_id bigint) PARTITION BY HASH (user_id);
]]

local MOVED_ROWS = [[
INSERT INTO moved (user_id, note) SELECT k, md5(k::text) FROM generate_series(1::bigint, %d * 3) k
  WHERE satisfies_hash_partition('move_placement'::regclass, 2, 0, k) ORDER BY k LIMIT %d;
INSERT INTO move_peer SELECT * FROM moved;
]]

function servers.data.moves(ctx)
  ctx.moves = {}
  for i = 1, 2 do
    local server = ctx.servers[i]
    local own = { host = server.host, port = server.port, database = "bench_moves_" .. i }
    assert(psql.as_superuser(ctx, server, ("CREATE DATABASE %s OWNER app"):format(own.database)))
    assert(psql.run(ctx, own, MOVED .. (i == 1 and MOVED_ROWS:format(servers.MOVED, servers.MOVED) or "")))
    assert(psql.as_superuser(ctx, own, "VACUUM ANALYZE moved; VACUUM ANALYZE move_peer; CHECKPOINT;"))
    ctx.moves[i] = own
  end
  local given = assert(require("lunashard.cluster").load(ctx.cluster_file))
  for i = 1, 2 do
    given.shards[i].database = ctx.moves[i].database
  end
  given.name, given.shards, given.strategy = "bench", { given.shards[1], given.shards[2] }, { "hash", shard_key = "user_id" }
  given.tables = { moved = { shard_key = "user_id", type = "int8" } }
  local manager = require("lunashard").manager(given)
  assert(manager:initialize())
  assert(require("lunashard.catalog.install").run(manager, task.now() + 60))
  manager:shutdown()
end

local FOREIGN_SERVER = [[
CREATE SERVER shard%d FOREIGN DATA WRAPPER postgres_fdw
  OPTIONS (host '%s', port '%d', dbname '%s', async_capable 'true', fetch_size '10000');
CREATE USER MAPPING FOR app SERVER shard%d OPTIONS (user 'app', password '%s');
CREATE FOREIGN TABLE users_%d PARTITION OF users FOR VALUES WITH (MODULUS 3, REMAINDER %d)
  SERVER shard%d OPTIONS (table_name 'users');
]]

local FOREIGN_TABLE = [[
CREATE EXTENSION postgres_fdw;
CREATE TABLE users (user_id bigint, name text, email text, is_active boolean, created_at timestamptz)
  PARTITION BY HASH (user_id);
]]

--- A database beside the first shard, whose foreign tables are the partitions of one table. Yields.
function servers.data.coordinator(ctx)
  local first = ctx.servers[1]
  assert(psql.as_superuser(ctx, first, "CREATE DATABASE coordinator OWNER app"))
  ctx.coordinator = { host = first.host, port = first.port, database = "coordinator" }
  if not ctx.peers.postgres_fdw then
    return
  end
  local lines = { FOREIGN_TABLE }
  for i, server in ipairs(ctx.servers) do
    lines[#lines + 1] = FOREIGN_SERVER:format(i, server.host, server.port, server.database, i, ctx.password, i, i - 1, i)
  end
  lines[#lines + 1] = "ALTER TABLE users OWNER TO app;"
  for i in ipairs(ctx.servers) do
    lines[#lines + 1] = ("ALTER FOREIGN TABLE users_%d OWNER TO app; ANALYZE users_%d;"):format(i, i)
  end
  local made, reason = psql.as_superuser(ctx, ctx.coordinator, table.concat(lines, "\n"))
  if not made then
    peers.drop(ctx, "postgres_fdw", reason)
  end
end

--- PL/Proxy in the same database; what runs on all shards is a function there. Yields.
function servers.data.plproxy(ctx)
  if not ctx.peers.plproxy then
    return
  end
  psql.everywhere(ctx, ([[CREATE FUNCTION count_users() RETURNS bigint LANGUAGE sql STABLE AS '%s']]):format(ctx.count_sql))
  local options = {}
  for i, server in ipairs(ctx.servers) do
    options[i] = ("p%d 'host=%s port=%d dbname=%s'"):format(i - 1, server.host, server.port, server.database)
  end
  local made, reason = psql.as_superuser(ctx, ctx.coordinator, ([[
    CREATE EXTENSION plproxy;
    CREATE SERVER bench FOREIGN DATA WRAPPER plproxy OPTIONS (%s, modular_mapping '1');
    CREATE USER MAPPING FOR app SERVER bench OPTIONS (user 'app', password '%s');
    GRANT USAGE ON FOREIGN SERVER bench TO app;
    CREATE FUNCTION count_users() RETURNS SETOF bigint LANGUAGE plproxy AS $$ CLUSTER 'bench'; RUN ON ALL; $$;
  ]]):format(table.concat(options, ", "), ctx.password))
  if not made then
    peers.drop(ctx, "plproxy", reason)
  end
end

--- Make what a group needs, once. Yields.
-- @tparam table ctx
-- @tparam {string,...} names of functions in `servers.data`
function servers.provide(ctx, names)
  ctx.provided = ctx.provided or {}
  for _, name in ipairs(names) do
    if not ctx.provided[name] then
      servers.data[name](ctx)
      ctx.provided[name] = true
    end
  end
end

return servers
