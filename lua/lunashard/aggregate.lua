--- Aggregates: what a scatter does with the rows of its shards.
-- `lunashard.aggregate.sum("count")` and the like give an aggregate, which is both a function
-- of the list of shard results (as the guide's `aggregation_func`) and a reducer:
-- `init() -> acc`, `step(acc, row, shard_id, types) -> acc`, `merge(a, b) -> acc`,
-- `finish(acc) -> row or rows`. Where data cannot be combined exactly, `step`, `merge`, `finish`
-- and the call itself return nil and an error; misuse raises.
--
-- Every aggregate is a plug-in file under `lunashard/aggregates/` and keeps the contract that
-- `register` checks; a user's own are registered the same way.
-- @module lunashard.aggregate

local contract = require("lunashard.plugin.contract")
local errors = require("lunashard.errors")
local order = require("lunashard.order")
local registry = require("lunashard.plugin.registry")

local aggregate = {}

local Aggregate = {}
Aggregate.__index = Aggregate

--- A new accumulator.
-- @treturn table
function Aggregate:init()
  return self.plugin.init(self.options)
end

--- Take one row in.
-- @tparam table acc
-- @tparam table row
-- @tparam ?string shard_id
-- @tparam ?table types column name -> SQL type, from @{lunashard.order.types}; the same table for
--   all rows of a shard
-- @treturn[1] table acc
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE` or `INVALID`
function Aggregate:step(acc, row, shard_id, types)
  return self.plugin.step(acc, row, shard_id, types)
end

--- Combine two accumulators; neither is used afterwards, but for what is returned.
-- @tparam table a
-- @tparam table b
-- @treturn[1] table acc
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Aggregate:merge(a, b)
  return self.plugin.merge(a, b)
end

--- The result.
-- @tparam table acc
-- @treturn[1] table a row, or a list of rows; @{rows} tells which
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Aggregate:finish(acc)
  return self.plugin.finish(acc)
end

--- Column types of what `finish` gives, as far as they are known.
-- @tparam table acc
-- @treturn ?table column name -> SQL type
function Aggregate:types(acc)
  return self.plugin.types and self.plugin.types(acc)
end

--- Feed all rows of the shards that succeeded.
-- @tparam {table,...} results
-- @treturn[1] table acc
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Aggregate:collect(results)
  local acc = self:init()
  for _, result in ipairs(results) do
    if result.success then
      local types = order.types(result)
      for _, row in ipairs(result.rows) do
        local err
        acc, err = self.plugin.step(acc, row, result.shard_id, types)
        if acc == nil then
          return nil, err
        end
      end
    end
  end
  return acc
end

function Aggregate.__call(self, results)
  if self.plugin.aggregate then
    return self.plugin.aggregate(self.options, results)
  end
  local acc, err = self:collect(results)
  if acc == nil then
    return nil, err
  end
  return self:finish(acc)
end

-- options, or what `new` makes of them; push_down is what shards may be asked for instead of
-- everything, such as `{ limit = 30 }`.
local function build(plugin, ...)
  local made = ...
  if plugin.new then
    made = plugin.new(...)
  end
  local returns = plugin.returns
  return setmetatable({
    plugin = plugin,
    name = plugin.name,
    options = made,
    returns = type(returns) == "function" and returns(made) or returns,
    push_down = plugin.push_down and plugin.push_down(made),
  }, Aggregate)
end

--- Make a plug-in available as `lunashard.aggregate.<name>`, replacing an earlier one.
-- @tparam table plugin `{ api = 1, kind = "aggregate", name =, new(...) -> options,
--   init(options) -> acc, step(acc, row, shard_id, types) -> acc, merge(acc, acc) -> acc,
--   finish(acc) -> row or rows }`, or `aggregate(options, results) -> row or rows`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with what the contract misses
function aggregate.register(plugin)
  local ok, problem = contract.check("aggregate", plugin)
  if ok and registry.is_shipped("aggregate", plugin.name) then
    problem = registry.taken("aggregate", plugin.name)
  end
  if problem then
    return nil, errors.new("INVALID", { message = problem })
  end
  registry.set("aggregate", plugin)
  return true
end

--- The rows of what an aggregate, or any aggregation function, returned.
-- An empty table alone does not say whether it is a row of NULLs or no row at all: an
-- aggregate knows, a plain function means no row.
-- @param agg the aggregate or function
-- @tparam table value what it returned
-- @treturn {table,...}
function aggregate.rows(agg, value)
  local returns = aggregate.is(agg) and agg.returns
  if returns == "row" then
    return { value }
  elseif returns == "rows" or next(value) == nil or type(value[1]) == "table" then
    return value
  end
  return { value }
end

--- Is it an aggregate of ours, and so also a reducer?
-- @param value anything
-- @treturn bool
function aggregate.is(value)
  return getmetatable(value) == Aggregate
end

--- Does it take rows as they were received, all of a shard at once (`plugin.keep`), rather than one by one?
-- @local
-- @tparam Aggregate agg
-- @treturn bool
function aggregate.keeps(agg)
  local keeps = agg.plugin.keeps
  return keeps ~= nil and keeps(agg.options)
end

-- Arguments with the aggregates among them, or in lists among them, in their present versions; and whether that is
-- something new.
local function present_arguments(given)
  local list, is_new = { n = given.n }, false
  for i = 1, given.n or #given do
    local value = given[i]
    if aggregate.is(value) then
      list[i] = aggregate.present(value)
    elseif type(value) == "table" and aggregate.is(value[1]) then
      local inner, changed = present_arguments(value)
      list[i] = changed and inner or value
    else
      list[i] = value
    end
    is_new = is_new or list[i] ~= value
  end
  return list, is_new
end

--- An aggregate as its plug-in's present version makes it; what is no aggregate as it is.
-- A scatter asks once, when it begins, and ends with that version. When the present version does not take the
-- arguments that the aggregate was made with, it stays what it is.
-- @param agg anything
-- @return the same, or a new aggregate
function aggregate.present(agg)
  if not aggregate.is(agg) or not agg.entry then
    return agg
  end
  local entry = registry.get("aggregate", agg.name) or agg.entry
  local arguments, is_new = present_arguments(agg.arguments)
  if entry == agg.entry and not is_new then
    return agg
  end
  local ok, made = pcall(build, entry.contract, unpack(arguments, 1, arguments.n))
  if not ok then
    return agg
  end
  made.entry, made.arguments = entry, arguments
  return made
end

--- Names of all aggregates, sorted.
-- @treturn {string,...}
function aggregate.names()
  return registry.names("aggregate")
end

return setmetatable(aggregate, {
  __index = function(_, name)
    local entry = registry.get("aggregate", name)
    if entry == nil then
      error(registry.unknown("aggregate", name), 2)
    end
    local plugin = entry.contract
    return function(...)
      local made = build(plugin, ...)
      made.entry, made.arguments = entry, { n = select("#", ...), ... }
      return made
    end
  end,
})
