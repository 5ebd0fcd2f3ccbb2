--- The strategy to compare with, from a file: an earlier version of a plug-in, or an earlier cluster file.
-- @module lunashard.distribution.earlier

local cluster = require("lunashard.cluster")
local compile = require("lunashard.loader.compile")
local contract = require("lunashard.plugin.contract")
local errors = require("lunashard.errors")
local registry = require("lunashard.plugin.registry")
local strategy = require("lunashard.strategy")

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
  local entry = registry.entry(loaded.value, { source = path })
  local how = { key_type = bound.key_type, shard_key = bound.shard_key }
  local made
  ok, made = registry.staged(entry, strategy.bind, bound.spec, bound.shards, how)
  if ok and not uses(made, entry) then
    ok, made = registry.staged(entry, strategy.bind, { entry.name }, bound.shards, how)
  end
  if not ok then
    return invalid("%s: %s", path, (tostring(made):gsub("^[^:]+%.lua:%d+: ", "")))
  end
  return made
end

local function of_cluster(path, table_name)
  local given, err = cluster.load(path)
  if not given then
    return nil, err
  end
  local manager, message = require("lunashard.manager").build(given)
  if not manager then
    return invalid("cluster file %s: %s", path, message)
  elseif table_name and manager.tables[table_name] then
    return manager:strategy_for(table_name)
  end
  return manager.strategy
end

--- The strategy of a file.
-- @string path of a strategy plug-in, or of a cluster file
-- @tparam lunashard.strategy.bound bound the present one
-- @tparam ?string table_name whose keys are meant
-- @treturn[1] lunashard.strategy.bound
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function earlier.load(path, bound, table_name)
  if is_plugin(path) then
    return with_plugin(path, bound)
  end
  return of_cluster(path, table_name)
end

return earlier
