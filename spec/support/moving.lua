--- Clusters for specs that move rows: every shard is a database of its own on the servers of the shared sandbox, so that
-- there can be any number of them, and nothing of theirs is seen elsewhere.
-- @module spec.support.moving

local cli = require("spec.support.cli")
local config = require("lunashard.config")
local install = require("lunashard.catalog.install")
local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")
local shards = require("lunashard.manager.shard")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local moving = {}

local Moving = {}
Moving.__index = Moving

local count = 0

local TABLES = {
  users = { shard_key = "user_id", type = "int8" },
  orders = { shard_key = "user_id", type = "int8" },
  countries = { reference = true },
}

--- The tables that all of its shards have.
moving.SCHEMA = [[
  CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL);
  CREATE TABLE users (user_id bigint PRIMARY KEY, name text NOT NULL, n int NOT NULL DEFAULT 0);
  CREATE TABLE orders (user_id bigint NOT NULL REFERENCES users, order_id bigint NOT NULL, amount int NOT NULL,
    country text REFERENCES countries, PRIMARY KEY (user_id, order_id));
]]

-- A shard's endpoint alone, past everything.
local function endpoint_of(shard)
  local endpoint = shards.endpoint("primary", shard, shard.shard_id, assert((config.manager({ shards = { shard } }))))
  shards.open(endpoint)
  return endpoint
end

local function as_superuser(server, database, sql)
  local endpoint = endpoint_of({ shard_id = "admin", host = server.host, port = server.port, database = database,
    user = server.superuser, password = server.superuser_password })
  for _, one in ipairs(sql) do
    assert(endpoint.pool:execute(one, nil, { deadline = task.now() + 30, pipeline = false }))
  end
  shards.close(endpoint)
end

--- A strategy with ten keys in each bucket: six buckets are on s1, and two on s2.
-- @treturn table
function moving.tens()
  local ranges = { s1 = {}, s2 = {} }
  for i = 0, 7 do
    table.insert(ranges[i < 6 and "s1" or "s2"], { i * 10, i * 10 + 9 })
  end
  return { "range", ranges = ranges, allow_gaps = true }
end

--- Make one.
-- @tparam table options `shards`: how many; `used`: how many of them hold rows from the start [all]; `strategy`, `tables`,
--   `schema`: SQL for each shard; `regions`: one for each shard; `more`: other options of the cluster file
function moving.new(options)
  count = count + 1
  local self = setmetatable({ servers = sandbox.shared().shards, shards = {}, options = options, managers = {} }, Moving)
  self.prefix = ("moving_%d_%d"):format(system.getpid(), count)
  for i = 1, options.shards do
    local server = self.servers[(i - 1) % #self.servers + 1]
    local database = ("%s_%d"):format(self.prefix, i)
    as_superuser(server, "postgres", { ('CREATE DATABASE "%s" OWNER "%s"'):format(database, server.user) })
    self.shards[i] = { shard_id = "s" .. i, host = server.host, port = server.port, database = database,
      user = server.user, password = server.password, region = options.regions and options.regions[i] }
  end
  local setup_manager = self:manager(options.shards)
  local router = lunashard.router({ shard_manager = setup_manager, extractor = false })
  assert(router:execute_on_all_shards(options.schema or moving.SCHEMA))
  setup_manager:shutdown()
  return self
end

--- Options of a cluster with the first n shards.
function Moving:cluster_options(n)
  local list = {}
  for i = 1, n do
    list[i] = self.shards[i]
  end
  local given = { name = self.prefix, shards = list, strategy = self.options.strategy or "consistent_hash",
    tables = self.options.tables or TABLES }
  for name, value in pairs(self.options.more or {}) do
    given[name] = value
  end
  return given
end

--- A manager with the first n shards; `changes` are other options of each of them.
function Moving:manager(n, changes)
  local given = self:cluster_options(n)
  for i, shard in ipairs(changes and given.shards or {}) do
    given.shards[i] = {}
    for _, list in ipairs({ shard, changes }) do
      for name, value in pairs(list) do
        given.shards[i][name] = value
      end
    end
  end
  local manager = lunashard.manager(given)
  self.managers[#self.managers + 1] = manager
  assert(manager:initialize())
  return manager
end

--- The same and its router.
function Moving:connect(n)
  local manager = self:manager(n)
  return lunashard.router({ shard_manager = manager }), manager
end

-- Lua of a table's options.
local function table_text(declared)
  local parts = {}
  for name, value in pairs(declared) do
    parts[#parts + 1] = ("%s = %s"):format(name, type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

--- A cluster file with the first n shards; its path.
function Moving:file(n)
  self.dir = self.dir or cli.directory()
  local lines = {}
  for i = 1, n do
    local shard = self.shards[i]
    lines[i] = ("{ shard_id = %q, host = %q, port = %d, database = %q, user = %q, password = %q },"):format(shard.shard_id,
      shard.host, shard.port, shard.database, shard.user, shard.password)
  end
  local tables = {}
  for name, declared in pairs(self.options.tables or TABLES) do
    tables[#tables + 1] = ("[%q] = %s,"):format(name, table_text(declared))
  end
  return cli.write(self.dir, ("cluster%d.lua"):format(n),
    ("return { name = %q, shards = { %s }, strategy = %q, tables = { %s } }"):format(self.prefix, table.concat(lines, "\n"),
      self.options.strategy or "consistent_hash", table.concat(tables, "\n")))
end

--- Put users on the first n shards, which have no catalog yet.
-- @int n
-- @int first their keys
-- @int last
function Moving:fill(n, first, last)
  local router, manager = self:connect(n)
  local users = {}
  for key = first, last do
    users[#users + 1] = { key, "user " .. key }
  end
  assert(router:copy_in("users", { "user_id", "name" }, users))
  manager:shutdown()
end

--- Install the catalog for the first n shards.
function Moving:init(n)
  local manager = self:manager(n)
  assert(install.run(manager, task.now() + 30))
  manager:shutdown()
end

--- Run SQL on a shard, past everything.
function Moving:on(number, sql, params)
  self.direct = self.direct or {}
  local shard = self.shards[number]
  self.direct[number] = self.direct[number] or endpoint_of(shard)
  return assert(self.direct[number].pool:execute(sql, params, { deadline = task.now() + 20, pipeline = false }))
end

--- Run SQL as the superuser of a shard's server.
-- @int number of the shard
-- @tparam {string,...} sql
-- @string[opt] database [the shard's]
function Moving:as_superuser(number, sql, database)
  as_superuser(self.servers[(number - 1) % #self.servers + 1], database or self.shards[number].database, sql)
end

--- Close everything and drop the databases.
function Moving:destroy()
  for _, manager in ipairs(self.managers) do
    manager:shutdown()
  end
  for _, endpoint in pairs(self.direct or {}) do
    shards.close(endpoint)
  end
  for i, shard in ipairs(self.shards) do
    as_superuser(self.servers[(i - 1) % #self.servers + 1], "postgres",
      { ('DROP DATABASE IF EXISTS "%s" WITH (FORCE)'):format(shard.database) })
  end
  if self.dir then
    cli.remove_all()
  end
end

return moving
