--- One statement with many sets of parameters, grouped by shard.
-- @module lunashard.router.execute_many

local checking = require("lunashard.router.checking")
local errors = require("lunashard.errors")
local groups = require("lunashard.router.groups")
local guarding = require("lunashard.router.guarding")
local guards = require("lunashard.router.guards")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local placement = require("lunashard.core.placement")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local target = require("lunashard.router.target")
local task = require("lunashard.task")
local transaction = require("lunashard.router.transaction")
local tx_module = require("lunashard.router.tx")

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

-- All items on the shard that the options name.
local function all_on(member, list)
  local all = {}
  for i = 1, #list do
    all[i] = i
  end
  return { { member = member, indexes = all } }
end

-- The keys that the statement names with each item's parameters.
local function extracted_keys(router, sql, list)
  local keys, table_name = {}, nil
  for i, params in ipairs(list) do
    local plan, err = target.plan(router, sql, params)
    if not plan then
      return nil, err
    end
    local found, indexes, first_null
    if plan.kind == "key" or plan.kind == "rows" then
      found, indexes, first_null = target.keys(plan, params)
    end
    if plan.kind == "reference" and plan.write then
      return nil, routing.reference_refusal(plan.table)
    elseif first_null then
      return nil, errors.new("NULL_KEY", { message = ("item %d: %s, which is NULL"):format(i, plan.reason), index = i })
    elseif not found and indexes then
      return nil, errors.wrap(indexes, { index = i })
    elseif not found or #found ~= 1 then
      return nil, errors.new(plan.code or "NO_KEY", {
        message = ("execute_many takes one key for each item, which this statement does not name: %s; "
          .. "pass key = number of the parameter"):format(plan.reason),
        index = i,
      })
    end
    keys[i], table_name = found[1], plan.table
  end
  return keys, table_name
end

local function given_keys(router, sql, list, opts)
  if opts.routing_keys then
    return opts.routing_keys, opts.table
  elseif opts.key ~= nil then
    local keys, err = keys_of(list, opts.key)
    return keys, keys and opts.table or err
  end
  return extracted_keys(router, sql, list)
end

-- Object to items whose statement names another key.
local function check_items(router, units, sql, list, key)
  for _, unit in ipairs(units) do
    for _, i in ipairs(unit.indexes) do
      local ok, err = checking.check(router, sql, list[i], unit.keys and unit.keys[i] or key, unit.member)
      if not ok then
        return nil, errors.wrap(err, { index = i })
      end
    end
  end
  return units
end

local function route_items(router, sql, list, opts, kind)
  local manager = router.manager
  local names_shard = opts.routing_key ~= nil or opts.shard_id ~= nil
  local is_given = names_shard or opts.key ~= nil or opts.routing_keys ~= nil
  local units
  if names_shard or not is_given and not router.extractor then
    local member, err = routing.resolve(manager, opts)
    if member and kind == "write" and routing.is_reference(manager, opts.table) then
      return nil, routing.reference_refusal(opts.table)
    elseif not member then
      return nil, err
    end
    units = all_on(member, list)
  else
    local keys, table_name = given_keys(router, sql, list, opts)
    if not keys then
      return nil, table_name
    end
    local route = is_given and execute_many.route or target.route_many
    local shard_ids, err = route(manager, table_name, keys)
    if not shard_ids then
      return nil, err
    end
    units = groups.by_shard(manager, shard_ids)
    for _, unit in ipairs(units) do
      unit.keys, unit.table = keys, table_name
    end
  end
  if is_given and router.checks then
    return check_items(router, units, sql, list, opts.routing_key)
  end
  return units
end

local function at_item(err, i)
  return errors.wrap(err, { index = i })
end

-- What a unit, or one item of it, relies on.
local function under_of(router, unit, opts, items)
  local manager = router.manager
  if not unit.keys then
    return guarding.under(manager, true, unit.member, opts.table, opts.routing_key)
  end
  local keys = {}
  for n, i in ipairs(items) do
    keys[n] = unit.keys[i]
  end
  return guards.keys(manager, unit.member, unit.table or opts.table, keys)
end

-- The units that items belong to under the map as it is now.
local function regroup(router, unit, opts)
  local manager = router.manager
  if not unit.keys then
    local member, err = routing.resolve(manager, opts)
    return member and { { member = member, indexes = unit.indexes } }, err
  end
  local keys = {}
  for n, i in ipairs(unit.indexes) do
    keys[n] = unit.keys[i]
  end
  local shard_ids, err = target.route_many(manager, unit.table or opts.table, keys)
  if not shard_ids then
    return nil, err
  end
  local units = groups.by_shard(manager, shard_ids)
  for _, one in ipairs(units) do
    one.keys, one.table = unit.keys, unit.table
    for n, number in ipairs(one.indexes) do
      one.indexes[n] = unit.indexes[number]
    end
  end
  return units
end

-- Run a unit under the map as it is: what was refused had no effect, and may belong elsewhere by now. As several units,
-- then, each a transaction of its own.
local function run_mapped(router, unit, opts, deadline, run)
  if not router.manager.catalog then
    return run(unit, guarding.EXEMPT)
  end
  local left, manager = { unit }, router.manager
  return guarding.through(manager, deadline, function(guarded)
    while left[1] do
      local generation, map = manager.generation, manager.catalog.map
      local units, err = regroup(router, left[1], opts)
      if not units then
        return nil, err
      elseif manager.catalog.map ~= map then
        return guarding.changed()
      end
      table.remove(left, 1)
      for i, one in ipairs(units) do
        table.insert(left, i, one)
      end
      local under, ok = generation, nil
      if guarded then
        under, err = under_of(router, left[1], opts, left[1].indexes)
      end
      if under then
        ok, err = run(left[1], under)
      end
      if not ok then
        return nil, err
      end
      table.remove(left, 1)
    end
    return true
  end)
end

-- All items of one shard in one transaction: all of them, or none.
local function run_together(router, unit, sql, list, opts, deadline, results, item_errors, under)
  local failed_at
  local sets = {}
  for n, i in ipairs(unit.indexes) do
    sets[n] = list[i]
  end
  local function work(tx)
    local done, err, at = tx_module.run_many(tx, sql, sets, {
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
  local ok, err = transaction.try(router, unit.member, {}, "BEGIN", deadline, work, under)
  if ok then
    return true
  elseif router.manager.catalog and guarding.is_stale(err) then
    return nil, err
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
      local one, result = { member = unit.member, indexes = { i }, keys = unit.keys, table = unit.table }, nil
      local _, err = run_mapped(router, one, opts, deadline, function(part, under)
        local problem
        result, problem = router:run_on(part.member, sql, list[i], opts, deadline, under)
        return result and true, problem
      end)
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

local function summary(units, outcome, results, item_errors)
  local failed, committed, count = {}, {}, 0
  for g, unit in ipairs(units) do
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
  return nil, scatter.failure(failed, #units, {
    message = ("%d of %d shards failed; done on %s"):format(#failed, #units,
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
-- @tparam[opt] table opts `key`: the number of the parameter that is the routing key (a list of numbers for several
--   columns); or `routing_keys`: a list with the key of each item; or `routing_key` or `shard_id` for all: one of
--   these ways alone, or none, and the statement says it with the parameters of each item (see `lunashard.extractor`).
--   `table`;
--   `transaction = false`: every item on its own, several at a time (those of one key in order), and a failed one
--   does not stop the others; `max_parallel_shards`,
--   `timeout` for all, `decode_json`, `max_result_bytes`
-- @treturn[1] table `results` (in the order of `list`), `row_count` (sum), `success`, `complete`, `failed`
--   (empty), `duration`
-- @treturn[2] nil
-- @treturn[2] lunashard.error nothing was sent: `NO_KEY`, `NULL_KEY`, `KEY_MISMATCH`, `INVALID`, `NO_SHARD` (with `index`),
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
  local units
  units, err = route_items(self, sql, list, opts, kind)
  if not units then
    return nil, err
  end
  local started, deadline = task.now(), self:deadline(opts)
  local results, item_errors = {}, {}
  local outcome = parallel.each(units, function(unit)
    if opts.transaction == false then
      return run_singly(self, unit, sql, list, opts, deadline, results, item_errors)
    end
    return run_mapped(self, unit, opts, deadline, function(one, under)
      return run_together(self, one, sql, list, opts, deadline, results, item_errors, under)
    end)
  end, { limit = opts.max_parallel_shards or self.max_parallel_shards })
  local answer
  answer, err = summary(units, outcome, results, item_errors)
  if answer then
    answer.duration = task.now() - started
  else
    err.elapsed = task.now() - started
  end
  return answer, err
end

return execute_many
