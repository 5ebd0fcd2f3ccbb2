--- Where a statement goes that says itself whose it is: from what the extractor found in it to shards.
-- Sends nothing, and needs no connection unless a directory has to be asked.
--
-- A NULL key equals nothing, so that a read of it, an UPDATE and a DELETE find nothing on any shard, and any one of
-- them may say so; a row with a NULL key belongs to no shard.
-- @module lunashard.router.target

local errors = require("lunashard.errors")
local extraction = require("lunashard.extraction")
local groups = require("lunashard.router.groups")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.sql.statement")
local values = require("lunashard.values")

-- Local functions are constants to the compiler; these run for every statement without a routing_key.
local make_plan, owner, type = extraction.plan, routing.owner, type
local null = values.null

local target = {}

--- More keys than a statement may name.
target.MAX_KEYS = 100000

local ADVICE = "pass routing_key = value, or shard_id = name; scatter_gather asks all shards"

local function fail(code, format, ...)
  return nil, errors.new(code, { message = format:format(...) })
end

--- What the router's extractor found in a statement.
-- @tparam Router router
-- @string sql
-- @tparam ?table params
-- @treturn[1] table the plan, see `lunashard.extraction`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL` for what does not parse, `INVALID`, `PLUGIN_FAILED`
function target.plan(router, sql, params)
  local plan, err = make_plan(router.extractor, router.manager, sql)
  if plan and plan.kind == "dynamic" then
    return extraction.ask(plan, params)
  end
  return plan, err
end

-- Without a declared type numbers are int8 keys and texts are text keys, so a text of digits may be either: a row must
-- not lie in one place for those who write 42 and in another for those who write '42'.
local function check_certain(manager, table_name, key)
  if type(key) ~= "string" or not key:find("^%s*[+-]?%d+%s*$") then
    return true
  end
  local strategy, err = manager:strategy_for(table_name, key)
  if not strategy then
    return nil, err
  elseif strategy.key_type == nil then
    return fail("INVALID", "the key %q may be an int8 or a text: declare its type, with tables or the strategy's "
      .. "key_type, or pass routing_key", key)
  end
  return true
end

--- The shard of a key that was found in a statement. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam ?string table_name
-- @param key
-- @treturn[1] table member
-- @treturn[1] number|string bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function target.owner(manager, table_name, key)
  if type(key) == "string" then -- so that for numbers nothing is looked at
    local ok, err = check_certain(manager, table_name, key)
    if not ok then
      return nil, err
    end
  end
  return owner(manager, table_name, key)
end

--- Is this value SQL's NULL?
-- @param value
-- @treturn boolean
function target.is_null(value)
  return value == nil or value == null
end

local is_null = target.is_null

--- The keys that a plan names, and those among them that are not NULL.
-- @tparam table plan of kind `key`, `keys` or `rows`
-- @tparam ?table params
-- @treturn[1] table list of keys
-- @treturn[1] {int,...} their numbers in the statement's list
-- @treturn[1] ?int the number of the first one that is NULL
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function target.keys(plan, params)
  local all, n = extraction.keys(plan, params)
  if not all then
    return nil, n
  end
  local keys, indexes, first_null = {}, {}, nil
  for i = 1, n do
    if is_null(all[i]) then
      first_null = first_null or i
    else
      keys[#keys + 1], indexes[#indexes + 1] = all[i], i
    end
  end
  return keys, indexes, first_null
end

-- Does this statement do nothing on a shard without rows of its key?
local function does_nothing(sql)
  local parsed = statement.parse(sql)
  if not parsed or parsed.into then
    return false
  end
  return not parsed.modifies or #parsed.targets == 1 and (parsed.kind == "update" or parsed.kind == "delete")
end

local function null_key(plan, sql, index)
  if plan.kind ~= "rows" and does_nothing(sql) then
    return { plan = plan, anywhere = true, reason = plan.reason .. "; it is NULL, which equals no key: any shard can say so" }
  elseif plan.kind == "rows" then
    return nil, errors.new("NULL_KEY", {
      message = ("row %d: the shard key is NULL; a row without a key belongs to no shard"):format(index),
      index = index,
    })
  end
  return fail("NULL_KEY", "%s, which is NULL: a row without a key belongs to no shard", plan.reason)
end

--- The shards of many keys that were found in statements. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam ?string table_name
-- @tparam table keys list, not empty
-- @treturn[1] {string,...} shard_ids
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function target.route_many(manager, table_name, keys)
  local strategy, err = manager:strategy_for(table_name, keys[1])
  if not strategy then
    return nil, err
  elseif strategy.key_type == nil then
    for _, key in ipairs(keys) do
      local ok
      ok, err = check_certain(manager, table_name, key)
      if not ok then
        return nil, err
      end
    end
  end
  return strategy:route_many(keys)
end

-- The groups of several keys, with the numbers that these have in the statement.
local function group(manager, plan, keys, indexes)
  local shard_ids, err = target.route_many(manager, plan.table, keys)
  if not shard_ids then
    return nil, err
  end
  local list = groups.by_shard(manager, shard_ids)
  for _, one in ipairs(list) do
    for n, i in ipairs(one.indexes) do
      one.indexes[n] = indexes[i]
    end
  end
  return list
end

local function members_of(list)
  local members = {}
  for i, one in ipairs(list) do
    members[i] = one.member
  end
  return members
end

local FIND = {}

function FIND.key(manager, plan, params, sql)
  local keys, indexes, first_null = target.keys(plan, params)
  if not keys then
    return nil, indexes
  elseif first_null then
    return null_key(plan, sql, first_null)
  end
  local member, bucket = target.owner(manager, plan.table, keys[1])
  if not member then
    return nil, bucket
  end
  return { plan = plan, member = member, bucket = bucket, key = keys[1], reason = plan.reason }
end

local function find_several(manager, plan, params, sql)
  local keys, indexes, first_null = target.keys(plan, params)
  if not keys then
    return nil, indexes
  elseif #keys > target.MAX_KEYS then
    return fail("INVALID", "the statement names %d keys, at most %d are taken at once", #keys, target.MAX_KEYS)
  elseif #keys == 0 or plan.kind == "rows" and first_null then
    return null_key(plan, sql, first_null)
  end
  local list, err = group(manager, plan, keys, indexes)
  if not list then
    return nil, err
  elseif #list == 1 then
    return { plan = plan, member = list[1].member, groups = list, reason = plan.reason }
  end
  return { plan = plan, members = members_of(list), groups = list, reason = plan.reason }
end

FIND.keys, FIND.rows = find_several, find_several

function FIND.range(manager, plan, params, _, kind)
  local strategy, err = manager:strategy_for(plan.table)
  if not strategy then
    return nil, err
  elseif kind == "write" and not strategy:has_ranges() then
    return fail("NO_KEY", "%s, which strategy %s spreads over all shards: %s, or all_shards = true when that is meant",
      plan.reason, strategy.name, ADVICE)
  end
  local low, high
  low, high, err = extraction.bounds(plan, params)
  local shard_ids
  if err == nil then
    shard_ids, err = strategy:shards_for_range(low, high)
  end
  if not shard_ids then
    return nil, err
  end
  local members = {}
  for i, shard_id in ipairs(shard_ids) do
    members[i] = manager.by_id[shard_id]
  end
  if #members < 2 then
    return { plan = plan, member = members[1], anywhere = members[1] == nil, reason = plan.reason }
  end
  return { plan = plan, members = members, reason = plan.reason }
end

local function names_no_table()
  return fail("NO_KEY", "the statement names no table, so any shard might be meant: %s", ADVICE)
end

function FIND.shard(manager, plan)
  local member, err = manager:member(plan.shard_id)
  return member and { plan = plan, member = member, reason = plan.reason }, err
end

function FIND.reference(_, plan, _, _, kind)
  if plan.table == nil then
    return names_no_table()
  elseif kind == "read" then
    return { plan = plan, anywhere = true, reason = plan.reason }
  end
  return { plan = plan, everywhere = plan.table, reason = plan.reason }
end

function FIND.all(manager, plan, _, sql, kind)
  local parsed = statement.parse(sql)
  if kind == "write" then
    return fail("NO_KEY", "%s: %s, or all_shards = true when every shard is meant", plan.reason, ADVICE)
  elseif not parsed or parsed.tables[1] == nil then
    return names_no_table()
  end
  return { plan = plan, members = manager.members, reason = plan.reason }
end

--- What a plan of kind `refused` says.
-- @tparam table plan
-- @treturn lunashard.error
function target.refusal(plan)
  return errors.new(plan.code, { message = plan.hint and plan.reason .. "; " .. plan.hint or plan.reason })
end

function FIND.refused(_, plan)
  return nil, target.refusal(plan)
end

--- Where a statement without `routing_key` and `shard_id` goes. Yields when a directory has to be asked.
-- @tparam Router router
-- @string sql
-- @tparam ?table params
-- @string kind `read` or `write`
-- @treturn[1] table `plan`, `reason` and one of: `member` (one shard), with `bucket` and `key` when that is one key;
--   `anywhere` (any shard has the whole answer); `everywhere` (the reference table that is written);
--   `members` (several shards), with `groups` when keys say which, see `lunashard.router.groups`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_KEY`, `NULL_KEY`, `NO_SHARD`, `INVALID`, `KEY_MISMATCH`, `SQL`, `PLUGIN_FAILED`
function target.find(router, sql, params, kind)
  if not router.extractor then
    return nil, routing.no_key()
  end
  local plan, err = target.plan(router, sql, params)
  if not plan then
    return nil, err
  end
  return FIND[plan.kind](router.manager, plan, params, sql, kind)
end

return target
