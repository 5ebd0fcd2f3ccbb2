--- A look at a plug-in's code without running it: which globals it reads and sets, and what of the libraries.
-- It finds honest mistakes before a key is routed; what it misses, the plug-in's environment refuses when it runs.
-- @module lunashard.plugin.look

local environment = require("lunashard.plugin.environment")
local errors = require("lunashard.errors")
local globals = require("lunashard.plugin.globals")

local look = {}

local SAME_ANSWER = "a plug-in must give the same answer every time"
local WHY = {
  ["math.random"] = SAME_ANSWER,
  ["math.randomseed"] = SAME_ANSWER,
  ["os.time"] = SAME_ANSWER,
  ["os.clock"] = SAME_ANSWER,
  ["os.date"] = SAME_ANSWER,
}

-- An environment may raise for what it does not have.
local function get(holder, name)
  local ok, value = pcall(function()
    return holder[name]
  end)
  return ok and value or nil
end

-- The name that was meant. Libraries do not let their names be listed: those of the program's own are tried.
local function nearest(env, holder, name)
  local names, library = {}, env
  if holder then
    library = get(env, holder) or {}
  end
  for other in pairs(holder and _G[holder] or env) do
    if type(other) == "string" and get(library, other) ~= nil then
      names[other] = true
    end
  end
  local near = errors.nearest(name, names)
  return near and (holder and holder .. "." .. near or near)
end

local function missing(env, name, field)
  local whole = field and name .. "." .. field or name
  if WHY[whole] then
    return ("there is no %s in a plug-in of this kind: %s"):format(whole, WHY[whole])
  elseif get(env, name) == nil then
    local message, near = environment.missing(name), nearest(env, nil, name)
    return (field and message:gsub("global " .. name, whole, 1) or message)
      .. (near and not message:find(":", 1, true) and ("; did you mean %s?"):format(near) or "")
  end
  local near = nearest(env, name, field)
  return ("there is no %s in a plug-in%s"):format(whole, near and ("; did you mean %s?"):format(near) or "")
end

local function problem_of(env, found)
  if found.writes then
    return environment.unwritable(found.name)
  end
  local value = get(env, found.name)
  if value == nil or found.field and type(value) == "table" and get(value, found.field) == nil then
    return missing(env, found.name, found.field)
  end
end

--- What a chunk and the functions in it do with globals that they should not.
-- @tparam function chunk
-- @tparam table env what it would run in, see `lunashard.plugin.environment`
-- @treturn {table,...} each with `line` and `message`, in the order of lines
function look.at(chunk, env)
  local list = {}
  for _, found in ipairs(globals.of(chunk)) do
    local message = problem_of(env, found)
    list[#list + 1] = message and { line = found.line, message = message } or nil
  end
  return list
end

return look
