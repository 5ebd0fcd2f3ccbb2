--- Policies: what a cluster decides by itself, as plug-ins.
-- A policy has `choose_primary(candidates, shard, options)`, `on_health(event, options)`, `throttle(stats, options)`, or says
-- what moves where: `plan(state, options)`, or `cost`, `capacity` and `allowed` (see `lunashard.policies.even`). It is named
-- (`choose_primary = "calm"`), or given options: `{ "calm", hosts = { ... } }`, or
-- `lunashard.policy.calm { hosts = { ... } }`. Shipped: `prefer`; `follow`, `minimal`, `even`, `by_load`, `by_region`, `drain`,
-- `pin`, `list`, which plan; `pace`, which throttles.
-- @module lunashard.policy

local errors = require("lunashard.errors")
local options_of = require("lunashard.options")
local registry = require("lunashard.plugin.registry")

local policy = {}

local Policy = {}
Policy.__index = Policy
Policy.__name = "lunashard.policy"

function Policy:__tostring()
  return "policy " .. self.name
end

local function new(name, options)
  if options ~= nil and type(options) ~= "table" then
    error(("policy %s takes a table of options, got %s"):format(name, options_of.describe(options)), 3)
  end
  return setmetatable({ name = name, options = options or {} }, Policy)
end

-- Whatever names a policy, as one.
local function to_policy(given)
  if getmetatable(given) == Policy then
    return given
  elseif type(given) == "string" then
    return new(given)
  elseif type(given) == "table" and type(given[1]) == "string" then
    local options = {}
    for name, value in pairs(given) do
      if name ~= 1 then
        options[name] = value
      end
    end
    return new(given[1], options)
  end
end

-- The handlers in use: each `policy`, `fn_name`, and `manager` once there is one.
local handlers = setmetatable({}, { __mode = "k" })

local PLANS = { "plan", "cost", "capacity", "allowed" }

local function plans(contract)
  for _, name in ipairs(PLANS) do
    if contract[name] then
      return true
    end
  end
  return false
end

-- A version made ready for one handler.
local function prepare(handler, entry)
  local known = entry.contract.options
  if entry.contract[handler.fn_name] == nil and not (handler.fn_name == "plan" and plans(entry.contract)) then
    error(("policy %s has no function %s"):format(entry.name, handler.fn_name), 0)
  end
  for name in pairs(known and handler.policy.options or {}) do
    local is_known = false
    for _, one in ipairs(known) do
      is_known = is_known or one == name
    end
    if not is_known then
      error(("%s: unknown option %s; %s"):format(entry.name, tostring(name), #known > 0 and "there are "
        .. table.concat(known, ", ") or "it has none"), 0)
    end
  end
  local own = {}
  for name, value in pairs(handler.policy.options) do
    own[name] = value
  end
  if entry.contract.new then
    own = entry.contract.new(own)
  end
  return own
end

--- The policy that says what moves where, in its present version.
-- @param given a name, `{ name, option = ... }` or what `lunashard.policy.<name>` gives
-- @tparam[opt] table more options, in place of those
-- @treturn[1] table `name`, `options` (as they were given), `made` (what `new` made of them), `entry`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, `PLUGIN_FAILED`
function policy.planner(given, more)
  local wanted = to_policy(given)
  local entry = wanted and registry.get("policy", wanted.name)
  if not wanted then
    return nil, errors.new("INVALID", { message = ("planner: expected a policy such as \"even\" or { \"even\", by = "
      .. "\"bytes\" }, got %s"):format(options_of.describe(given)) })
  elseif not entry or not plans(entry.contract) then
    local names = {}
    for _, name in ipairs(registry.names("policy")) do
      names[#names + 1] = plans(registry.get("policy", name).contract) and name or nil
    end
    local near = not entry and errors.nearest(wanted.name, names)
    return nil, errors.new("INVALID", { message = entry and ("policy %s plans nothing"):format(wanted.name)
      or ("there is no planner %q%s"):format(wanted.name, near and ("; did you mean %q?"):format(near) or "; there are "
      .. table.concat(names, ", ")) })
  end
  local own = {}
  for _, options in ipairs({ wanted.options, more or {} }) do
    for name, value in pairs(options) do
      own[name] = value
    end
  end
  local ok, made = pcall(prepare, { policy = new(wanted.name, own), fn_name = "plan" }, entry)
  if not ok then
    return nil, errors.is(made) and made or errors.new("INVALID", { message = tostring(made) })
  end
  return { name = wanted.name, options = own, made = made, entry = entry }
end

--- What a job writes down of a policy, for whoever resumes it.
-- @param given as for `handler`
-- @treturn ?table `{ name, option = ... }`; nil for a function
function policy.spelled(given)
  local wanted = to_policy(given)
  return wanted and { name = wanted.name, options = wanted.options }
end

--- The function that a value of the cluster file stands for. A policy is called in its present version.
-- @param given a function, a name, `{ name, option = ... }` or what `lunashard.policy.<name>` gives
-- @string fn_name `choose_primary`, `on_health` or `throttle`
-- @treturn[1] ?function
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function policy.handler(given, fn_name)
  if given == nil or type(given) == "function" then
    return given
  end
  local wanted = to_policy(given)
  if not wanted then
    return nil, ("%s: expected a function, or a policy such as \"name\" or { \"name\", option = ... }, got %s"):format(
      fn_name, options_of.describe(given))
  end
  local entry = registry.get("policy", wanted.name)
  if not entry then
    return nil, ("%s: %s"):format(fn_name, registry.unknown("policy", wanted.name))
  end
  local handler = { policy = wanted, fn_name = fn_name }
  local ok, made = pcall(prepare, handler, entry)
  if not ok then
    return nil, ("%s: %s"):format(fn_name, tostring(errors.is(made) and made.message or made))
  end
  local function call(subject, shard)
    local present = registry.get("policy", wanted.name) or entry
    if present ~= entry then
      entry, made = present, prepare(handler, present)
    end
    local fn = entry.contract[fn_name]
    if fn_name == "choose_primary" then
      return fn(subject, shard, made)
    end
    return fn(subject, made)
  end
  handlers[call] = handler
  return call
end

--- Put functions in the place of the policies that options name.
-- @tparam table cfg from `config.manager`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function policy.adopt(cfg)
  for _, fn_name in ipairs({ "choose_primary", "on_health" }) do
    local fn, message = policy.handler(cfg[fn_name], fn_name)
    if message then
      return nil, message
    end
    cfg[fn_name] = fn
  end
  return true
end

-- The handlers by which a manager uses the policy of this name.
local function used_by(manager, name)
  local list = {}
  for _, fn_name in ipairs({ "choose_primary", "on_health" }) do
    local handler = handlers[manager.options[fn_name]]
    if handler and handler.policy.name == name then
      list[#list + 1] = handler
    end
  end
  return list
end

--- Does a manager use the policy of this name?
-- @tparam Manager manager
-- @string name
-- @treturn boolean
function policy.is_used(manager, name)
  return #used_by(manager, name) > 0
end

--- Could this version serve where a manager uses the one of its name?
-- @tparam Manager manager
-- @tparam table entry
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function policy.try(manager, entry)
  for _, handler in ipairs(used_by(manager, entry.name)) do
    local ok, err = pcall(prepare, handler, entry)
    if not ok then
      return nil, tostring(errors.is(err) and err.message or err)
    end
  end
  return true
end

return setmetatable(policy, {
  __index = function(_, name)
    if not registry.get("policy", name) then
      error(registry.unknown("policy", name), 2)
    end
    return function(options)
      local made = new(name, options)
      return made
    end
  end,
})
