--- What a check-up found: each finding once, with the shards that it holds for, and what to do about it.
-- @module lunashard.checkup.findings

local findings = {}

local Findings = {}
Findings.__index = Findings

--- A list without findings.
-- @treturn Findings
function findings.new()
  return setmetatable({ list = {}, by_text = {} }, Findings)
end

--- Add one; of the same on several shards one is made.
-- @string level `error`: it does not work, or rows will be lost or not found; `warning`
-- @string area `file`, `servers`, `rights`, `schema`, `keys` or `plugins`
-- @string ?shard_id nil: of the whole cluster
-- @string what is wrong, in one line
-- @string remedy what to do
function Findings:add(level, area, shard_id, what, remedy)
  local text = table.concat({ level, area, what, remedy }, "\0")
  local found = self.by_text[text]
  if not found then
    found = { level = level, area = area, shards = {}, what = what, remedy = remedy }
    self.by_text[text], self.list[#self.list + 1] = found, found
  end
  found.shards[#found.shards + 1] = shard_id
end

--- How many there are of a level.
-- @string level
-- @treturn int
function Findings:count(level)
  local n = 0
  for _, one in ipairs(self.list) do
    n = n + (one.level == level and 1 or 0)
  end
  return n
end

--- The list, errors first.
-- @treturn {table,...} `level`, `area`, `shards` (names; none: the whole cluster), `what`, `remedy`
function Findings:sorted()
  local sorted = {}
  for _, level in ipairs({ "error", "warning" }) do
    for _, one in ipairs(self.list) do
      sorted[#sorted + 1] = one.level == level and one or nil
    end
  end
  return sorted
end

return findings
