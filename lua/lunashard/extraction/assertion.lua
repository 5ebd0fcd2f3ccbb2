--- Keys that a hint, a parameter's number or a user's extractor names, beside what the statement itself says.
-- Where the columns of the statement name a key, it must be the same: a row must not be sent to the shard of a key that is
-- not its own.
-- @module lunashard.extraction.assertion

local columns = require("lunashard.extraction.columns")
local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")

local assertion = {}

local NAMES_KEYS = { key = true, keys = true, rows = true }

--- The plan by columns, where it can be made.
-- @tparam table statement
-- @treturn ?table nil when no tables are declared, or the text is too long
function assertion.by_columns(statement)
  if statement.parsed and statement.declared.declares then
    return columns.plan(statement, statement.declared)
  end
end

--- The table of the shard key that a statement is about.
-- @tparam table statement
-- @tparam ?table plan by columns
-- @treturn ?string its name
-- @treturn ?table its entry in the declared tables
function assertion.table_of(statement, plan)
  local declared = statement.declared
  local entry = plan and plan.table and declared:named(plan.table)
  if entry and entry.columns then
    return plan.table, entry
  end
  for _, one in ipairs(statement.parsed and statement.parsed.tables or {}) do
    entry = declared:find(one.schema, one.name)
    if entry and entry.columns then
      return entry.table, entry
    end
  end
  return nil, declared.default
end

local function text_of(key)
  if type(key) ~= "table" then
    return type(key) == "cdata" and tostring(key):gsub("U?LL$", "") or tostring(key)
  end
  local parts = {}
  for i, part in ipairs(key) do
    parts[i] = text_of(part)
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function mismatch(plan, format, ...)
  return {
    kind = "refused", code = "KEY_MISMATCH", write = plan.write, table = plan.table, extractor = plan.extractor,
    reason = format:format(...),
  }
end

local function canonical_text(key_type, key)
  local value = core.canonical(key_type, key)
  return value == nil and text_of(key) or text_of(value)
end

local function same_key(manager, table_name, a, b)
  local strategy = manager:strategy_for(table_name, a)
  local key_type = strategy and strategy.key_type
  return canonical_text(key_type, a) == canonical_text(key_type, b)
end

-- The first key by columns that is not where the plan says.
local function contradiction(plan, against, params, manager)
  local extraction = require("lunashard.extraction") -- which needs the extractors
  local keys, n = extraction.keys(against, params)
  if not keys then
    return nil, n
  end
  local wanted = plan.kind == "key" and extraction.keys(plan, params)
  for i = 1, n do
    local key = keys[i]
    if key ~= nil and key ~= require("lunashard.values").null then
      if wanted and wanted[1] ~= nil and not same_key(manager, against.table, wanted[1], key) then
        return mismatch(plan, "%s says %s, but %s says %s", plan.extractor, text_of(wanted[1]), against.reason,
          text_of(key))
      elseif plan.kind == "shard" then
        local strategy, err = manager:strategy_for(against.table, key)
        local shard_id
        if strategy then
          shard_id, err = strategy:route(key)
        end
        if not shard_id then
          return nil, err
        elseif shard_id ~= plan.shard_id then
          return mismatch(plan, "%s says %s, but %s belongs to %s (%s)", plan.extractor, plan.shard_id, text_of(key),
            shard_id, against.reason)
        end
      end
    end
  end
end

local function says_the_same(plan, against)
  return plan.kind == "key" and against.kind == "key" and plan.param ~= nil and plan.param == against.param
end

--- A plan that holds only where the statement does not say otherwise.
-- @tparam table plan of kind `key` or `shard`
-- @tparam ?table against what the columns say
-- @tparam Manager manager
-- @treturn table `plan` itself where nothing can be said against it, else one of kind `dynamic` or `refused`
function assertion.checked(plan, against, manager)
  if not against or says_the_same(plan, against) then
    return plan
  elseif against.kind == "refused" and against.code ~= "NO_KEY" then
    return against
  elseif against.kind == "reference" and against.write then
    return against -- no hint makes one shard of all
  elseif not NAMES_KEYS[against.kind] then
    return plan
  end
  return {
    kind = "dynamic", write = plan.write, table = plan.table, extractor = plan.extractor, reason = plan.reason,
    ask = function(_, params)
      local other, err = contradiction(plan, against, params, manager)
      if err then
        return nil, err
      end
      return other or plan
    end,
  }
end

--- No key, and why.
-- @tparam table statement
-- @string extractor
-- @string reason
-- @treturn table plan of kind `all`, or `refused` for a write
function assertion.none(statement, extractor, reason)
  local parsed = statement.parsed
  local write = not parsed or parsed.modifies or parsed.into or parsed.kind == "utility"
  return {
    kind = write and "refused" or "all", code = write and "NO_KEY" or nil, write = write, extractor = extractor,
    reason = reason,
  }
end

--- A failure of a user's extractor.
-- @string name
-- @param err what it raised
-- @treturn lunashard.error `PLUGIN_FAILED`
function assertion.failure(name, err)
  if errors.is(err) then
    return err
  end
  return errors.new("PLUGIN_FAILED", { message = ("extractor %s: %s"):format(name, tostring(err)), cause = err })
end

return assertion
