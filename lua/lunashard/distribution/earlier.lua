--- The strategy to compare with, from a file: an earlier version of a plug-in, or an earlier cluster file.
-- @module lunashard.distribution.earlier

local bounds = require("lunashard.loader.bounds")
local budget = require("lunashard.plugin.budget")
local cluster = require("lunashard.cluster")
local compile = require("lunashard.loader.compile")
local contract = require("lunashard.plugin.contract")
local distribution = require("lunashard.distribution")
local errors = require("lunashard.errors")
local registry = require("lunashard.plugin.registry")
local strategy = require("lunashard.strategy")
local system = require("lunashard.core.system")

local earlier = {}

local function invalid(format, ...)
  return nil, errors.new("INVALID", { message = format:format(...) })
end

local function is_plugin(path)
  local file = io.open(path, "rb")
  local text = file and file:read(1024 * 1024)
  if file then
    file:close()
  end
  return text ~= nil and (text:gsub("%-%-[^\n]*", "")):find("%f[%w_]kind%s*=%s*[\"']strategy[\"']") ~= nil
end

local function uses(bound, entry)
  if bound.entry == entry then
    return true
  end
  for _, member in ipairs(bound.shipped and bound.state.members or {}) do
    if uses(member, entry) then
      return true
    end
  end
  return false
end

-- The present strategy with that version of the plug-in in it; where it has none of that name, the plug-in alone.
local function with_plugin(path, bound)
  local loaded, problem = compile.run(path, { kind = "strategy" })
  local ok
  if loaded then
    ok, problem = contract.check("strategy", loaded.value, { path = path, text = loaded.text })
  end
  if not ok then
    return invalid("%s", problem)
  elseif registry.is_shipped("strategy", loaded.value.name) then
    return invalid("%s: %s", path, registry.taken("strategy", loaded.value.name))
  end
  local entry = registry.entry((budget.wrap(loaded.value)), { source = path })
  local how = { key_type = bound.key_type, shard_key = bound.shard_key }
  local made
  ok, made = registry.staged(entry, strategy.bind, bound.spec, bound.shards, how)
  if ok and not uses(made, entry) then
    ok, made = registry.staged(entry, strategy.bind, { entry.name }, bound.shards, how)
  end
  if not ok then
    return invalid("%s: %s", path, errors.is(made) and made.message or (tostring(made):gsub("^[^:]+%.lua:%d+: ", "")))
  end
  ok, problem = bounds.try({ by_type = { any = made } }, entry.name)
  if not ok then
    return invalid("%s: %s", path, problem)
  end
  return made
end

local function users_entries()
  local list = {}
  for _, kind in ipairs(contract.kinds) do
    for _, name in ipairs(registry.names(kind)) do
      if not registry.is_shipped(kind, name) then
        list[#list + 1] = registry.get(kind, name)
      end
    end
  end
  return list
end

-- Plug-ins are known by their names, and those of an earlier cluster in another folder have the same ones: ours make
-- place for them meanwhile. What was bound keeps the version that it has.
local function without_ours(fn)
  local ours = users_entries()
  for _, entry in ipairs(ours) do
    registry.remove(entry.kind, entry.name)
  end
  local ok, value, err = pcall(fn)
  for _, entry in ipairs(users_entries()) do
    registry.remove(entry.kind, entry.name)
  end
  for _, entry in ipairs(ours) do
    registry.install(entry)
  end
  if not ok then
    error(value, 0)
  end
  return value, err
end

local function built(path, given, table_name)
  local manager, message = require("lunashard.manager").build(given)
  if not manager then
    return invalid("cluster file %s: %s", path, message)
  end
  local bound, err = manager.strategy, nil
  if table_name and manager.tables[table_name] then
    bound, err = manager:strategy_for(table_name)
  end
  manager:shutdown()
  if bound and distribution.needs_servers(bound) then
    return invalid("cluster file %s: its directory is a table, and the earlier cluster is not connected to", path)
  end
  return bound, err
end

local function of_cluster(path, table_name, folder)
  local given, err = cluster.load(path)
  if not given then
    return nil, err
  end
  local function build()
    return built(path, given, table_name)
  end
  local other = type(given.plugins) == "string" and system.realpath(given.plugins)
  if other and other ~= folder then
    return without_ours(build)
  end
  return build()
end

--- The strategy of a file.
-- @string path of a strategy plug-in, or of a cluster file
-- @tparam lunashard.strategy.bound bound the present one
-- @tparam ?string table_name whose keys are meant
-- @tparam ?string folder the true path of the present plug-ins
-- @treturn[1] lunashard.strategy.bound
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function earlier.load(path, bound, table_name, folder)
  if is_plugin(path) then
    return with_plugin(path, bound)
  end
  return of_cluster(path, table_name, folder)
end

return earlier
