--- Going back from a version of a plug-in that fails again and again to the one before it.
-- @module lunashard.loader.back

local registry = require("lunashard.plugin.registry")
local swap = require("lunashard.loader.swap")
local task = require("lunashard.task")

local back = {}

local function go_back(self, slot, entry, err)
  local good = entry.previous
  local failed = ("%s: failed %d times in a row, the last time so: %s"):format(slot.shown, entry.failures, err.message)
  if not good then
    entry.state, slot.problem = "failing", failed
    return self:tell(slot, "failing", failed .. "; there is no earlier version to go back to", { error = err })
  end
  local restored = registry.entry(good.contract, {
    source = slot.path,
    shown = slot.shown,
    generation = good.generation,
    trusted = good.trusted,
    meter = good.meter,
    sha256 = good.sha256,
    state = "tripped",
    tripped = { generation = entry.generation, message = failed },
  })
  local plans, why = swap.prepare(restored, self.managers, { is_known = true, what = "going back to an earlier version of" })
  if self.closed then
    return
  elseif not plans then
    entry.state, slot.problem = "failing", failed
    return self:tell(slot, "failing", ("%s; it cannot be gone back from: %s"):format(failed, why.message), { error = why })
  end
  swap.commit(restored, plans)
  slot.entry, slot.state, slot.problem = restored, "tripped", failed
  self:tell(slot, "tripped", ("%s; back to generation %d"):format(failed, restored.generation), { error = err })
end

-- Take a version that fails again and again out of service, for the one before it. Yields.
local function trip(self, entry, err)
  self:alone(function()
    local slot = self.slots[entry.source]
    entry.is_tripping = false
    if slot and slot.entry == entry and entry.state == "active" then
      go_back(self, slot, entry, err)
    end
  end)
end

--- Take note that a function of a plug-in failed. Does not wait.
-- @tparam Loader self
-- @tparam table entry the version
-- @tparam lunashard.error err
-- @tparam number in_a_row calls of this function since one succeeded
function back.note_failure(self, entry, err, in_a_row)
  if not entry or self.busy or registry.get(entry.kind, entry.name) ~= entry then
    return -- it is being tried, or compared with another one, or served before
  end
  entry.failures = in_a_row
  if in_a_row >= self.limits.failures and entry.state == "active" and not entry.is_tripping then
    entry.is_tripping = true
    task.daemon(trip, self, entry, err)
  end
end

return back
