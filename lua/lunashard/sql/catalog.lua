--- What one database says about the functions, operators and relations that statements name.
-- Facts are learned when they are first asked for, all unknown names in one query, and asked for anew, again in one
-- query, when they are old. One query runs at a time.
-- @module lunashard.sql.catalog

local errors = require("lunashard.errors")
local question = require("lunashard.sql.question")
local task = require("lunashard.task")

local catalog = {}

local TTL = 60
local MAX_NAMES = 20000
local MAX_REFUSALS = 3

local Catalog = {}
Catalog.__index = Catalog

local function no_facts()
  local facts = {}
  for _, kind in ipairs(question.kinds) do
    facts[kind] = {}
  end
  return facts
end

local function drop(self)
  self.generation = self.generation + 1
  self.facts = no_facts()
  self.n_names = 0
  self.refusals = 0
  self.expires = math.huge
end

--- What is known of one database: nothing yet.
-- Its field `expires` is the time, on its clock, from which on a `refresh` is due.
-- @tparam function run `run(sql, params)` runs a read on that database, and gives its rows or `nil, err`
-- @tparam[opt] table options `clock` [`lunashard.now`], a function; `ttl` [60], seconds that a fact is believed;
--   `changed`, called when what was concluded from facts may be wrong from now on
-- @treturn Catalog
function catalog.new(run, options)
  options = options or {}
  local self = setmetatable({
    run = run,
    clock = options.clock or task.now,
    ttl = options.ttl or TTL,
    changed = options.changed or function() end,
    busy = false,
    generation = 0,
  }, Catalog)
  drop(self)
  return self
end

--- Forget everything, what is being asked right now included: for after a change of the schema.
function Catalog:forget()
  drop(self)
  self.changed()
end

-- Ask for names: kind -> set of names. Yields. Gives facts: for each name a list, perhaps an empty one.
local function ask(self, wanted)
  local generation = self.generation
  self.busy = true
  local ok, rows, err = pcall(self.run, question.compose(wanted))
  self.busy = false
  if not ok then
    error(rows, 0)
  elseif not rows then
    return nil, err
  elseif generation ~= self.generation then
    return nil, errors.new("CANCELED", { message = "what was asked has been forgotten meanwhile" })
  end
  local facts = no_facts()
  for kind, names in pairs(wanted) do
    for name in pairs(names) do
      facts[kind][name] = {}
    end
  end
  for _, row in ipairs(rows) do
    local list = facts[row.kind][row.name]
    list[#list + 1] = row
  end
  return facts
end

local function as_text(fact)
  return table.concat({
    fact.schema or "", fact.detail or "", tostring(fact.volatile), tostring(fact.takes_row),
    table.concat(fact.texts or {}, "\1"),
  }, "\0")
end

local function same_list(one, other)
  if #one ~= #other then
    return false
  end
  local texts = {}
  for _, fact in ipairs(one) do
    texts[as_text(fact)] = true
  end
  for _, fact in ipairs(other) do
    if not texts[as_text(fact)] then
      return false
    end
  end
  return true
end

local function same_facts(old, new)
  for kind, names in pairs(old) do
    for name, list in pairs(names) do
      if not same_list(list, new[kind][name]) then
        return false
      end
    end
  end
  return true
end

--- Ask anew for all that is known, when `expires` has come. Yields. The old facts serve until the new ones are
-- there; when these cannot be had several times in a row, everything is forgotten.
function Catalog:refresh()
  if self.busy or self.clock() < self.expires then
    return
  elseif self.n_names > MAX_NAMES then
    self:forget()
    return
  end
  local ok, facts = pcall(ask, self, self.facts)
  if ok and facts then
    local same = same_facts(self.facts, facts)
    self.facts, self.refusals, self.expires = facts, 0, self.clock() + self.ttl
    if not same then
      self.changed()
    end
    return
  end
  self.refusals = self.refusals + 1
  if self.refusals == MAX_REFUSALS then
    self:forget()
  else
    self.expires = self.clock() + self.ttl / 10
  end
  if not ok then
    error(facts, 0)
  end
end

--- Learn names. Yields.
-- @tparam table wanted sets of names by kind: see `lunashard.sql.question`
-- @treturn[1] boolean true: each name now has its list of facts, perhaps an empty one
-- @treturn[2] nil
-- @treturn[2] lunashard.error nothing was learned
function Catalog:learn(wanted)
  local facts, err = ask(self, wanted)
  if not facts then
    return nil, err
  end
  for kind, names in pairs(facts) do
    for name, list in pairs(names) do
      self.facts[kind][name] = list
      self.n_names = self.n_names + 1
    end
  end
  self.expires = math.min(self.expires, self.clock() + self.ttl)
  return true
end

return catalog
