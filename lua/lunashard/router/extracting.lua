--- `execute` without `routing_key` and `shard_id`: the statement itself says whose it is.
-- @module lunashard.router.extracting

local extraction = require("lunashard.extraction")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local reference = require("lunashard.router.reference")
local scatter = require("lunashard.router.scatter")
local splitting = require("lunashard.router.splitting")
local target = require("lunashard.router.target")
local task = require("lunashard.task")

-- Local functions are constants to the compiler; what is here runs for every statement without a key.
local now, make_plan, owner, is_null = task.now, extraction.plan, target.owner, target.is_null

local extracting = { methods = {} }

-- What each shard's part relies on: for all of them the map by which it was found who they are, for a part may have to wait
-- until others are done. Yields when a directory has to be asked.
local function under_of(router, found, params, guarded, generation, map)
  if not guarded then
    return function()
      return generation
    end
  elseif not found.groups then
    return guarding.under_all(router.manager, true, found.members)
  end
  local made = {}
  for i, member in ipairs(found.members) do
    local guard, err = guards.found(router.manager, found, member, params, i)
    if not guard then
      return nil, err
    end
    made[member] = guard
  end
  if router.manager.catalog.map ~= map then
    return guarding.changed()
  end
  return function(member)
    return made[member]
  end
end

local function run_on_several(router, found, sql, params, opts, kind, deadline, guarded, generation, map)
  if kind == "read" then
    local under, err = under_of(router, found, params, guarded, generation, map)
    if not under then
      return nil, err
    end
    local answer
    answer, err = scatter.gather(router, found.members, sql, params, opts, kind, {
      deadline = deadline,
      under = under,
      part = found.groups and function(i)
        return splitting.part(found, i, sql, params)
      end,
    })
    if answer then
      answer.split = splitting.counts(found)
    elseif err.code == "NOT_MERGEABLE" then
      err.message = err.message .. " (an option of scatter_gather), or name the shard"
    end
    return answer, err
  end
  local ok, err = scatter.check_write(sql)
  if not ok then
    return nil, err
  end
  return splitting.write(router, found, sql, params, opts, deadline, guarded, generation)
end

local function run_found(router, sql, params, opts, kind, deadline, guarded)
  local manager = router.manager
  local generation, map = manager.generation, manager.catalog and manager.catalog.map
  local found, err = target.find(router, sql, params, kind)
  if not found then
    return nil, err
  elseif map and manager.catalog.map ~= map then -- a directory was asked meanwhile
    return guarding.changed()
  elseif found.member then
    local under = generation
    if guarded then
      under, err = guards.found(router.manager, found, found.member, params)
      if not under then
        return nil, err
      end
    end
    return router:run_on(found.member, sql, params, opts, deadline, under)
  elseif found.anywhere then
    -- A write for a key that is NULL does nothing, but it is a write to a table whose rows may move.
    local asks = kind == "write" and guarded and found.plan.kind ~= "reference"
    return reference.run_anywhere(router, sql, params, opts, deadline, asks)
  elseif found.everywhere then
    return reference.run(router, found.everywhere, sql, params, opts, kind, deadline)
  end
  return run_on_several(router, found, sql, params, opts, kind, deadline, guarded, generation, map)
end

-- Everything but a single key in a parameter; and that when there are guards.
local function run_found_anew(router, sql, params, opts, kind, deadline, refused)
  if refused and not guarding.is_stale(refused) then
    return nil, refused
  elseif not router.manager.catalog then
    return run_found(router, sql, params, opts, kind, deadline, false)
  end
  return guarding.through(router.manager, deadline, function(guarded)
    return run_found(router, sql, params, opts, kind, deadline, guarded)
  end, refused)
end

--- Run a statement where its own keys say. Yields.
-- @local
-- @string sql
-- @tparam ?table params
-- @tparam table opts those of `execute`
-- @string kind `read` or `write`
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function extracting.methods:execute_extracted(sql, params, opts, kind)
  local deadline = now() + (opts.timeout or self.query_timeout) -- here, for a directory may have to be asked
  local extractor, generation = self.extractor, self.manager.generation
  if opts.table ~= nil and self.manager.tables[opts.table] == nil then
    return self.manager:strategy_for(opts.table) -- INVALID, with the nearest name
  elseif params and extractor and not self.manager.guarding then
    local plan, err = make_plan(extractor, self.manager, sql)
    if not plan then
      return nil, err
    end
    local key = params[plan.param]
    if plan.param and not is_null(key) then
      local member, result
      member, err = owner(self.manager, plan.table, key)
      if not member then
        return nil, err
      end
      result, err = self:run_on(member, sql, params, opts, deadline, generation)
      if err and generation > 0 then
        return run_found_anew(self, sql, params, opts, kind, deadline, err)
      end
      return result, err
    end
  end
  return run_found_anew(self, sql, params, opts, kind, deadline)
end

return extracting
