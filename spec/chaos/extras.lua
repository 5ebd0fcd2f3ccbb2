--- What the routers of a chaos run do with the table `extras`, whose rows have large values and values of many types, and are
-- given other primary keys; and with all rows of `sweeps`, on all shards at once.
-- @module spec.chaos.extras

local errors = require("lunashard.errors")
local worker = require("spec.chaos.worker")
local world = require("spec.chaos.world")

local extras = {}

local IDS = 1000 -- for one row: its primary key is counted up

--- A row with a token of its own.
function extras.insert(self, key)
  local token = self:unique()
  local id = self.number * 1e9 + self.n * IDS
  local done = self:told("insert", { key = key, token = token, id_at = id }, function()
    local result, err = self:run(key, world.INSERT_EXTRA, { key, id, token, math.random(3) == 1 and 3000 or 300 })
    return result and {}, err
  end)
  if done then
    table.insert(self.extras, { key = key, token = token, steps = 0 })
  end
end

local function step(self, counter)
  local one = self.extras[math.random(math.max(1, #self.extras))]
  if not one or one.steps == IDS - 1 then
    return
  end
  one.steps = one.steps + 1
  self:told("step", { key = one.key, token = one.token, counter = counter }, function()
    local result, err = self:run(one.key, ("UPDATE extras SET %s = %s + 1 WHERE k = $1 AND token = $2 RETURNING %s AS n")
      :format(counter, counter, counter), { one.key, one.token })
    local row = result and result.rows[1]
    return result and { n = row and row.n or -1 }, err
  end)
end

--- A change that leaves large values where they are.
function extras.touch(self)
  step(self, "n")
end

--- Another primary key for a row.
function extras.rekey(self)
  step(self, "id")
end

function extras.delete(self)
  local one = worker.take(self.extras)
  if one then
    self:told("delete", { key = one.key, token = one.token }, function()
      local result, err = self:run(one.key, "DELETE FROM extras WHERE k = $1 AND token = $2", { one.key, one.token })
      return result and { rows = result.row_count }, err
    end)
  end
end

--- Are the values of a key's rows what they were when they were written?
function extras.read(self, key)
  self:told("whole", { key = key, expected = 0 }, function()
    local result, err = self.router:execute(("SELECT count(*) FILTER (WHERE NOT %s) AS n FROM extras WHERE k = $1")
      :format(world.IS_WHOLE), { key }, self:for_key(key))
    return result and { seen = tonumber(assert(result.rows[1], "a count has one row").n) }, err
  end)
end

-- Before anything was sent.
local REFUSALS = { JOB_OPEN = true, STALE_MAP = true }

--- A write on all rows of all shards. Where it fails, some shards may have done it.
function extras.sweep(self)
  self:told("sweep", {}, function()
    local result, err = self.router:execute("UPDATE sweeps SET n = n + 1", nil, { all_shards = true, timeout = self.timeout })
    if err and not REFUSALS[err.code] then
      err = errors.wrap(err, { code = "UNKNOWN_OUTCOME" })
    end
    return result and {}, err
  end)
end

return extras
