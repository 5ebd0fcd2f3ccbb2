-- The guide's complete UserService: single-shard reads and writes, a total over all shards, health, and every error handled.
--
--   lunashard run -c <cluster.lua> examples/user_service.lua
--
-- It makes (and replaces) the table demo_users on every shard of the sandbox.

local lunashard = require("lunashard")

local UserService = {}
UserService.__index = UserService

-- Example service using sharding. The strategy brings the shards along, as in the guide.
function UserService.new(shards)
  local self = setmetatable({}, UserService)
  self.strategy = lunashard.strategy.hash { shard_key = "user_id", shards = shards }
  self.manager = lunashard.manager {
    strategy = self.strategy,
    health_check_interval = 30, -- check health every 30 s
    max_consecutive_failures = 3, -- mark unhealthy after 3 failures
    enable_auto_failover = true, -- switch to replicas by itself
  }
  self.router = lunashard.router { shard_manager = self.manager, query_timeout = 5.0 }
  return self
end

function UserService:initialize()
  local ok, err = self.manager:initialize()
  if not ok then
    return nil, err
  end
  print("Sharding system initialized")
  return self.router:execute_on_all_shards([[
    DROP TABLE IF EXISTS demo_users;
    CREATE TABLE demo_users (
      user_id bigint PRIMARY KEY,
      name text NOT NULL,
      email text NOT NULL,
      is_active boolean NOT NULL DEFAULT true
    );
  ]])
end

function UserService:shutdown()
  self.manager:shutdown()
  print("Sharding system shut down")
end

-- The user (single-shard query); nil alone when there is none, nil and an error when the query failed.
function UserService:get_user(user_id)
  local result, err = self.router:execute("SELECT * FROM demo_users WHERE user_id = $1", { user_id }, {
    routing_key = user_id,
    read_only = true, -- prefer read replicas
  })
  if not result then
    return nil, err
  end
  return result.rows[1]
end

-- Create a new user (single-shard write).
function UserService:create_user(user_id, name, email)
  return self.router:execute("INSERT INTO demo_users (user_id, name, email) VALUES ($1, $2, $3)",
    { user_id, name, email }, { routing_key = user_id })
end

-- Count active users across all shards (scatter-gather).
function UserService:count_active_users()
  local result, err = self.router:scatter_gather("SELECT count(*) AS count FROM demo_users WHERE is_active = $1",
    { true }, { aggregation_func = lunashard.aggregate.sum("count") })
  if not result then
    return nil, err
  end
  return result.rows[1].count
end

function UserService:get_cluster_health()
  return self.manager:get_cluster_status()
end

-- ---- using it ---------------------------------------------------------------------------

local shards = assert(require("lunashard.cluster").load(cluster.path)).shards
local service = UserService.new(shards)
assert(service:initialize())

local people = { "Ada", "Bela", "Chidi", "Dora", "Emre", "Fatou", "Goran", "Hana", "Ines" }
for i, name in ipairs(people) do
  assert(service:create_user(1000 + i, name, name:lower() .. "@example.com"))
end
print(("Created %d users"):format(#people))

local user = assert(service:get_user(1003))
local shard = assert(service.manager:get_shard_for_write(1003))
print(("Found user: %d, %s <%s>, on %s"):format(user.user_id, user.name, user.email, shard.shard_id))
assert(user.name == "Chidi" and user.is_active == true)

-- Nobody there is no error.
local nobody, problem = service:get_user(4711)
assert(nobody == nil and problem == nil, problem)
print("User 4711 does not exist")

-- What goes wrong comes back as nil and an error object; its code decides what to do.
local created, err = service:create_user(1003, "Chidi again", "chidi@example.com")
assert(not created and err.code == "SQL" and err.sqlstate == "23505", "a duplicate must be refused")
print(("Not created twice: %s, SQLSTATE %s on %s, retryable: %s"):format(err.code, err.sqlstate, err.shard_id,
  tostring(err.retryable)))

created, err = service:create_user(nil, "No Key", "nokey@example.com")
assert(not created and err.code == "NULL_KEY", "a row without a key must be refused")
print("Not created without a key: " .. err.code)

assert(service.router:execute("UPDATE demo_users SET is_active = false WHERE user_id = $1", { 1009 },
  { routing_key = 1009 }))
local total = assert(service:count_active_users())
print(("Total active users: %d of %d"):format(total, #people))
assert(total == #people - 1)

local health = service:get_cluster_health()
print(("Healthy shards: %d/%d, error rate: %.2f%%"):format(health.healthy_shards, health.total_shards,
  health.error_rate * 100))

service:shutdown()
user, err = service:get_user(1003)
assert(user == nil and err.code == "CLOSED", "a closed service must say so")
print("After the shutdown: " .. err.code)

-- expect: ^Sharding system initialized\n
-- expect: Created 9 users
-- expect: Found user: 1003, Chidi <chidi@example%.com>, on shard%d
-- expect: User 4711 does not exist
-- expect: Not created twice: SQL, SQLSTATE 23505 on shard%d, retryable: false
-- expect: Not created without a key: NULL_KEY
-- expect: Total active users: 8 of 9
-- expect: Healthy shards: (%d)/%1, error rate: 0%.00%%
-- expect: After the shutdown: CLOSED
