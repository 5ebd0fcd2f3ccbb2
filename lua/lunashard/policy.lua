--- Policies: what a cluster decides by itself, as plug-ins.
-- A policy has `choose_primary(candidates, shard, options)`, `on_health(event, options)` or `plan(state, options)`. In the
-- cluster file it is named (`choose_primary = "calm"`), or given options: `{ "calm", hosts = { ... } }`, or
-- `lunashard.policy.calm { hosts = { ... } }`. Shipped: `prefer`.
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

-- A version made ready for one handler.
local function prepare(handler, entry)
  if entry.contract[handler.fn_name] == nil then
    error(("policy %s has no function %s"):format(entry.name, handler.fn_name), 0)
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

--- The function that a value of the cluster file stands for. A policy is called in its present version.
-- @param given a function, a name, `{ name, option = ... }` or what `lunashard.policy.<name>` gives
-- @string fn_name `choose_primary` or `on_health`
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
