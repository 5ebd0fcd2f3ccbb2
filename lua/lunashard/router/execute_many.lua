--- One statement with many sets of parameters, grouped by shard.
-- @module lunashard.router.execute_many

local errors = require("lunashard.errors")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local placement = require("lunashard.core.placement")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local task = require("lunashard.task")
local transaction = require("lunashard.router.transaction")

local execute_many = { methods = {} }

local OPTIONS = options.known(routing.OPTIONS, {
  key = "any",
  routing_keys = "table",
  transaction = "boolean",
  max_parallel_shards = "count",
  timeout = "seconds",
  decode_json = "boolean",
  max_result_bytes = "count",
})

local SINGLE = 16 -- items that run at the same time on a shard when each is on its own

local function is_index(value)
  return type(value) == "number" and value >= 1 and value % 1 == 0
end

local function check_key(key)
  if key == nil or is_index(key) then
    return
  elseif type(key) == "table" and #key > 0 then
    for _, index in ipairs(key) do
      if not is_index(index) then
        raise("execute_many: option key: expected parameter numbers, got " .. options.describe(index), 3)
      end
    end
    return
  end
  raise("execute_many: option key: expected the number of a parameter, or a list of them, got "
    .. options.describe(key), 3)
end

-- Two answers to the question where items go: neither may be ignored.
local function check_one_way(opts)
  local given
  for _, name in ipairs({ "key", "routing_keys", "routing_key", "shard_id" }) do
    local both = opts[name] ~= nil and given
    if both and not (given == "routing_key" and name == "shard_id") then -- which are checked against each other
      raise(("execute_many: give option %s or %s, not both"):format(given, name), 3)
    end
    given = opts[name] ~= nil and name or given
  end
end

local function no_value(i, index)
  return nil, errors.new("NULL_KEY", {
    message = ("item %d: parameter %d, the routing key, is NULL"):format(i, index),
    index = i,
  })
end

-- The routing key of each item.
local function keys_of(list, key)
  local keys = {}
  for i, params in ipairs(list) do
    if type(key) == "table" then
      local composite = {}
      for column, index in ipairs(key) do
        if params[index] == nil then
          return no_value(i, index)
        end
        composite[column] = params[index]
      end
      keys[i] = composite
    else
      if params[key] == nil then
        return no_value(i, key)
      end
      keys[i] = params[key]
    end
  end
  return keys
end

--- Where each of many keys lives.
-- @tparam Manager manager
-- @tparam ?string table_name
-- @tparam table keys list, not empty
-- @treturn[1] {string,...} shard_ids
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `index`
function execute_many.route(manager, table_name, keys)
  local strategy, err = manager:strategy_for(table_name, keys[1])
  if not strategy then
    return nil, err
  end
  return strategy:route_many(keys)
end

-- Lists of item numbers, one list a shard, in the shards' order.
local function group(manager, shard_ids, keys)
  local by_shard, groups = {}, {}
  for i, shard_id in ipairs(shard_ids) do
    local list = by_shard[shard_id]
    if not list then
      list = {}
      by_shard[shard_id] = list
    end
    list[#list + 1] = i
  end
  for _, member in ipairs(manager.members) do
    if by_shard[member.shard_id] then
      groups[#groups + 1] = { member = member, indexes = by_shard[member.shard_id], keys = keys }
    end
  end
  return groups
end

local function route_items(router, list, opts, kind)
  local manager = router.manager
  if opts.key == nil and opts.routing_keys == nil then
    local member, err = routing.resolve(manager, opts)
    if member and kind == "write" and routing.is_reference(manager, opts.table) then
      return nil, errors.new("INVALID", {
        message = ("%s is a reference table: a write goes to every shard, not to one"):format(opts.table),
      })
    elseif not member then
      return nil, err
    end
    local all = {}
    for i = 1, #list do
      all[i] = i
    end
    return { { member = member, indexes = all } }
  end
  local keys, err = opts.routing_keys, nil
  if not keys then
    keys, err = keys_of(list, opts.key)
  end
  local shard_ids
  if keys then
    shard_ids, err = execute_many.route(manager, opts.table, keys)
  end
  if not shard_ids then
    return nil, err
  end
  return group(manager, shard_ids, keys)
end

local function at_item(err, i)
  return errors.wrap(err, { index = i })
end

-- All items of one shard in one transaction: all of them, or none.
local function run_together(router, unit, sql, list, opts, deadline, results, item_errors)
  local failed_at
  local sets = {}
  for n, i in ipairs(unit.indexes) do
    sets[n] = list[i]
  end
  local function work(tx)
    local done, err, at = transaction.run_many(tx, sql, sets, {
      deadline = deadline,
      decode_json = opts.decode_json,
      max_result_bytes = opts.max_result_bytes or router.max_result_bytes,
    })
    if not done then
      failed_at = unit.indexes[at]
      error(err, 0)
    end
    for n, i in ipairs(unit.indexes) do
      results[i] = done[n]
    end
    return true
  end
  local ok, err = transaction.try(router, unit.member, {}, "BEGIN", deadline, work)
  if ok then
    return true
  end
  for _, i in ipairs(unit.indexes) do
    results[i] = nil
    item_errors[i] = at_item(err, failed_at or i)
  end
  err.elapsed = router:elapsed(opts, deadline)
  return nil, failed_at and at_item(err, failed_at) or err
end

-- A key as a table index: equal keys give equal names.
local function name_of(strategy, key)
  local canonical = placement.canonical(strategy.key_type, key)
  if type(canonical) ~= "table" then
    return tostring(canonical)
  end
  local parts = {}
  for i, part in ipairs(canonical) do
    parts[i] = tostring(part):gsub("[%z\1]", "\1%0")
  end
  return table.concat(parts, "\0")
end

-- Items of one key keep their order, as one list; so do all items when nothing is known of their keys.
local function in_order(manager, unit, opts)
  local strategy = unit.keys and manager:strategy_for(opts.table, unit.keys[1])
  local lists, by_key = {}, {}
  for _, i in ipairs(unit.indexes) do
    local name = strategy and name_of(strategy, unit.keys[i]) or ""
    local one = by_key[name]
    if not one then
      one = {}
      by_key[name], lists[#lists + 1] = one, one
    end
    one[#one + 1] = i
  end
  return lists
end

-- Each item for itself, several at a time; one that fails does not stop the others.
local function run_singly(router, unit, sql, list, opts, deadline, results, item_errors)
  parallel.each(in_order(router.manager, unit, opts), function(indexes)
    for _, i in ipairs(indexes) do
      local result, err = router:run_on(unit.member, sql, list[i], opts, deadline)
      results[i] = result
      if not result then
        item_errors[i] = at_item(err, i)
      end
    end
    return true
  end, { limit = math.min(SINGLE, unit.member.primary.pool:stats().max_size) })
  for _, i in ipairs(unit.indexes) do
    if item_errors[i] then
      return nil, item_errors[i]
    end
  end
  return true
end

local function summary(groups, outcome, results, item_errors)
  local failed, committed, count = {}, {}, 0
  for g, unit in ipairs(groups) do
    local shard_id = unit.member.shard_id
    if outcome.results[g] then
      committed[#committed + 1] = shard_id
    else
      failed[#failed + 1] = { shard_id = shard_id, error = outcome.errors[g], index = outcome.errors[g].index }
    end
  end
  for _, result in pairs(results) do
    count = count + (result.row_count or 0)
  end
  if #failed == 0 then
    return { success = true, complete = true, results = results, failed = failed, row_count = count }
  end
  return nil, scatter.failure(failed, #groups, {
    message = ("%d of %d shards failed; done on %s"):format(#failed, #groups,
      #committed > 0 and table.concat(committed, ", ") or "none"),
    committed = committed,
    results = results,
    item_errors = item_errors,
  })
end

--- Run a statement once for each set of parameters, on the shards that own their keys. Yields.
-- The shards work at the same time, each through its items in order and in one transaction, so that on a shard
-- either all of its items took effect or none. It is not atomic over the shards. Many items travel together, so that
-- the `duration` of a result is that of its company.
-- @string sql
-- @tparam {table,...} list sets of parameters
-- @tparam table opts `key`: the number of the parameter that is the routing key (a list of numbers for several
--   columns); or `routing_keys`: a list with the key of each item; or `routing_key` or `shard_id` for all: one of
--   these ways alone. `table`;
--   `transaction = false`: every item on its own, several at a time (those of one key in order), and a failed one
--   does not stop the others; `max_parallel_shards`,
--   `timeout` for all, `decode_json`, `max_result_bytes`
-- @treturn[1] table `results` (in the order of `list`), `row_count` (sum), `success`, `complete`, `failed`
--   (empty), `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error nothing was sent: `NO_KEY`, `NULL_KEY`, `INVALID`, `NO_SHARD` (with `index`),
--   `CLOSED`; or
--   `SHARDS_FAILED` with `failed` (`shard_id`, `error`, `index`), `committed` (names), `results` and
--   `item_errors` (by index)
function execute_many.methods:execute_many(sql, list, opts)
  if type(sql) ~= "string" then
    raise("execute_many: expected SQL as a string, got a " .. type(sql), 2)
  elseif type(list) ~= "table" then
    raise("execute_many: expected a list of parameter tables, got a " .. type(list), 2)
  elseif not options.is_list(list) then
    raise("execute_many: expected a list of parameter tables, got a table with gaps or names", 2)
  end
  for i, params in ipairs(list) do
    if type(params) ~= "table" then
      raise(("execute_many: item %d: expected a table of parameters, got a %s"):format(i, type(params)), 2)
    end
  end
  opts = options.check(opts, OPTIONS, "execute_many")
  check_key(opts.key)
  check_one_way(opts)
  if opts.routing_keys and not (options.is_list(opts.routing_keys) and #opts.routing_keys == #list) then
    raise(("execute_many: option routing_keys: expected %d keys, got %d"):format(#list, #opts.routing_keys), 2)
  end
  local ok, err = self.manager:check_open()
  local kind
  if ok then
    kind, err = routing.check_statement(sql)
  end
  if not kind then
    return nil, err
  elseif #list == 0 then
    return { success = true, complete = true, results = {}, failed = {}, row_count = 0, duration = 0 }
  end
  local groups
  groups, err = route_items(self, list, opts, kind)
  if not groups then
    return nil, err
  end
  local started, deadline = task.now(), self:deadline(opts)
  local results, item_errors = {}, {}
  local run = opts.transaction == false and run_singly or run_together
  local outcome = parallel.each(groups, function(unit)
    return run(self, unit, sql, list, opts, deadline, results, item_errors)
  end, { limit = opts.max_parallel_shards or self.max_parallel_shards })
  local answer
  answer, err = summary(groups, outcome, results, item_errors)
  if answer then
    answer.duration = task.now() - started
  else
    err.elapsed = task.now() - started
  end
  return answer, err
end

return execute_many
