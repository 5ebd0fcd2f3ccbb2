--- One plug-in's file, apart from any folder in use: for those who write it, and for its specs.
-- It is read, compiled, run and checked as the loader does it; nobody knows of it before `install`.
-- @module lunashard.plugin.single

local budget = require("lunashard.plugin.budget")
local compile = require("lunashard.loader.compile")
local contract = require("lunashard.plugin.contract")
local environment = require("lunashard.plugin.environment")
local folder = require("lunashard.loader.folder")
local look = require("lunashard.plugin.look")
local registry = require("lunashard.plugin.registry")
local selftest = require("lunashard.plugin.selftest")
local source = require("lunashard.plugin.source")
local strategy = require("lunashard.strategy")

local single = {}

-- The plug-in folder is what `require` keeps to: plugins of plugins/strategies/tier.lua, else the file's own.
local function root_of(path)
  local dir = path:match("^(.*)/[^/]*$") or "."
  return folder.kind_of(path) and (dir:match("^(.*)/[^/]*$") or ".") or dir
end

--- Look at a file without running it.
-- @string path
-- @treturn[1] {table,...} what is wrong with it, each `message` and, where one is known, `line`
-- @treturn[2] nil
-- @treturn[2] string why it cannot be read
function single.look(path)
  local text, problem = source.read(path)
  if not text then
    local line, message = problem:match("^(%d+): (.*)$")
    if line then
      return { { line = tonumber(line), message = message } }
    end
    return nil, ("%s: %s"):format(path, problem)
  end
  local env = environment.new({ kind = folder.kind_of(path), shown = path, require = require })
  local chunk, message = load((text:gsub("^#", "--#")), "@" .. path, "t", env)
  if not chunk then
    local line, rest = message:match(":(%d+): (.*)$")
    return { { line = tonumber(line), message = rest or message } }
  end
  return look.at(chunk, env)
end

--- Load a file: what the loader does with it, up to its contract.
-- @string path
-- @tparam[opt] table limits `time`, `memory`, `trusted`, as of `lunashard.plugin.budget`
-- @treturn[1] table entry, as of @{lunashard.plugin.registry}
-- @treturn[2] nil
-- @treturn[2] string what is wrong: one line with file and line
function single.load(path, limits)
  limits = limits or {}
  local loaded, message = compile.run(path, { root = root_of(path), kind = folder.kind_of(path), time = limits.time,
    memory = limits.memory, trusted = limits.trusted })
  if not loaded then
    return nil, message
  end
  local value = loaded.value
  local ok, problem = contract.check(folder.kind_of(path), value, { path = loaded.shown, text = loaded.text })
  if not ok then
    return nil, problem
  elseif registry.is_shipped(value.kind, value.name) then
    return nil, ("%s: %s"):format(loaded.shown, registry.taken(value.kind, value.name))
  end
  local limited = budget.wrap(value, limits)
  return registry.entry(limited, { source = path, shown = loaded.shown, trusted = limits.trusted })
end

local function try_strategy(entry, how)
  local ok, bound = registry.staged(entry, strategy.bind, how.strategy or { entry.name }, how.shards,
    { key_type = how.key_type, shard_key = how.shard_key })
  if not ok then
    return nil, tostring(bound)
  end
  return selftest.strategy(bound, how.key_type)
end

--- Try what was loaded: its self-test. Yields.
-- @tparam table entry
-- @tparam[opt] table how of a strategy: `shards`, `key_type`, `shard_key`, `strategy` (its name and options)
-- @treturn[1] boolean true
-- @treturn[1] ?string why not all of it could be tried
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function single.try(entry, how)
  if entry.kind == "strategy" then
    return try_strategy(entry, how)
  elseif entry.kind == "policy" then
    return true, "a policy is tried by its spec alone"
  end
  return selftest[entry.kind](entry.contract)
end

return single
