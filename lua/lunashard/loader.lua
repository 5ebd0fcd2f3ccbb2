--- Hot loading of plug-ins from a folder.
-- A load is a transaction: the file is read, compiled, run in an environment of its own, its contract is checked, it is
-- tried on sampled keys, and compared with the version that serves, so that no key would be looked for elsewhere; then
-- it takes that one's place, everywhere at once. Whatever fails leaves the version that serves as it was, and is said in
-- one line. A version never changes, so what runs ends with the one that it began with.
-- @module lunashard.loader

local binding = require("lunashard.manager.binding")
local bounds = require("lunashard.loader.bounds")
local errors = require("lunashard.errors")
local events = require("lunashard.events")
local folder = require("lunashard.loader.folder")
local options_of = require("lunashard.options")
local registry = require("lunashard.plugin.registry")
local slots = require("lunashard.loader.slots")
local source = require("lunashard.plugin.source")
local system = require("lunashard.core.system")
local task = require("lunashard.task")
local warn = require("lunashard.warn")
local watch = require("lunashard.watch")

local loader = {}

local loaders = {} -- those in use, by the true path of their folder

local WEAK = { __mode = "k" }
local MAX_FAILURES = 5

local Loader = {}
Loader.__index = Loader
Loader.__name = "lunashard.loader"

function Loader:__tostring()
  return ("lunashard.loader(%s)"):format(self.root)
end

-- ---- the folder ----------------------------------------------------------------------

-- Each file is read once in a look at the folder, however many require it.
local function caching_reader()
  local known = {}
  return function(path)
    local found = known[path]
    if not found then
      found = { source.read(path) }
      known[path] = found
    end
    return found[1], found[2], found[3]
  end
end

local function is_changed(slot, read)
  for path, held in pairs(slot.files) do
    local text, problem = read(path)
    if held ~= (text or "\0" .. problem) then
      return true
    end
  end
  return next(slot.files) == nil
end

-- Is a file among those that some plug-in is made of?
local function is_required(self, path)
  for other, slot in pairs(self.slots) do
    if other ~= path and slot.files[path] and slot.files[path]:sub(1, 1) ~= "\0" then
      return true
    end
  end
  return false
end

local function remove_slot(self, slot)
  local entry = slot.entry
  if not entry then
    self.slots[slot.path] = nil
    return
  end
  if slots.is_in_use(self, entry) then
    if slot.state ~= "missing" then
      slot.state, slot.problem, slot.files = "missing", slot.shown .. ": the file was removed while in use", {}
      slots.tell(self, slot, "kept", ("%s: the file was removed, but %s is in use; generation %d goes on serving"):format(
        slot.shown, slots.title(entry), entry.generation))
    end
    return
  end
  registry.remove(entry.kind, entry.name)
  self.slots[slot.path] = nil
  slots.tell(self, slot, "removed", ("%s: %s unloaded, the file was removed"):format(slot.shown, slots.title(entry)))
end

local function sorted_slots(self)
  local list = {}
  for _, slot in pairs(self.slots) do
    list[#list + 1] = slot
  end
  table.sort(list, function(a, b)
    return a.path < b.path
  end)
  return list
end

-- A file of a kind's folder that is neither a plug-in nor required by one is a mistake.
local function report_modules(self)
  for _, slot in ipairs(sorted_slots(self)) do
    if slot.module and is_required(self, slot.path) then
      slot.problem = nil
    elseif slot.module and slot.kind and not slot.problem then
      slots.refuse(self, slot, ("%s: %s"):format(slot.shown, "expected the file to return a plug-in (a table with api = 1, "
        .. "kind and name), or to be required by one"))
    end
  end
end

local function look(self, opts)
  local list, problem = folder.list(self.root)
  if not list then
    return nil, problem
  end
  local read, present = caching_reader(), {}
  for _, found in ipairs(list) do
    local slot = self.slots[found.path]
    if not slot then
      slot = {
        path = found.path,
        kind = found.kind, -- nil: any
        shown = self:show(found.path),
        trusted = self.trusted[found.path:match("([^/]+)%.lua$")] or false,
        files = {}, -- path -> what it held at the last load, or "\0" and why it could not be read
      }
      self.slots[found.path] = slot
    end
    local text, _, code = read(found.path)
    present[found.path] = text ~= nil or code ~= "ENOENT" -- it may have gone since the folder was listed
    local wanted = present[found.path] and (opts.path == nil or opts.path == found.path)
    local again = opts.by_hand and (slot.problem ~= nil or slot.state == "tripped" or opts.path ~= nil)
    if wanted and (again or is_changed(slot, read)) then
      local ok, err = pcall(slots.load, self, slot, read, opts)
      if not ok then -- the task was cancelled while tests waited: another look finds the change again
        slot.files = {}
        error(err, 0)
      end
    end
  end
  for _, slot in ipairs(self.closed and {} or sorted_slots(self)) do
    if not present[slot.path] then
      remove_slot(self, slot)
    end
  end
  report_modules(self)
  return true
end

Loader.tell = slots.tell

--- How a path of the folder is shown: from the folder's own name on.
-- @string path
-- @treturn string
function Loader:show(path)
  return (self.root:match("([^/]+)$") or self.root) .. path:sub(#self.root + 1)
end

--- Call a function while no other transaction is under way: tests wait, and must not meet another one's. Yields.
-- @tparam func fn
-- @param ... its arguments
-- @return what it returns
function Loader:alone(fn, ...)
  while self.busy do
    self.idle:wait()
  end
  self.busy = true
  local ok, value, err = pcall(fn, ...)
  self.busy = false
  self.idle:notify()
  if not ok then
    error(value, 0)
  end
  return value, err
end

--- Look at the folder, and load what has changed. Yields.
-- @tparam[opt] table opts `path`: only this file; `by_hand`: also those that failed before; `at_start`: what loads well is
--   not told of; `allow_placement_change`
-- @treturn[1] {table,...} the events
-- @treturn[2] nil
-- @treturn[2] string why the folder cannot be read
function Loader:look(opts)
  return self:alone(function()
    local told = {}
    self.told = told
    local ok, problem = look(self, opts)
    self.told = nil
    return ok and told, problem
  end)
end

-- ---- for managers ---------------------------------------------------------------------

--- What there is to say of each plug-in of the folder.
-- @treturn {table,...} `path`, `state` (`active`, `failed`: was never loaded; `tripped`, `failing`, `missing`: the file is
--   gone), `kind`, `name`, `generation`, `trusted`, `failures` (since it was loaded), `problem` (why the file as it is
--   does not serve)
function Loader:status()
  local list = {}
  for _, slot in ipairs(sorted_slots(self)) do
    local entry = slot.entry
    if entry or slot.problem then
      list[#list + 1] = {
        path = slot.path,
        kind = entry and entry.kind or slot.kind,
        name = entry and entry.name,
        generation = entry and entry.generation,
        trusted = entry and entry.trusted,
        failures = entry and entry.meter.failures,
        state = entry and (slot.state == "missing" and "missing" or entry.state) or "failed",
        problem = slot.problem,
      }
    end
  end
  return list
end

local function set_of(names)
  local set = {}
  for _, name in ipairs(names or {}) do
    set[name] = true
  end
  return set
end

-- What tells a folder from others: its path, but not where links lead, for that may change while it is in use.
local function identity(root)
  local real, why = system.realpath(root)
  if not real then
    return nil, ("plugins: %s: %s"):format(root, (why:gsub("^.*: ", "")))
  end
  local dir, name = ("./" .. root):match("^(.*)/([^/]+)/*$")
  if root:sub(1, 1) == "/" then
    dir = dir:sub(3)
  end
  dir = name ~= "." and name ~= ".." and system.realpath(dir == "" and "/" or dir)
  return dir and dir .. "/" .. name or real
end

-- Forget the plug-ins of a folder.
local function release(self)
  self.closed = true
  self:unwatch()
  loaders[self.id] = nil
  for _, slot in pairs(self.slots) do
    if slot.entry then
      registry.remove(slot.entry.kind, slot.entry.name)
    end
  end
  self.slots = {}
end

-- A name in trusted_plugins that no file has is a mistake, or the file comes later.
local function warn_of_strangers(self)
  local names = {}
  for path in pairs(self.slots) do
    names[path:match("([^/]+)%.lua$")] = true
  end
  for name in pairs(self.trusted) do
    if not names[name] then
      local near = errors.nearest(name, names)
      warn.emit(("trusted_plugins: there is no file %s.lua in %s%s"):format(name, self.root,
        near and ("; did you mean %q?"):format(near) or ""))
    end
  end
end

--- The loader of a folder, with everything in it loaded. Yields.
-- Files that fail are told of, and do not keep the others from being loaded.
-- @string root the folder
-- @tparam[opt] table opts `trusted`: list of names of files; `time`, `memory`: limits of a call; `failures`: after so many
--   in a row a version is taken out of service [5]
-- @treturn[1] Loader
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function loader.open(root, opts)
  opts = opts or {}
  local id, problem = identity(root)
  if not id then
    return nil, problem
  end
  local trusted = table.concat(opts.trusted or {}, " ")
  local limits = { time = opts.time, memory = opts.memory, failures = opts.failures or MAX_FAILURES }
  local self = loaders[id]
  if not self then
    self = setmetatable({
      root = (root:gsub("(.)/+$", "%1")),
      id = id,
      trusted_names = trusted,
      trusted = set_of(opts.trusted),
      limits = limits,
      managers = setmetatable({}, WEAK),
      slots = {}, -- by path
      generations = {}, -- the last of each plug-in, also of those that are gone
      busy = false,
      idle = task.event(),
    }, Loader)
    loaders[id] = self
    local ok, told
    ok, told, problem = pcall(self.look, self, { at_start = true })
    if not ok or not told then
      release(self)
      if not ok then -- cancelled while plug-ins were tried
        error(told, 0)
      end
      return nil, "plugins: " .. problem
    end
    warn_of_strangers(self)
  elseif self.trusted_names ~= trusted or self.limits.time ~= limits.time or self.limits.memory ~= limits.memory
    or self.limits.failures ~= limits.failures then
    return nil, ("plugins: %s is in use already, with other limits or trusted_plugins"):format(root)
  else
    self:alone(tostring, self) -- whoever loads it just now is waited for
    if self.closed then -- it was given up meanwhile
      return loader.open(root, opts)
    end
  end
  return self
end

--- Count a manager among those that use the folder.
-- @tparam Manager manager
function Loader:attach(manager)
  self.managers[manager] = true
end

--- Forget a manager. With the last one all of the folder's plug-ins are forgotten.
-- @tparam Manager manager
function Loader:detach(manager)
  self.managers[manager] = nil
  if next(self.managers) == nil then
    release(self)
  end
end

--- Load what changes in the folder as it changes, from now on.
function Loader:watch()
  if self.watching then
    return
  end
  local function follow()
    if not self.watching then
      return
    end
    local _, problem = self:look({})
    if problem and problem ~= self.last_problem then
      events.emit({ kind = "plugin", action = "refused", path = self.root, message = "plugins: " .. problem })
    end
    self.last_problem = problem
  end
  self.watching = watch.folder(self.root, follow)
  task.daemon(follow) -- for what has changed before
end

--- Leave the folder alone, until `lunashard.reload()`.
function Loader:unwatch()
  if self.watching then
    self.watching:close()
    self.watching = nil
  end
end

-- What is wrong with the files of the folder, for whoever misses one of its plug-ins.
local function failures_of(self)
  local texts = {}
  for _, slot in ipairs(self and sorted_slots(self) or {}) do
    texts[#texts + 1] = not slot.entry and slot.problem or nil
  end
  return #texts > 0 and (" (%s)"):format(table.concat(texts, "; ")) or ""
end

--- Bind a strategy to shards, and try the users' plug-ins in it. Yields.
-- @tparam Manager manager with `plugins` where it has a folder
-- @param given a strategy
-- @tparam {table,...} members
-- @tparam table tables
-- @treturn[1] table as from `binding.bind`
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function loader.bind(manager, given, members, tables)
  local strategies, message = binding.bind(given, members, tables)
  if not strategies then
    return nil, ("strategy: %s%s"):format(message, message:find("unknown strategy", 1, true)
      and failures_of(manager.plugins) or "")
  end
  local ok
  ok, message = bounds.try(strategies)
  if not ok then
    return nil, message
  end
  return strategies
end

-- The path of a file of the folder, however it is written, or of the plug-in of this name.
function Loader:resolve(given)
  local real = system.realpath(given)
  for _, found in ipairs(folder.list(self.root) or {}) do
    local slot = self.slots[found.path]
    if found.path == given or self:show(found.path) == given or real and real == system.realpath(found.path)
      or slot and slot.entry and slot.entry.name == given then
      return found.path
    end
  end
end

-- Adds what happened to `all`; gives the first failure.
local function reload_one(one, path, opts, all)
  local told, problem = one:look({ by_hand = true, path = path, allow_placement_change = opts.allow_placement_change })
  local failure = not told and errors.new("INVALID", { message = "plugins: " .. problem }) or nil
  for _, event in ipairs(told or {}) do
    all[#all + 1] = event
    failure = failure or event.error
  end
  return failure
end

local RELOAD = { path = "string", allow_placement_change = "boolean" }

--- Load what has changed in the plug-in folders of all managers, and try again what was refused. Yields.
-- @tparam[opt] table opts `path`: only this file, also when it is unchanged; `allow_placement_change = true`: there are no
--   rows yet that a new placement could lose
-- @treturn[1] {table,...} what happened, each with `action` (`loaded`, `reloaded`, `removed`, `kept`), `path`,
--   `plugin_kind`, `name`, `generation`, `message`
-- @treturn[2] nil; what was refused is as it was
-- @treturn[2] lunashard.error `PLUGIN_FAILED`, `PLACEMENT_CHANGED`, `INVALID`, with `events`, all that happened
function loader.reload(opts)
  opts = options_of.check(opts, RELOAD, "reload")
  local all, failure, found = {}, nil, opts.path == nil
  for _, one in pairs(loaders) do
    local path = opts.path and one:resolve(opts.path)
    found = found or path ~= nil
    if path or not opts.path then
      failure = reload_one(one, path, opts, all) or failure
    end
  end
  if not found then
    return nil, errors.new("INVALID", { message = ("reload: %s is no file of a plug-in folder in use"):format(opts.path) })
  elseif failure then
    return nil, errors.wrap(failure, { events = all })
  end
  return all
end

return loader
