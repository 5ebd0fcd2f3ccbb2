--- One file of a plug-in folder, and the version of a plug-in that it gave.
-- A slot has `path`, `shown` (the path in messages), `kind` (nil: any), `trusted`, `files` (path -> what it held at the last
-- load, or "\0" and why it could not be read), `entry` (the version that serves), `state`, `problem` (why the file as it is
-- does not serve).
-- @module lunashard.loader.slots

local back = require("lunashard.loader.back")
local budget = require("lunashard.plugin.budget")
local compile = require("lunashard.loader.compile")
local contract = require("lunashard.plugin.contract")
local errors = require("lunashard.errors")
local events = require("lunashard.events")
local registry = require("lunashard.plugin.registry")
local selftest = require("lunashard.plugin.selftest")
local swap = require("lunashard.loader.swap")
local system = require("lunashard.core.system")

local slots = {}

local LOAD_SHARE = 5 -- running a file may take a fifth of the time that `new` may: others wait meanwhile

--- Tell what happened to a file: to the log, to subscribers, and to each manager's `on_plugin`.
-- @tparam Loader self
-- @tparam table slot
-- @string action `loaded`, `reloaded`, `refused`, `removed`, `kept`, `tripped` or `failing`
-- @string message
-- @tparam[opt] table fields more of the event
function slots.tell(self, slot, action, message, fields)
  local event = { kind = "plugin", action = action, path = slot.path, message = message }
  if slot.entry then
    event.plugin_kind, event.name, event.generation = slot.entry.kind, slot.entry.name, slot.entry.generation
  end
  for name, value in pairs(fields or {}) do
    event[name] = value
  end
  if self.told then
    self.told[#self.told + 1] = event
  end
  events.emit(event)
  for manager in pairs(self.managers) do
    events.hand(manager.options.on_plugin, event)
  end
end

--- Refuse a file as it is now; what serves goes on.
-- @tparam Loader self
-- @tparam table slot
-- @string message
-- @tparam[opt] lunashard.error err
-- @treturn nil
function slots.refuse(self, slot, message, err)
  message = message:gsub("%c+", " ") -- one line, and nothing that a terminal obeys
  slot.problem = message
  local serving = slot.entry and slot.state ~= "missing"
    and ("; generation %d goes on serving"):format(slot.entry.generation) or ""
  slots.tell(self, slot, "refused", message .. serving, {
    error = err or errors.new("PLUGIN_FAILED", { message = message }),
  })
  return nil
end

--- What a plug-in is called in messages.
-- @tparam table entry or contract
-- @treturn string
function slots.title(entry)
  return ("%s %s"):format(entry.kind, entry.name)
end

--- The manager that uses a plug-in.
-- @tparam Loader self
-- @tparam table entry
-- @treturn ?Manager
function slots.is_in_use(self, entry)
  for manager in pairs(self.managers) do
    if swap.is_used(manager, entry) then
      return manager
    end
  end
end

-- What stands in the way of a plug-in of this kind and name in this file.
local function name_problem(self, slot, value)
  local where = slot.shown
  if registry.is_shipped(value.kind, value.name) then
    return ("%s: %s"):format(where, registry.taken(value.kind, value.name))
  end
  local present = registry.get(value.kind, value.name)
  if present and present.source ~= slot.path then
    return ("%s: %s is the plug-in of %s already"):format(where, slots.title(present), present.shown or present.source
      or "a script")
  end
  local before = slot.entry
  if before and (before.kind ~= value.kind or before.name ~= value.name) and slots.is_in_use(self, before) then
    return ("%s: it is %s %s now, but %s is in use"):format(where, value.kind, value.name, slots.title(before))
  end
end

-- A required file may lie among the plug-ins: it is none itself.
local function is_module(value)
  return type(value) == "table" and value.api == nil and value.kind == nil
end

-- Of all files that it is made of, whatever they are called here.
local function sha256_of(files)
  local sums = {}
  for _, held in pairs(files) do
    sums[#sums + 1] = held:sub(1, 1) ~= "\0" and system.sha256(held) or nil
  end
  table.sort(sums)
  return system.sha256(table.concat(sums, "\n"))
end

local function new_entry(self, slot, value)
  local good = slot.entry
  if good and good.state == "failing" then
    good = good.previous
  end
  local entry
  local limited, meter = budget.wrap(value, {
    trusted = slot.trusted,
    time = self.limits.time,
    memory = self.limits.memory,
    on_failure = function(err, in_a_row)
      back.note_failure(self, entry, err, in_a_row)
    end,
  })
  entry = registry.entry(limited, {
    source = slot.path,
    shown = slot.shown,
    sha256 = sha256_of(slot.files),
    generation = (self.generations[slots.title(value)] or 0) + 1,
    trusted = slot.trusted,
    meter = meter,
    previous = good and slots.title(good) == slots.title(value) and good or nil,
  })
  return entry
end

-- What can be tried without shards; a strategy is when it is bound.
local TRIAL = { aggregate = selftest.aggregate, extractor = selftest.extractor }

-- Read the file and make an entry of it.
local function read_entry(self, slot, read)
  local loaded, message, files = compile.run(slot.path, {
    root = self.root,
    kind = slot.kind,
    trusted = slot.trusted,
    time = (self.limits.time or budget.defaults.time) / LOAD_SHARE,
    memory = self.limits.memory,
    read = read,
  })
  slot.files = loaded and loaded.files or files
  if not loaded then
    return slots.refuse(self, slot, message)
  end
  slot.shown = loaded.shown
  local value = loaded.value
  if is_module(value) and not slot.entry then
    slot.module, slot.problem = true, nil
    return nil
  end
  slot.module = nil
  local ok, problem = contract.check(slot.kind, value, { path = loaded.shown, text = loaded.text })
  if not ok then
    return slots.refuse(self, slot, problem)
  end
  problem = name_problem(self, slot, value)
  if problem then
    return slots.refuse(self, slot, problem)
  end
  local entry = new_entry(self, slot, value)
  if TRIAL[value.kind] then
    ok, problem = TRIAL[value.kind](entry.contract)
    if not ok then
      return slots.refuse(self, slot, ("%s: %s: self-test: %s"):format(slot.shown, slots.title(value), problem))
    end
  end
  return entry
end

local function retire_name(entry, successor)
  if entry and (entry.kind ~= successor.kind or entry.name ~= successor.name) then
    registry.remove(entry.kind, entry.name)
  end
end

--- Load a file as it is now: one transaction. Yields.
-- @tparam Loader self
-- @tparam table slot
-- @tparam func read as `source.read`
-- @tparam table opts as for `swap.prepare`; `at_start`: tell of nothing but failures
-- @treturn ?table the entry that serves now; nil when it is refused, which was told
function slots.load(self, slot, read, opts)
  local entry = read_entry(self, slot, read)
  if not entry then
    return nil
  end
  local plans, err = swap.prepare(entry, self.managers, opts)
  if not plans then
    local message = err.message:find(slot.shown, 1, true) and err.message or ("%s: %s"):format(slot.shown, err.message)
    return slots.refuse(self, slot, message, err)
  end
  if self.closed then
    return nil
  end
  local before = slot.entry
  swap.commit(entry, plans)
  if entry.previous then
    entry.previous.previous = nil -- one version back is enough
  end
  retire_name(before, entry)
  self.generations[slots.title(entry)] = entry.generation
  slot.entry, slot.problem, slot.state = entry, nil, "active"
  if before or not opts.at_start then
    slots.tell(self, slot, before and "reloaded" or "loaded", ("%s: %s %s (generation %d)"):format(slot.shown, slots.title(entry),
      before and "reloaded" or "loaded", entry.generation))
  end
  return entry
end

return slots
