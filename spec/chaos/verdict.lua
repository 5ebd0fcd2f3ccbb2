--- Is what was acknowledged true? Checks histories against each other and against the rows that are there in the end.
--
-- *Registers*: each write adds 1 to its key's version and gets the new one back, so versions are the order of writes.
-- With that order given, a key's history is linearizable exactly when no two writes have the same version, every read
-- has the value that was written with its version, and whatever ended before an operation began has a version that the
-- operation sees or surpasses. Versions that nobody was told of must be explained by writes of unknown outcome, each
-- of which may have happened once.
--
-- *Tokens*: rows that are inserted and deleted; one whose fate is known is there exactly once, or not at all.
--
-- *Counters* of such rows, each counted up by one worker alone: every answer, and the row in the end, has as many steps as
-- were acknowledged, and at most those of unknown outcome more. *Sweeps* count up all rows of all shards.
--
-- *Accounts and families*: whoever reads all rows of a key, or of all keys, sees the sum that every transaction keeps.
--
-- *Answers* that are for routers: what a shard says of its buckets is tried again, or told in other words.
--
-- What was not seen at all proves nothing: `demand` names what must have been done.
-- @module spec.chaos.verdict

local verdict = {}

--- What can be wrong, in the order of the table.
verdict.COLUMNS = { "lost", "duplicated", "resurrected", "stale", "wrong_read", "wrong_scatter", "leaked", "stray",
  "leftovers", "unproved" }

local Verdict = {}
Verdict.__index = Verdict

local MOST_TOLD = 20

--- Nothing found yet.
function verdict.new()
  local self = setmetatable({ counts = {}, told = {}, acknowledged = 0, unknown = 0, failed = 0, reads = 0 }, Verdict)
  for _, column in ipairs(verdict.COLUMNS) do
    self.counts[column] = 0
  end
  return self
end

--- Something is wrong.
-- @string column one of `COLUMNS`
-- @string text
function Verdict:blame(column, text, ...)
  self.counts[column] = self.counts[column] + 1
  if #self.told < MOST_TOLD then
    self.told[#self.told + 1] = column .. ": " .. text:format(...)
  end
end

--- Is everything as it was acknowledged?
-- @treturn boolean
function Verdict:is_clean()
  for _, n in pairs(self.counts) do
    if n > 0 then
      return false
    end
  end
  return true
end

local function group_by_key(ops, kinds)
  local keys = {}
  for _, op in ipairs(ops) do
    if kinds[op.kind] then
      keys[op.key] = keys[op.key] or {}
      table.insert(keys[op.key], op)
    end
  end
  return keys
end

-- ---- registers ------------------------------------------------------------------------

-- The highest version that had been told of before a time: for ops sorted by when they ended.
local function check_order(self, key, known)
  local ends, begins = {}, {}
  for i, op in ipairs(known) do
    ends[i], begins[i] = op, op
  end
  table.sort(ends, function(a, b) return a.ended < b.ended end)
  table.sort(begins, function(a, b) return a.began < b.began end)
  local seen, by, n = 0, { process = "the start" }, 1 -- every register is there from the start
  for _, op in ipairs(begins) do
    while ends[n] and ends[n].ended < op.began do
      if ends[n].version > seen then
        seen, by = ends[n].version, ends[n]
      end
      n = n + 1
    end
    local too_low = op.kind == "write" and op.version <= seen or op.kind == "read" and op.version < seen
    if too_low then
      self:blame(op.kind == "write" and "lost" or "stale",
        "key %s: a %s by %s got version %d after %s had got version %d", key, op.kind, op.process, op.version,
        by.process, seen)
    end
  end
end

local function check_register(self, key, ops, final)
  local writers, maybe, known, highest = {}, {}, {}, 0
  for _, op in ipairs(ops) do
    if op.kind == "write" and op.outcome == "ok" then
      if writers[op.version] then
        self:blame("lost", "key %s: version %d was given to writes by %s and %s", key, op.version, op.process,
          writers[op.version].process)
      end
      writers[op.version] = op
      highest = math.max(highest, op.version)
      known[#known + 1] = op
    elseif op.kind == "write" and op.outcome == "unknown" then
      maybe[op.value] = op
    elseif op.kind == "read" and op.outcome == "ok" then
      known[#known + 1] = op
    end
  end
  local holes, unknown, explained = 0, 0, {}
  for _ in pairs(maybe) do
    unknown = unknown + 1
  end
  local function check_value(version, value, what, ended)
    local writer = version > 0 and writers[version]
    if version == 0 then
      if value ~= "start" then
        self:blame("wrong_read", "key %s: version 0 has the value %s in %s", key, value, what)
      end
    elseif writer then
      if writer.value ~= value or writer.began > ended then
        self:blame("wrong_read", "key %s: version %d was written as %s, but %s has %s", key, version, writer.value, what,
          value)
      end
    elseif not maybe[value] or maybe[value].began > ended or (explained[value] or version) ~= version then
      self:blame("resurrected", "key %s: %s has version %d with the value %s, which nobody wrote then", key, what, version,
        value)
    else
      explained[value] = version
    end
  end
  for _, op in ipairs(known) do
    if op.kind == "read" then
      check_value(op.version, op.value, "a read by " .. op.process, op.ended)
    end
  end
  check_order(self, key, known)
  if not final then
    self:blame("lost", "key %s: its register is gone", key)
    return
  elseif final.version < highest then
    self:blame("lost", "key %s: version %d was acknowledged, in the end there is %d", key, highest, final.version)
  end
  check_value(final.version, final.value, "the row in the end", math.huge)
  for version = 1, final.version do
    holes = holes + (writers[version] and 0 or 1)
  end
  if holes > unknown then
    self:blame("duplicated", "key %s: %d versions that nobody was told of, by %d writes of unknown outcome", key, holes,
      unknown)
  end
end

--- Check the registers.
-- @tparam {table,...} ops of all processes
-- @tparam table final key -> `version`, `value`, of every key
function Verdict:check_registers(ops, final)
  local keys = group_by_key(ops, { write = true, read = true })
  for key, row in pairs(final) do
    check_register(self, key, keys[key] or {}, row)
    keys[key] = nil
  end
  for key, list in pairs(keys) do
    check_register(self, key, list, nil)
  end
end

-- ---- tokens ---------------------------------------------------------------------------

--- Check the tokens.
-- @tparam {table,...} ops
-- @tparam table final token -> how many rows of it there are over all shards
function Verdict:check_tokens(ops, final)
  local inserted, deleted = {}, {}
  for _, op in ipairs(ops) do
    if op.kind == "insert" then
      inserted[op.token] = op.outcome
    elseif op.kind == "delete" then
      if op.outcome == "ok" and op.rows == 0 and deleted[op.token] ~= "unknown" then
        self:blame("lost", "token %s was not there to be deleted by %s", op.token, op.process)
      end
      deleted[op.token] = op.outcome ~= "no" and op.outcome or deleted[op.token]
    end
  end
  for token, fate in pairs(inserted) do
    local there, gone = final[token] or 0, deleted[token]
    if there > 1 then
      self:blame("duplicated", "token %s is there %d times", token, there)
    elseif there == 0 and fate == "ok" and gone == nil then
      self:blame("lost", "token %s is not there", token)
    elseif there > 0 and (fate == "no" or gone == "ok") then
      self:blame("resurrected", "token %s is there, though %s", token, fate == "no" and "its INSERT had failed"
        or "it was deleted")
    end
  end
  for token in pairs(final) do
    if not inserted[token] then
      self:blame("resurrected", "token %s was never inserted", token)
    end
  end
end

-- ---- counters -------------------------------------------------------------------------

local function check_counter(self, name, start, steps, row)
  local sure, maybe = start, 0
  local function check_value(value, what)
    if value < sure then
      self:blame("lost", "%s: %s has %s, and %s was acknowledged", name, what, tostring(value), tostring(sure))
    elseif value > sure + maybe then
      self:blame("duplicated", "%s: %s has %s, which is beyond %s and %d of unknown outcome", name, what, tostring(value),
        tostring(sure), maybe)
    end
  end
  for _, op in ipairs(steps) do
    if op.outcome == "ok" then
      sure = sure + 1
      if op.n then
        check_value(op.n, "an answer to " .. op.process)
      end
    elseif op.outcome == "unknown" then
      maybe = maybe + 1
    end
  end
  if row then
    check_value(row, "the row in the end")
  end
end

--- Check what is counted up.
-- @tparam {table,...} ops steps of one counter are in the order in which they were done
-- @tparam table counters token -> row with the counters `n` and `id`
-- @tparam table sweeps key -> row with `n`
function Verdict:check_counters(ops, counters, sweeps)
  local starts, steps, sweeping = {}, {}, {}
  for _, op in ipairs(ops) do
    if op.kind == "insert" and op.id_at then
      starts[op.token] = { n = 0, id = op.id_at }
    elseif op.kind == "step" then
      local name = op.token .. " " .. op.counter
      steps[name] = steps[name] or { token = op.token, counter = op.counter }
      table.insert(steps[name], op)
    elseif op.kind == "sweep" then
      table.insert(sweeping, op)
    end
  end
  for name, list in pairs(steps) do
    local row = counters[list.token]
    check_counter(self, name, starts[list.token][list.counter], list, row and row[list.counter])
  end
  for token, row in pairs(counters) do
    for counter, start in pairs(starts[token] or {}) do
      if not steps[token .. " " .. counter] then
        check_counter(self, token .. " " .. counter, start, {}, row[counter])
      end
    end
  end
  for key, row in pairs(sweeps) do
    check_counter(self, "sweeps of key " .. tostring(key), 0, sweeping, row.n)
  end
end

-- ---- sums -----------------------------------------------------------------------------

--- Check reads that add up what transactions keep.
-- @tparam {table,...} ops of the kinds `sum` (of a key), `family` and `scatter`, each with `seen` and `expected`
function Verdict:check_sums(ops)
  for _, op in ipairs(ops) do
    if op.expected and op.outcome == "ok" and op.seen ~= op.expected then
      self:blame(op.kind == "scatter" and "wrong_scatter" or "wrong_read", "%s saw %s for %s in %s of %s", op.process,
        tostring(op.seen), tostring(op.expected), op.kind, tostring(op.key or "all keys"))
    end
  end
end

-- ---- answers ---------------------------------------------------------------------------

-- What shards refuse by way of these, routers (LS001, LS003) and movers (LS005) have to deal with. The only one for
-- users is LS004: TRUNCATE cannot be done while rows move.
local FOR_ROUTERS = { LS001 = true, LS002 = true, LS003 = true, LS005 = true }

--- Check that nobody was given an answer that was for the router.
-- @tparam {table,...} ops with `states`: SQLSTATEs, of those that failed
function Verdict:check_answers(ops)
  for _, op in ipairs(ops) do
    for _, state in ipairs(op.states or {}) do
      if FOR_ROUTERS[state] then
        self:blame("leaked", "%s was given %s for a %s of %s: %s", op.process, state, op.kind, tostring(op.key or "all keys"),
          tostring(op.message))
      end
    end
  end
end

local WRITES = { write = true, insert = true, delete = true, transfer = true, adopt = true, step = true, sweep = true }

--- Each of these must have been seen, or the run proves nothing of it.
-- @tparam {table,...} ops
-- @tparam {string,...} kinds
function Verdict:demand(ops, kinds)
  local seen = {}
  for _, op in ipairs(ops) do
    seen[op.kind] = seen[op.kind] or op.outcome == "ok"
  end
  for _, kind in ipairs(kinds) do
    if not seen[kind] then
      self:blame("unproved", "not one %s was acknowledged", kind)
    end
  end
end

--- Count what was done.
-- @tparam {table,...} ops
function Verdict:count(ops)
  for _, op in ipairs(ops) do
    if not WRITES[op.kind] then
      self.reads = self.reads + (op.outcome == "ok" and 1 or 0)
    elseif op.outcome == "ok" then
      self.acknowledged = self.acknowledged + 1
    elseif op.outcome == "unknown" then
      self.unknown = self.unknown + 1
    else
      self.failed = self.failed + 1
    end
  end
end

return verdict
