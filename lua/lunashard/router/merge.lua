--- The answers of a scatter without an aggregation function, put together as its statement says.
-- @module lunashard.router.merge

local bounds = require("lunashard.merging.bounds")
local errors = require("lunashard.errors")
local final = require("lunashard.merging.final")
local merge_rows = require("lunashard.order.merge").rows
local merging = require("lunashard.merging")
local order = require("lunashard.order")
local simple = require("lunashard.merging.simple")
local values = require("lunashard.values")

local EXEMPT = require("lunashard.router.guarding").EXEMPT -- questions to the catalog, and evaluations of what is known

local merge = {}

local Merge = {}
Merge.__index = Merge

-- Ask one of these members, the next one when it cannot answer.
local function run_on_any(router, members, sql, params, opts, deadline)
  local failed = {}
  for _, member in ipairs(members) do
    local result, err = router:run_on(member, sql, params, opts, deadline, EXEMPT)
    if result then
      return result
    elseif err.code == "SQL" then
      return nil, err
    end
    failed[#failed + 1] = { shard_id = member.shard_id, error = err }
  end
  return nil, failed
end

--- Plan a scatter. Yields when the catalog has to be asked.
-- @tparam Router router
-- @tparam {table,...} members
-- @string sql
-- @tparam ?table params
-- @tparam table opts of the scatter
-- @number deadline
-- @treturn[1] Merge with `sql`, `params`, `opts` for the shards, and `plan`
-- @treturn[2] nil
-- @treturn[2] lunashard.error|{table,...} an error; or, when no shard said what had to be known, what each one said: a
--   list of `{ shard_id, error }`
function merge.prepare(router, members, sql, params, opts, deadline)
  local own = { read_only = opts.read_only, timeout = opts.timeout, retries = opts.retries }
  local plan, err = merging.plan(router.manager, sql, params, function(question, names)
    local result, problem = run_on_any(router, members, question, names, own, deadline)
    return result and result.rows, problem
  end)
  if not plan then
    return nil, err
  end
  local self = setmetatable({
    plan = plan, router = router, sql = plan.sql, given = params, opts = opts, wanted = opts, deadline = deadline,
    by_id = {},
  }, Merge)
  for _, member in ipairs(members) do
    self.by_id[member.shard_id] = member
  end
  self.params, err = merging.params(plan, params)
  if err then
    return nil, err
  end
  self.numbers, err = bounds.values(plan.bounds, params)
  if err then
    return nil, err
  end
  if opts.decode_json and not plan.trivial then
    self.opts = setmetatable({ decode_json = false }, { __index = opts })
  end
  return self
end

local function answered(results)
  local list = {}
  for _, result in ipairs(results) do
    if result.success then
      list[#list + 1] = result
    end
  end
  return list
end

-- A function that evaluates on the shard which gave this result.
function Merge:runner(result)
  local member, wanted = self.by_id[result.shard_id], self.wanted
  local opts = {
    read_only = wanted.read_only,
    timeout = wanted.timeout,
    retries = wanted.retries,
    max_result_bytes = wanted.max_result_bytes,
    decode_json = self.plan.kind == "grouped" and wanted.decode_json or nil,
  }
  return function(sql, params)
    return self.router:run_on(member, sql, params, opts, self.deadline, EXEMPT)
  end
end

-- Try one shard after the other until one can evaluate.
function Merge:evaluate(results, fn)
  local value, err
  for _, result in ipairs(results) do
    value, err = fn(self:runner(result), result)
    if value or err.code == "SQL" or err.code == "NOT_MERGEABLE" or err.code == "TIMEOUT" then
      break
    end
  end
  return value, err
end

function Merge:finish_grouped(results)
  local answer = self.plan.simple and simple.row(self.plan.simple, results)
  local err
  if not answer then
    answer, err = self:evaluate(results, function(run, own)
      return final.grouped(run, self.plan, results, self.given, self.numbers, own.column_types)
    end)
  end
  if not answer then
    return nil, err
  end
  for _, result in ipairs(results) do
    result.rows = {} -- parts, which mean nothing alone
  end
  return { rows = answer.rows, row_count = #answer.rows, columns = answer.columns, column_types = answer.column_types,
    command = answer.command }
end

local function ambiguous(name)
  return nil, errors.new("NOT_MERGEABLE", {
    message = ("the result has several columns %q, which decide about order or equality: give them names of their own")
      :format(name),
  })
end

-- The column of an item of the order, by its position or name.
local function name_of(item, columns)
  local name = item.name or columns[item.position]
  local count = 0
  for _, column in ipairs(columns) do
    count = count + (column == name and 1 or 0)
  end
  if count > 1 then
    return ambiguous(name)
  elseif count == 0 then
    return nil, errors.new("NOT_MERGEABLE", {
      message = ("the result has no column %q to be ordered by"):format(tostring(name)),
    })
  end
  return name
end

local function names_of(items, columns)
  local names = {}
  for i, item in ipairs(items) do
    local name, err = name_of(item, columns)
    if not name then
      return nil, err
    end
    names[i] = name
  end
  return names
end

-- An order that can be told here; nil when only the server knows it.
local function local_items(plan, names, results)
  local items, first = {}, nil
  for i, item in ipairs(plan.order) do
    items[i] = { column = names[i], desc = item.desc, nulls_first = item.nulls_first, collate = item.collate }
  end
  for _, result in ipairs(results) do
    local bound = order.bind(items, order.types(result), result.shard_id)
    if not bound or first and not order.check_same(first, bound) then
      return nil
    end
    first = first or bound
  end
  return items
end

local function merge_here(items, results, last)
  local sources = {}
  for i, result in ipairs(results) do
    local at = 0
    sources[i] = {
      shard_id = result.shard_id,
      types = order.types(result),
      next = function()
        at = at + 1
        return result.rows[at]
      end,
    }
  end
  local rows, next_row = {}, merge_rows(items, sources)
  while #rows < last do
    local row, err = next_row()
    if row == nil then
      if err ~= nil then
        return nil, err
      end
      break
    end
    rows[#rows + 1] = row
  end
  return rows
end

local function all_rows(results)
  local rows = {}
  for _, result in ipairs(results) do
    for _, row in ipairs(result.rows) do
      rows[#rows + 1] = row
    end
  end
  return rows
end

-- What decides: the columns of the order, and those that are compared by DISTINCT.
function Merge:deciding(names, results, own)
  local plan, columns, index = self.plan, {}, {}
  local function add(name)
    if not index[name] then
      for i, column in ipairs(own.columns) do
        if column == name then
          columns[#columns + 1] = { name = name, sql_type = own.column_types[i] }
        end
      end
      index[name] = #columns
    end
    return index[name]
  end
  local how = { columns = columns, order = {} }
  for i, item in ipairs(plan.order) do
    how.order[i] = { index = add(names[i]), desc = item.desc, nulls_first = item.nulls_first }
  end
  local compared = plan.distinct and {} or plan.distinct_on
  if plan.distinct then
    for i in ipairs(results[1].columns) do
      compared[i] = { position = i }
    end
  end
  if compared then
    how.distinct = {}
    local list, err = names_of(compared, results[1].columns)
    if not list then
      return nil, err
    end
    for i, name in ipairs(list) do
      how.distinct[i] = add(name)
    end
  end
  return how
end

function Merge:ask_order(names, results)
  local numbers, err = self:evaluate(results, function(run, own)
    local how, problem = self:deciding(names, results, own)
    if not how then
      return nil, problem
    end
    return final.permutation(run, self.plan, results, self.given, how)
  end)
  if not numbers then
    return nil, err
  end
  local rows, all = {}, all_rows(results)
  for i, number in ipairs(numbers) do
    rows[i] = all[number]
  end
  return rows
end

local function sliced(rows, numbers)
  if numbers.offset == 0 and (numbers.limit or math.huge) >= #rows then
    return rows
  end
  local part = {}
  for i = numbers.offset + 1, math.min(#rows, numbers.offset + (numbers.limit or math.huge)) do
    part[#part + 1] = rows[i]
  end
  return part
end

local function without_hidden(answer, hidden)
  if not hidden[1] then
    return
  end
  local is_hidden, columns, types = {}, {}, {}
  for _, name in ipairs(hidden) do
    is_hidden[name] = true
    for _, row in ipairs(answer.rows) do
      row[name] = nil
    end
  end
  for i, name in ipairs(answer.columns) do
    if not is_hidden[name] then
      columns[#columns + 1], types[#types + 1] = name, answer.column_types[i]
    end
  end
  answer.columns, answer.column_types = columns, types
end

function Merge:ordered_rows(results)
  local plan, numbers = self.plan, self.numbers
  if #results == 1 or not (plan.order[1] or plan.distinct or plan.distinct_on) then
    return all_rows(results)
  end
  local names, err = names_of(plan.order, results[1].columns)
  if not names then
    return nil, err
  end
  local items = not plan.distinct and not plan.distinct_on and local_items(plan, names, results)
  if items then
    return merge_here(items, results, numbers.offset + (numbers.limit or math.huge))
  end
  return self:ask_order(names, results)
end

function Merge:finish_rows(results)
  local rows, err = self:ordered_rows(results)
  if not rows then
    return nil, err
  end
  local first = results[1]
  local answer = { rows = sliced(rows, self.numbers), columns = first.columns, column_types = first.column_types,
    command = first.command }
  answer.row_count = #answer.rows
  without_hidden(answer, self.plan.hidden)
  for _, result in ipairs(results) do
    if self.plan.hidden[1] then
      result.columns, result.column_types = answer.columns, answer.column_types
      for _, row in ipairs(result.rows) do
        for _, name in ipairs(self.plan.hidden) do
          row[name] = nil
        end
      end
    end
  end
  if self.wanted.decode_json then
    return values.decode_json(answer)
  end
  return answer
end

--- Put the answers together. Yields when a shard has to evaluate something.
-- @tparam {table,...} results shard results, failed ones included; at least one has succeeded
-- @treturn[1] table `rows`, `row_count`, `columns`, `column_types`, `command`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE`, `SQL` and what else evaluating can give
function Merge:finish(results)
  local list = answered(results)
  if self.plan.kind == "grouped" then
    return self:finish_grouped(list)
  end
  return self:finish_rows(list)
end

return merge
