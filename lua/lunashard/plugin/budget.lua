--- What one call of a plug-in may take: time and memory.
-- A call that takes longer, or more, is stopped wherever it is and becomes a `PLUGIN_FAILED`; so
-- does whatever else goes wrong in it. Time is the processor's, so that a plug-in is not stopped
-- for what others do, and is looked at every 10 ms; memory is what the call took and did not give
-- back, garbage included. A limited function cannot wait.
--
-- Plug-ins that are trusted are called as they are.
-- @module lunashard.plugin.budget

jit.off(true, true) -- loops of compiled code see no limit

local basics = require("lunashard.plugin.basics")
local core = require("lunashard.core.budget")
local errors = require("lunashard.errors")
local strings = require("lunashard.plugin.strings")
local warn = require("lunashard.warn")

local budget = {}

--- What there is by default.
-- @table defaults
-- @field time seconds of processor time for one call; `new` and others that work on everything at
--   once have ten times as much
-- @field memory bytes
budget.defaults = { time = 0.05, memory = 64 * 1024 * 1024 }

--- What a plug-in's environment has in place of Lua's functions of the same names.
budget.library = {
  pcall = basics.pcall,
  xpcall = basics.xpcall,
  coroutine = basics.coroutine,
  string = strings,
  table = basics.table,
}

-- Functions that see all shards, keys or rows, not one; they are not called for each statement.
local LARGE = { new = true, upgrade = true, plan = true, aggregate = true, merge = true, finish = true }
local LARGE_TIMES = 10

-- Functions whose answer is used as a key or printed.
local PLAIN = { strategy = { bucket = true, place = true, route = true } }

local MAX_MESSAGE = 500
local OWN_SOURCES = "lua/lunashard/"

local function bytes_text(n)
  if n >= 1048576 then
    return ("%g MiB"):format(n / 1048576)
  end
  return n >= 1024 and ("%g KiB"):format(n / 1024) or ("%d bytes"):format(n)
end

local function message_of(reason, value, limits, where)
  if reason == "time" then
    return ("ran longer than %g ms and was stopped%s"):format(limits.time * 1000, where ~= "" and " at " .. where or "")
  elseif reason == "memory" then
    return ("took more than %s of memory and was stopped"):format(bytes_text(limits.memory))
  elseif reason == "returned" then
    return ("returned a %s; expected a number or a text"):format(value)
  end
  local text = errors.is(value) and value.message or tostring(value)
  if text:find("attempt to yield across", 1, true) then
    text = text .. " (a plug-in cannot wait)"
  end
  return #text > MAX_MESSAGE and text:sub(1, MAX_MESSAGE) .. "..." or text
end

-- What is raised in place of a failure of the function `name`.
local function failure_of(owner, name, limits)
  return function(reason, value, traceback, in_a_row, where)
    local err = errors.new("PLUGIN_FAILED", {
      message = ("%s: %s: %s"):format(owner.label, name, message_of(reason, value, limits, where)),
      cause = reason == "raised" and value or nil,
      traceback = reason == "raised" and traceback or nil,
      limit = (reason == "time" or reason == "memory") and reason or nil,
    })
    local meter = owner.meter
    meter.failures, meter.last_error = meter.failures + 1, err
    if owner.on_failure then
      local ok, problem = pcall(owner.on_failure, err, in_a_row, name)
      if not ok then
        warn.emit(("%s: after its failure: %s"):format(owner.label, tostring(problem)))
      end
    end
    return err
  end
end

local function limit(owner, name, fn, limits, plain)
  return core.limit(fn, failure_of(owner, name, limits), strings, limits.time, limits.memory, plain)
end

--- Keep a function, and all that are written within it, from the compiler, in whose code nothing
-- could stop a loop. For a plug-in's whole file before it is run.
-- @tparam function fn
-- @treturn function the same
function budget.confine(fn)
  local info = debug.getinfo(fn, "S")
  if info.what ~= "C" and not info.source:find(OWN_SOURCES, 1, true) then
    jit.off(fn, true)
  end
  return fn
end

--- A contract whose functions are called within limits.
-- @tparam table contract
-- @tparam[opt] table opts
--
-- - `time`, `memory`: see @{defaults}
-- - `trusted`: give the contract back as it is
-- - `on_failure`: `on_failure(err, in_a_row, function_name)` after each failure, where `in_a_row` counts
--   the calls of that function since one succeeded; must not wait
-- @treturn table the contract to be called
-- @treturn table `failures`, how many there were, and `last_error`
function budget.wrap(contract, opts)
  opts = opts or {}
  local meter = { failures = 0 }
  if opts.trusted then
    return contract, meter
  end
  local limits = { time = opts.time or budget.defaults.time, memory = opts.memory or budget.defaults.memory }
  local large = { time = limits.time * LARGE_TIMES, memory = limits.memory }
  local owner = {
    label = ("%s %s"):format(tostring(contract.kind), tostring(contract.name)),
    on_failure = opts.on_failure,
    meter = meter,
  }
  local plain = PLAIN[contract.kind] or {}
  local wrapped = {}
  for name, value in pairs(contract) do
    if type(value) == "function" then
      value = limit(owner, name, budget.confine(value), LARGE[name] and large or limits, plain[name])
    end
    wrapped[name] = value
  end
  return wrapped, meter
end

--- Call a function within limits, such as the file of a plug-in: it has as much time as `new`.
-- @string label what it is, for messages
-- @tparam[opt] table opts `time`, `memory` as for @{wrap}
-- @tparam function fn
-- @param ... its arguments
-- @treturn[1] boolean true
-- @return[1] what it returned
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLUGIN_FAILED`
function budget.call(label, opts, fn, ...)
  opts = opts or {}
  local limits = {
    time = (opts.time or budget.defaults.time) * LARGE_TIMES,
    memory = opts.memory or budget.defaults.memory,
  }
  local function report(reason, value, traceback, _, where)
    return errors.new("PLUGIN_FAILED", {
      message = ("%s: %s"):format(label, message_of(reason, value, limits, where)),
      cause = reason == "raised" and value or nil,
      traceback = reason == "raised" and traceback or nil,
      limit = reason ~= "raised" and reason or nil,
    })
  end
  local function answer(ok, ...)
    if ok then
      return true, ...
    end
    return nil, (...)
  end
  return answer(pcall(core.limit(budget.confine(fn), report, strings, limits.time, limits.memory), ...))
end

return budget
