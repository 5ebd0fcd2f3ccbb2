--- The self-test of aggregates, on the rows of three shards.
-- What an aggregate's options and columns are nobody knows here: rows have a value in every column, and what a plug-in
-- does not take of that is no violation. Where it does take it, the answer may not depend on how the rows are dealt out.
-- @module lunashard.plugin.selftest.aggregate

local errors = require("lunashard.errors")
local inspect = require("inspect")

local test = {}

local NOT_TRIED = "it was not tried: "
local TOLERANCE = 1e-9

-- What its users may pass to it.
local ARGUMENTS = { {}, { "value" }, { { "value" } }, { { value = "value" } }, { "value", 1 }, { 2 } }

-- A row that has, besides some columns, whatever is asked of it.
local function row_of(make, i)
  local row = { id = make(i), value = make(i), count = make(i), total = make(i), name = make(i) }
  return setmetatable(row, { __index = function(_, column)
    return type(column) == "string" and make(i) or nil
  end })
end

local KINDS = {
  function(i) return i end,
  function(i) return ("%d"):format(i) end,
  function(i) return ("2024-02-%02d"):format(i) end,
  function(i) return i % 2 == 0 end,
}

local function shards_of(make)
  local shards = {}
  for shard = 1, 3 do
    shards[shard] = {}
    for i = 1, 3 do
      shards[shard][i] = row_of(make, (shard * 5 + i * 7) % 11 + 1)
    end
  end
  return shards
end

local function equal(a, b)
  if type(a) == "number" and type(b) == "number" then
    return a == b or a ~= a and b ~= b or math.abs(a - b) <= TOLERANCE * math.max(math.abs(a), math.abs(b))
  elseif type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for key, value in pairs(a) do
    if not equal(value, b[key]) then
      return false
    end
  end
  for key in pairs(b) do
    if a[key] == nil then
      return false
    end
  end
  return true
end

local function shown(value)
  local text = inspect(value, { newline = " ", indent = "" })
  return #text > 80 and text:sub(1, 77) .. "..." or text
end

-- What the plug-in returned, unless that is nothing at all: raises `{ violation }`, or `{ refusal }` for an error of its
-- own.
local function must(what, returned, value, err)
  if value ~= nil then
    return value
  elseif err ~= nil then
    error({ refusal = ("%s: %s"):format(what, errors.is(err) and err.message or tostring(err)) }, 0)
  end
  error({ violation = ("%s must return %s, not nothing"):format(what, returned) }, 0)
end

local Trial = {}
Trial.__index = Trial

function Trial:empty()
  return must("init", "an accumulator", self.contract.init(self.options))
end

function Trial:fed(acc, number)
  for _, row in ipairs(self.shards[number]) do
    acc = must("step", "the accumulator", self.contract.step(acc, row, "shard" .. number, {}))
  end
  return acc
end

function Trial:of(number)
  return self:fed(self:empty(), number)
end

function Trial:merge(a, b)
  return must("merge", "the accumulator", self.contract.merge(a, b))
end

function Trial:finish(acc)
  local value = must("finish", "a row or a list of rows", self.contract.finish(acc))
  if type(value) ~= "table" then
    error({ violation = ("finish must return a row or a list of rows, not a %s"):format(type(value)) }, 0)
  end
  return value
end

function Trial:agree(what, a, b)
  local one, other = self:finish(a), self:finish(b)
  if not equal(one, other) then
    error({ violation = ("%s: %s, then %s"):format(what, shown(one), shown(other)) }, 0)
  end
end

function Trial:reducer()
  local whole = self:empty()
  for number = 1, #self.shards do
    whole = self:fed(whole, number)
  end
  self:agree("merging the shards' rows gives another result than taking them one by one", whole,
    self:merge(self:merge(self:of(1), self:of(2)), self:of(3)))
  self:agree("merge must not depend on which two are merged first",
    self:merge(self:merge(self:of(1), self:of(2)), self:of(3)), self:merge(self:of(1), self:merge(self:of(2), self:of(3))))
  self:agree("merge with an empty accumulator changes the result", self:of(1), self:merge(self:of(1), self:empty()))
  self:agree("merge into an empty accumulator changes the result", self:of(1), self:merge(self:empty(), self:of(1)))
end

function Trial:function_of_results()
  local results = {}
  for number, rows in ipairs(self.shards) do
    results[number] = { success = true, shard_id = "shard" .. number, rows = rows, row_count = #rows, columns = {},
      column_types = {} }
  end
  local value = must("aggregate", "a row or a list of rows", self.contract.aggregate(self.options, results))
  if type(value) ~= "table" then
    error({ violation = ("aggregate must return a row or a list of rows, not a %s"):format(type(value)) }, 0)
  end
end

-- "passed"; "violation" or "not tried" and why.
local function try(contract, arguments, make)
  local ok, raised = pcall(function()
    local trial = setmetatable({ contract = contract, shards = shards_of(make) }, Trial)
    trial.options = arguments[1]
    if contract.new then
      trial.options = contract.new(unpack(arguments))
    end
    if contract.aggregate then
      trial:function_of_results()
    else
      trial:reducer()
    end
  end)
  if ok then
    return "passed"
  elseif type(raised) == "table" and raised.violation then
    return "violation", raised.violation
  elseif errors.is(raised, "CANCELED") then
    error(raised, 0)
  elseif errors.is(raised) and raised.limit then
    return "violation", raised.message
  end
  return "not tried", type(raised) == "table" and raised.refusal or errors.is(raised) and raised.message
    or tostring(raised)
end

--- Try an aggregate.
-- @tparam table contract
-- @treturn[1] boolean true
-- @treturn[1] ?string why it could not be tried, when none of the sample rows are what it works on
-- @treturn[2] nil
-- @treturn[2] string what is wrong, in one line
function test.check(contract)
  local why
  for _, arguments in ipairs(ARGUMENTS) do
    for _, make in ipairs(KINDS) do
      local outcome, message = try(contract, arguments, make)
      if outcome == "passed" then
        return true
      elseif outcome == "violation" then
        return nil, message
      end
      why = why or message
    end
  end
  return true, NOT_TRIED .. (why:gsub("%s*\n%s*", " "))
end

return test
