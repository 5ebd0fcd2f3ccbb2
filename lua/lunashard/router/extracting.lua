--- `execute` without `routing_key` and `shard_id`: the statement itself says whose it is.
-- @module lunashard.router.extracting

local extraction = require("lunashard.extraction")
local reference = require("lunashard.router.reference")
local scatter = require("lunashard.router.scatter")
local splitting = require("lunashard.router.splitting")
local target = require("lunashard.router.target")
local task = require("lunashard.task")

-- Local functions are constants to the compiler; what is here runs for every statement without a key.
local now, make_plan, owner, is_null = task.now, extraction.plan, target.owner, target.is_null

local extracting = { methods = {} }

local function run_on_several(router, found, sql, params, opts, kind, deadline)
  if kind == "read" then
    local answer, err = scatter.gather(router, found.members, sql, params, opts, kind, {
      deadline = deadline,
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
  return splitting.write(router, found, sql, params, opts, deadline)
end

-- Everything but a single key in a parameter.
local function run_found(router, sql, params, opts, kind, deadline)
  local found, err = target.find(router, sql, params, kind)
  if not found then
    return nil, err
  elseif found.member then
    return router:run_on(found.member, sql, params, opts, deadline)
  elseif found.anywhere then
    return reference.run_anywhere(router, sql, params, opts, deadline)
  elseif found.everywhere then
    return reference.run(router, found.everywhere, sql, params, opts, kind, deadline)
  end
  return run_on_several(router, found, sql, params, opts, kind, deadline)
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
  local extractor = self.extractor
  if opts.table ~= nil and self.manager.tables[opts.table] == nil then
    return self.manager:strategy_for(opts.table) -- INVALID, with the nearest name
  elseif params and extractor then
    local plan, err = make_plan(extractor, self.manager, sql)
    if not plan then
      return nil, err
    end
    local key = params[plan.param]
    if plan.param and not is_null(key) then
      local member
      member, err = owner(self.manager, plan.table, key)
      if not member then
        return nil, err
      end
      return self:run_on(member, sql, params, opts, deadline)
    end
  end
  return run_found(self, sql, params, opts, kind, deadline)
end

return extracting
