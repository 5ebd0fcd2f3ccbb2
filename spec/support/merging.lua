--- The same rows in one database and spread over several: what a statement gives must be the same.
-- Databases of one server stand for shards.
-- @module spec.support.merging

local lunashard = require("lunashard")
local sandbox = require("spec.support.sandbox")

local merging = {}

local TABLES = [[
  CREATE TABLE events (user_id int8 NOT NULL, id int8 PRIMARY KEY, country text, city text COLLATE "C", kind varchar(8),
    code char(4), amount int4, small int2, big int8, price numeric(12,3), ratio float8, weight float4, flag bool,
    at timestamptz, day date, span interval, tag uuid, js jsonb, arr int4[], mood mood, note bytea);
  CREATE TABLE orders (user_id int8 NOT NULL, order_id int8 PRIMARY KEY, total numeric, status text);
  CREATE TABLE countries (country text PRIMARY KEY, region text, size int4);
  CREATE VIEW lively AS SELECT user_id, id, country, amount AS size FROM events WHERE flag;
  CREATE VIEW totals AS SELECT count(*) AS n FROM events;
  CREATE FUNCTION twice(int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
  CREATE AGGREGATE product (int8) (SFUNC = int8mul, STYPE = int8, INITCOND = '1')]]

local COUNTRIES = { "Österreich", "austria", "Belgium", "belgium", "a b", "ab", "Zypern", "'quoted\"", "back\\slash", "" }

local function maybe(value)
  if math.random(6) == 1 then
    return lunashard.null
  end
  return value
end

local function event(id)
  local user = math.random(20)
  return {
    user, id, maybe(COUNTRIES[math.random(#COUNTRIES)]), maybe(COUNTRIES[math.random(#COUNTRIES)]),
    maybe("k" .. math.random(3)), maybe("c" .. math.random(3)), maybe(math.random(-20, 20)), maybe(math.random(-5, 5)),
    maybe(tostring(math.random(-9, 9)) .. "007199254740993"), maybe(("%.3f"):format(math.random(-9000, 9000) / 1000)),
    maybe(math.random(-40, 40) / 4), maybe(math.random(-40, 40) / 8), maybe(math.random(2) == 1),
    maybe(("2024-0%d-1%d 0%d:00:00+00"):format(math.random(9), math.random(0, 9), math.random(0, 9))),
    maybe(("2024-0%d-1%d"):format(math.random(3), math.random(0, 3))),
    maybe(("%d days %d minutes"):format(math.random(0, 3), math.random(0, 90))),
    maybe(("00000000-0000-0000-0000-00000000000%d"):format(math.random(0, 9))),
    maybe(('{"a": %d}'):format(math.random(3))), maybe({ math.random(3), math.random(3) }),
    maybe(math.random(2) == 1 and "sad" or "happy"), maybe(lunashard.bytea("\0\1" .. string.char(math.random(3)))),
  }
end

--- Rows to be spread. Random: seed first.
-- @int n
-- @treturn table lists by table
function merging.rows(n)
  local rows = { events = {}, orders = {}, countries = {} }
  for id = 1, n do
    rows.events[id] = event(id)
  end
  for id = 1, math.floor(n / 3) do
    rows.orders[id] = { math.random(24), id, maybe(("%.2f"):format(math.random(-500, 500) / 100)),
      maybe(math.random(2) == 1 and "paid" or "open") }
  end
  for i, name in ipairs(COUNTRIES) do
    if i % 3 > 0 then
      rows.countries[#rows.countries + 1] = { name, "r" .. i % 2, i }
    end
  end
  return rows
end

local function placeholders(n)
  local list = {}
  for i = 1, n do
    list[i] = "$" .. i
  end
  return table.concat(list, ", ")
end

local function fill(router, rows)
  for _, name in ipairs({ "events", "orders" }) do
    local sql = ("INSERT INTO %s VALUES (%s)"):format(name, placeholders(#rows[name][1]))
    local results = assert(router:execute_many(sql, rows[name], { key = 1 }))
    for _, failed in ipairs(results.failed or {}) do
      error(tostring(failed.error))
    end
  end
  for _, row in ipairs(rows.countries) do
    assert(router:execute("INSERT INTO countries VALUES ($1, $2, $3)", row, { table = "countries" }))
  end
end

local Place = {}
Place.__index = Place

--- A server for databases. Yields.
-- @treturn Place
function merging.open()
  local shard = sandbox.shared().shards[1]
  local self = setmetatable({ shard = shard, names = {}, managers = {}, base = ("merging_%d"):format(os.time()) }, Place)
  self.admin = self:connect({ { name = shard.database, user = shard.superuser, password = shard.superuser_password } })
  return self
end

function Place:connect(databases)
  local shards = {}
  for i, database in ipairs(databases) do
    shards[i] = {
      shard_id = "d" .. i, host = self.shard.host, port = self.shard.port, database = database.name,
      user = database.user or self.shard.user, password = database.password or self.shard.password,
      pool_size = 2,
    }
  end
  local manager = lunashard.manager({
    shards = shards, strategy = lunashard.strategy.hash({ shard_key = "user_id" }), health_check_interval = 3600,
    tables = {
      events = { shard_key = "user_id", type = "int8" }, orders = { shard_key = "user_id", type = "int8" },
      countries = { reference = true },
    },
  })
  assert(manager:initialize())
  self.managers[#self.managers + 1] = manager
  return lunashard.router({ shard_manager = manager, query_timeout = 60 })
end

--- A cluster of so many databases that hold the rows. Yields.
-- @int n
-- @tparam table rows from @{rows}
-- @treturn Router
function Place:cluster(n, rows)
  local databases = {}
  for i = 1, n do
    local name = ("%s_%d_%d"):format(self.base, n, i)
    assert(self.admin:execute(("CREATE DATABASE %s OWNER %s TEMPLATE template0"):format(name, self.shard.user), nil,
      { shard_id = "d1" }))
    self.names[#self.names + 1] = name
    databases[i] = { name = name }
  end
  local router = self:connect(databases)
  assert(router:execute_on_all_shards("CREATE TYPE mood AS ENUM ('sad', 'happy')"))
  for ddl in (TABLES .. ";"):gmatch("%s*(.-);") do
    assert(router:execute_on_all_shards(ddl))
  end
  fill(router, rows)
  return router
end

--- Drop it all. Yields.
function Place:close()
  for i = #self.managers, 2, -1 do
    self.managers[i]:shutdown()
  end
  for _, name in ipairs(self.names) do
    assert(self.admin:execute("DROP DATABASE " .. name .. " WITH (FORCE)", nil, { shard_id = "d1" }))
  end
  self.managers[1]:shutdown()
  sandbox.release()
end

local function value_text(value)
  if type(value) == "table" then
    local parts = {}
    for i, element in ipairs(value) do
      parts[i] = value_text(element)
    end
    return "[" .. table.concat(parts, " ") .. "]"
  elseif type(value) == "number" then
    return ("n%.17g"):format(value)
  end
  return type(value) .. ":" .. tostring(value)
end

--- A result as text, one line for each row.
-- @tparam table result
-- @tparam boolean in_order do the places of rows matter?
-- @treturn string
function merging.text(result, in_order)
  local lines = {}
  for i, row in ipairs(result.rows) do
    local parts = {}
    for k, name in ipairs(result.columns) do
      parts[k] = row[name] == nil and "NULL" or value_text(row[name])
    end
    for name in pairs(row) do
      local known = false
      for _, column in ipairs(result.columns) do
        known = known or column == name
      end
      assert(known, "a field of no column: " .. name)
    end
    lines[i] = table.concat(parts, " | ")
  end
  if not in_order then
    table.sort(lines)
  end
  local header = {}
  for i, name in ipairs(result.columns) do
    header[i] = name .. " " .. result.column_types[i]:gsub("^oid:%d+$", "a type of its own")
  end
  return table.concat(header, " | ") .. "\n" .. table.concat(lines, "\n")
end

return merging
