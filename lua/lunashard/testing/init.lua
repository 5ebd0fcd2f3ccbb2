--- What specs get beside busted: plug-ins to look at, clusters on throw-away servers, counts of what ran, and a check
-- that nothing is left behind.
-- @module lunashard.testing

local core = require("lunashard.core.task")
local task = require("lunashard.task")

local testing = {}

local SETTLE = 2 -- seconds in which what a test has closed must be gone
local WATCHED = { "tasks", "ops" }
local SHARED = { "lunashard", "lunashard.process", "lunashard.sandbox", "inspect", "cjson.safe" }

--- Tests by outcome; errors outside of tests count as errors too.
-- @table counts
testing.counts = { success = 0, failure = 0, error = 0, pending = 0 }

local opened = {} -- clusters, in the order in which they were opened
local sandboxes = {} -- number of shards -> `place`, and `cluster_file` once it has been started

--- Load what all spec files share. busted forgets the modules that a spec file loaded, and several copies of
-- `lunashard.errors` would not know each other's errors.
-- @local
function testing.preload()
  for _, name in ipairs(SHARED) do
    require(name)
  end
end

-- ---- plug-ins ---------------------------------------------------------------------

local function single()
  return require("lunashard.plugin.single")
end

--- Load a plug-in's file as a cluster would: in an environment of its own, by its contract. Raises when it is refused, and
-- says why. Scripts then know it by its name, such as `lunashard.strategy.tenant_tier`.
-- @string path
-- @treturn lunashard.plugin the contract, whose functions may be called
function testing.load(path)
  local entry, message = single().load(path)
  if not entry then
    error(message, 2)
  end
  require("lunashard.plugin.registry").install(entry)
  return entry.contract
end

--- Try a strategy as a cluster does before it uses it: on hundreds of keys, on the edges of their type, in all spellings,
-- twice, and made anew. Yields.
-- @tparam lunashard.strategy.bound bound such as `lunashard.strategy.tenant_tier { shards = ..., key_type = "int8" }`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function testing.try(bound)
  return require("lunashard.plugin.selftest").strategy(bound)
end

-- ---- clusters ---------------------------------------------------------------------

-- Those of the run's own sandbox, which is started when it is first asked for.
local function cluster_file(shards)
  local given = os.getenv("LUNASHARD_TEST_SANDBOX")
  if shards == 3 and given and given ~= "" then
    return given .. "/cluster.lua"
  end
  local own = sandboxes[shards] or {}
  if not own.cluster_file then
    own.place = { name = ("test-%d-%d"):format(require("lunashard.core.system").getpid(), shards) }
    sandboxes[shards] = own -- before it is started: a start that is broken off leaves something, too
    local sandbox = require("lunashard.sandbox")
    own.cluster_file = assert(sandbox.start({ name = own.place.name, shards = shards })).cluster_file
  end
  return own.cluster_file
end

--- A cluster of throw-away PostgreSQL servers. Yields.
-- They are started when a run first asks for them, shared by its specs and removed at its end; what a spec makes in
-- them it should remove. One that was opened in a test is closed after it, another one with its file.
-- @tparam[opt] table options those of a cluster file, beside what the sandbox gives (`strategy`, `tables`, `plugins`, ...),
--   and `shards`: how many [3]
-- @treturn table `manager`, `router`, `shards` and `close()`
function testing.cluster(options)
  local given = {}
  for name, value in pairs(options or {}) do
    given[name] = value
  end
  local shards = given.shards or 3
  if type(shards) ~= "number" then
    error("testing.cluster: shards is how many there are to be, a number", 2)
  end
  given.shards = nil
  local all = assert(require("lunashard.cluster").load(cluster_file(shards)))
  for name, value in pairs(given) do
    all[name] = value
  end
  local lunashard = require("lunashard")
  local manager = lunashard.manager(all)
  local cluster = { manager = manager, shards = manager.shards }
  function cluster.close()
    return manager:shutdown()
  end
  opened[#opened + 1] = cluster
  assert(manager:initialize())
  cluster.router = lunashard.router({ shard_manager = manager })
  return cluster
end

--- How many clusters were opened.
-- @local
-- @treturn number
function testing.opened()
  return #opened
end

--- Close all clusters but the first n.
-- @local
-- @number n
function testing.close_since(n)
  for i = #opened, n + 1, -1 do
    opened[i].close()
    opened[i] = nil
  end
end

local function destroy(place)
  return require("lunashard.sandbox").destroy(place)
end

--- Remove the servers that specs asked for. Yields.
-- @local
function testing.remove_sandboxes()
  testing.close_since(0)
  for shards, own in pairs(sandboxes) do
    sandboxes[shards] = nil
    local ok, done, err = pcall(destroy, own.place)
    if not ok then
      -- Nothing can be waited for after an interrupt: another process sees to it.
      local program = require("lunashard.core.system").realpath("/proc/self/exe"):gsub("'", "'\\''")
      os.execute(("'%s' sandbox destroy --name %s >/dev/null 2>&1 &"):format(program, own.place.name))
    elseif not done and own.cluster_file then
      error(err, 0)
    end
  end
end

-- ---- leaks --------------------------------------------------------------------------

local function excess(before)
  local now, found = core.counts(), {}
  for _, name in ipairs(WATCHED) do
    if now[name] > before[name] then
      found[#found + 1] = ("%d %s"):format(now[name] - before[name], name)
    end
  end
  return #found > 0 and table.concat(found, " and ") or nil
end

--- Fail when more tasks or operations are alive than were before. Yields.
-- @local
-- @tparam table before as `lunashard.core.task.counts()` gave it
-- @string what whose they are
function testing.check_leaks(before, what)
  local deadline = task.now() + SETTLE
  local left = excess(before)
  while left and task.now() < deadline do
    task.sleep(0.01)
    left = excess(before)
  end
  if left then
    error(("%s left %s behind"):format(what, left), 0)
  end
end

return testing
