--- Single statements behind a guard.
-- @module lunashard.router.guarded

local cursors = require("lunashard.router.cursors")
local checking = require("lunashard.router.checking")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local routing = require("lunashard.router.routing")

local guarded = {}

-- A standby has no locks for us: the guard and the statement see the same snapshot instead. What a standby has not heard
-- of yet, the primary has.
local function on_standby(endpoint, sql, params, how)
  local lease, err = endpoint.pool:acquire(how.deadline)
  if not lease then
    return nil, err
  end
  local answers
  local ok, problem = pcall(function()
    if cursors.begin(lease, how.guard, how.deadline) then
      answers, err = lease:execute(sql, params, how)
    end
  end)
  lease:release()
  if not ok then
    error(problem, 0)
  elseif answers or err then
    return answers, err
  end
  return how.member.primary.pool:execute(sql, params, how)
end

--- Run a statement behind its guard, for `attempt.run`. Yields.
-- @tparam table endpoint
-- @string sql
-- @tparam ?table params
-- @tparam table how as for `Pool:execute`, with `guard` and `member`
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function guarded.run_on(endpoint, sql, params, how)
  if endpoint ~= how.member.primary and how.read_only then
    return on_standby(endpoint, sql, params, how)
  end
  return endpoint.pool:execute(sql, params, how)
end

local function try(router, sql, params, opts, deadline, needed)
  local manager = router.manager
  local generation, map = manager.generation, manager.catalog.map
  local member, bucket, strategy = routing.resolve(manager, opts)
  local err = bucket
  if member and router.checks then
    local ok
    ok, err = checking.check(router, sql, params, opts.routing_key, member)
    member = ok and member
  end
  if not member then
    return nil, err
  end
  local under = generation
  if needed and strategy then
    under = guards.bucket(manager, member, strategy, bucket, map == manager.catalog.map)
  elseif needed then
    under = guarding.whole(manager, member)
  end
  return router:run_on(member, sql, params, opts, deadline, under)
end

-- By itself: what makes a function is not compiled.
local function try_again(router, sql, params, opts, deadline, refused)
  return guarding.through(router.manager, deadline, function(needed)
    return try(router, sql, params, opts, deadline, needed)
  end, refused)
end

--- `execute` with `routing_key` or `shard_id`, behind a guard. Yields.
-- @tparam Router router
-- @string sql
-- @tparam ?table params
-- @tparam table opts
-- @number deadline
-- @tparam[opt] lunashard.error refused why it did not go without one
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function guarded.execute(router, sql, params, opts, deadline, refused)
  if not refused then -- nearly always the first try is the last: nothing is made for others before
    local result
    result, refused = try(router, sql, params, opts, deadline, true)
    if result then
      return result
    end
  end
  if not guarding.is_stale(refused) then
    return nil, refused
  end
  return try_again(router, sql, params, opts, deadline, refused)
end

return guarded
