--- Does a statement say something else than its caller about where it goes?
-- Asked where tables are declared or an extractor was chosen. What cannot be found in the statement contradicts
-- nothing; neither does what our parser does not take: then the server has the word.
-- @module lunashard.router.checking

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local extraction = require("lunashard.extraction")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.sql.statement")
local target = require("lunashard.router.target")

-- Local functions are constants to the compiler; `check` runs for every statement of a router that checks.
local make_plan = extraction.plan

local checking = {}

local function mismatch(format, ...)
  return nil, errors.new("KEY_MISMATCH", { message = format:format(...) })
end

local function shown(key)
  if type(key) ~= "table" then
    return type(key) == "cdata" and tostring(key):gsub("U?LL$", "") or tostring(key)
  end
  local parts = {}
  for i, part in ipairs(key) do
    parts[i] = shown(part)
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function same_column(a, b, key_type)
  return a == b or key_type == nil and shown(a) == shown(b)
end

-- Equal keys in whatever form they come. Where no type is declared 42 and "42" are not told apart.
local function same_key(strategy, a, b)
  local one, err = core.canonical(strategy.key_type, strategy:positional(a))
  local other
  if one ~= nil then
    other, err = core.canonical(strategy.key_type, strategy:positional(b))
  end
  if other == nil then
    return nil, err
  elseif type(one) ~= "table" then
    return same_column(one, other, strategy.key_type)
  end
  for i, column in ipairs(one) do
    if not same_column(column, other[i], strategy.key_type) then
      return false
    end
  end
  return true
end

-- Rows with a NULL key belong to no shard; a search for NULL finds nothing anywhere.
local function check_null(sql, plan)
  local parsed = statement.parse(sql)
  if plan.kind ~= "rows" and not (parsed and parsed.kind == "insert") then
    return true
  end
  return nil, errors.new("NULL_KEY", { message = plan.reason .. ", which is NULL: such a row belongs to no shard" })
end

local CHECK = {}

function CHECK.key(router, plan, sql, params, key, member)
  local keys, _, first_null = target.keys(plan, params)
  if not keys then
    return nil, _
  elseif first_null then
    return check_null(sql, plan)
  end
  local manager, found = router.manager, keys[1]
  if key ~= nil then
    local strategy, err = manager:strategy_for(plan.table, found)
    local same
    if strategy then
      same, err = same_key(strategy, found, key)
    end
    if same == nil then
      return nil, err
    elseif not same then
      return mismatch("%s, but routing_key is %s", plan.reason, shown(key))
    end
    return true
  end
  local owner, err = target.owner(manager, plan.table, found)
  if not owner then
    return nil, err
  elseif owner ~= member then
    return mismatch("%s, which belongs to %s, but the statement would run on %s", plan.reason, owner.shard_id,
      member.shard_id)
  end
  return true
end

local function check_several(router, plan, sql, params, _, member)
  local keys, indexes, first_null = target.keys(plan, params)
  if not keys then
    return nil, indexes
  elseif first_null and plan.kind == "rows" then
    return check_null(sql, plan)
  end
  for i, found in ipairs(keys) do
    local owner, err = target.owner(router.manager, plan.table, found)
    if not owner then
      return nil, err
    elseif owner ~= member then
      return mismatch("%s: %s %d is %s, which belongs to %s, but the statement would run on %s", plan.reason,
        plan.kind == "rows" and "that of row" or "number", indexes[i], shown(found), owner.shard_id, member.shard_id)
    end
  end
  return true
end

CHECK.keys, CHECK.rows = check_several, check_several

function CHECK.shard(_, plan, _, _, _, member)
  if plan.shard_id ~= member.shard_id then
    return mismatch("%s, but the statement would run on %s", plan.reason, member.shard_id)
  end
  return true
end

function CHECK.reference(_, plan)
  if plan.write then
    return nil, routing.reference_refusal(plan.table)
  end
  return true
end

function CHECK.refused(_, plan)
  if plan.code == "NO_KEY" then
    return true
  end
  return nil, target.refusal(plan)
end

local function no_objection()
  return true
end

CHECK.all, CHECK.range = no_objection, no_objection

local function check_closely(router, sql, params, key, member)
  local plan = target.plan(router, sql, params)
  if not plan then
    return true
  end
  return CHECK[plan.kind](router, plan, sql, params, key, member)
end

--- Object to a statement that names another key, or another shard's, than its caller. Yields when a directory has to be
-- asked.
-- @tparam Router router one that checks
-- @string sql
-- @tparam ?table params
-- @param key the routing_key; nil when the caller named the shard itself
-- @tparam table member where it would run
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `KEY_MISMATCH`, `NULL_KEY`, `INVALID`
function checking.check(router, sql, params, key, member)
  local plan = make_plan(router.extractor, router.manager, sql)
  if plan == nil then
    return true
  end
  local param = plan.param
  if param ~= nil and key ~= nil and params ~= nil and params[param] == key then
    return true
  end
  return check_closely(router, sql, params, key, member)
end

--- Object to a statement for a reference table that is about another table's rows.
-- @tparam Router router
-- @string table_name
-- @string sql
-- @tparam ?table params
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function checking.check_reference(router, table_name, sql, params)
  local plan = router.checks and target.plan(router, sql, params)
  local other = plan and plan.table
  if not other or other == table_name or routing.is_reference(router.manager, other) then
    return true
  end
  return nil, errors.new("INVALID", {
    message = ("option table says %s, a reference table, but the statement is about %s, which is none"):format(table_name,
      other),
  })
end

--- Object to a statement for every shard that names the one key whose rows it writes.
-- @tparam Router router one that checks
-- @string sql
-- @tparam ?table params
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `KEY_MISMATCH`
function checking.check_everywhere(router, sql, params)
  local plan = target.plan(router, sql, params)
  local parsed = plan and statement.parse(sql)
  if parsed and parsed.kind == "insert" and (plan.kind == "key" or plan.kind == "rows") then
    return mismatch("%s, but all_shards = true would put the same rows on every shard: leave it out", plan.reason)
  end
  return true
end

return checking
