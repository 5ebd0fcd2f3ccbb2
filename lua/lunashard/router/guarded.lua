--- Single statements behind a guard.
-- @module lunashard.router.guarded

local cursors = require("lunashard.router.cursors")
local checking = require("lunashard.router.checking")
local guarding = require("lunashard.router.guarding")
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
  local manager = router.manager
  if refused and not guarding.is_stale(refused) then
    return nil, refused
  end
  return guarding.through(manager, deadline, function(needed)
    local generation = manager.generation
    local member, err = routing.resolve(manager, opts)
    if member and router.checks then
      local ok
      ok, err = checking.check(router, sql, params, opts.routing_key, member)
      member = ok and member
    end
    if not member then
      return nil, err
    end
    local under = generation
    if needed then
      under, err = guarding.under(manager, true, member, opts.table, opts.routing_key)
    end
    if not under then
      return nil, err
    end
    return router:run_on(member, sql, params, opts, deadline, under)
  end, refused)
end

return guarded
