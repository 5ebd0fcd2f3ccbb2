--- What an extractor makes of a statement: a plan, made once for each text and kept.
--
-- Fields of a plan: `kind`, `write` (it changes data), `table` (the declared name, where there is one), `extractor`,
-- `reason` (in words), and by `kind`
--
-- - `key`: `param` (the number of the parameter that is the key) or `value`; `columns`, a list of sources, for a key of
--   several columns; neither when only `keys` can tell;
-- - `keys`: `list` (of sources) or `array_param` (the parameter that is the list), and where the text holds the list
--   `split(indexes, params)`, which gives the statement and parameters for some of them;
-- - `range`: `low`, `high` (sources, nil is open), `low_exclusive`, `high_exclusive`;
-- - `rows`: `rows` (the source of the key of each row of an INSERT) and `split` as above;
-- - `shard`: `shard_id`;
-- - `reference`: only reference tables, or no table at all, so that any shard can answer;
-- - `all`: a read of which nothing says which shard;
-- - `refused`: `code`, `hint`: a write of which nothing says which shard (`NO_KEY`), or what no key makes right;
-- - `dynamic`: it must be asked each time, by `ask`.
--
-- A source is `{ param = }` or `{ value = }`, with `as`, a key type, where the type is not declared and a cast tells it.
-- @module lunashard.extraction

local core = require("lunashard.core.placement")
local errors = require("lunashard.errors")
local statement = require("lunashard.sql.statement")
local tables = require("lunashard.sql.tables")
local values = require("lunashard.values")

local extraction = {}

local null = values.null

-- ---- making and keeping plans ----

-- Programs run the same texts again and again. Two generations: what was used since the older one was dropped is kept.
-- `ITEM_BYTES` is about what a plan takes for each key that is in the text.
local CACHE_ENTRIES, CACHE_BYTES, ITEM_BYTES = 2048, 16 * 1024 * 1024, 400

local function new_cache(manager)
  return { strategies = manager.strategies, tables = manager.tables, young = {}, old = {}, n_young = 0, bytes = 0 }
end

-- A plan holds as long as the declared tables and the strategy's key are the same. Kept by manager, not by what plans
-- depend on: a cache that refers to its key would stay for ever.
local function cache_of(extractor, manager)
  local cache = extractor.caches[manager]
  if not cache or cache.strategies ~= manager.strategies or cache.tables ~= manager.tables then
    cache = new_cache(manager)
    extractor.caches[manager] = cache
  end
  extractor.cache = cache
  return cache
end

local Statement = {}

-- What most extractors never look at.
function Statement.__index(self, name)
  if name == "ast" then
    self.ast = self.parsed and self.parsed.ast[1] and self.parsed.ast[1].stmt
    return self.ast
  end
end

local function table_names(parsed)
  local list = {}
  for i, one in ipairs(parsed and parsed.tables or {}) do
    list[i] = one.schema and one.schema .. "." .. one.name or one.name
  end
  return list
end

-- A text that our parser does not take, though the server may.
local TOO_LONG = "a text of more than 32 KiB is not parsed, so that its key is not known"

local function is_too_much(err)
  return err.code == "INVALID"
end

local function make(extractor, manager, sql)
  local parsed, err = statement.parse(sql)
  if not parsed and not is_too_much(err) then
    return nil, err
  elseif parsed and parsed.statements ~= 1 then
    return nil, errors.new("INVALID", {
      message = parsed.statements == 0 and "the statement is empty"
        or ("there are %d statements in one text: only execute_on_all_shards takes several"):format(parsed.statements),
    })
  end
  local asked = setmetatable({
    sql = sql, parsed = parsed, kind = parsed and parsed.kind:upper(), tables = table_names(parsed),
    declared = tables.of(manager), unparsed = not parsed and (#sql > 32768 and TOO_LONG or err.message) or nil,
  }, Statement)
  local plan
  plan, err = extractor:plan(asked, manager)
  if parsed then
    parsed.ast = nil -- the largest part of what is kept, and made anew for whoever wants it
  end
  return plan, err
end

local function keep(cache, sql, plan)
  if cache.n_young >= CACHE_ENTRIES or cache.bytes >= CACHE_BYTES then
    cache.young, cache.old, cache.n_young, cache.bytes = {}, cache.young, 0, 0
  end
  local items = plan.rows or plan.list
  cache.young[sql], cache.n_young = plan, cache.n_young + 1
  cache.bytes = cache.bytes + #sql + (items and #items * ITEM_BYTES or 0)
end

local function find_or_make(extractor, manager, cache, sql)
  local plan = cache.old[sql]
  if not plan then
    local err
    plan, err = make(extractor, manager, sql)
    if not plan then
      return nil, err
    end
  end
  if #sql <= 32768 then
    keep(cache, sql, plan)
  end
  return plan
end

--- The plan of a statement. Plans are kept by text and shared: not to be changed.
-- @tparam Extractor extractor
-- @tparam Manager manager
-- @string sql
-- @treturn[1] table plan
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SQL` with `sqlstate` and `position` for what does not parse, `INVALID` for none or
--   several statements
function extraction.plan(extractor, manager, sql)
  local cache = extractor.cache
  if cache == nil or cache.strategies ~= manager.strategies or cache.tables ~= manager.tables then
    cache = cache_of(extractor, manager)
  end
  local plan = cache.young[sql]
  if plan then
    return plan
  end
  return find_or_make(extractor, manager, cache, sql)
end

--- Ask an extractor of what kind a statement is with these parameters. Yields when a directory has to be asked.
-- @tparam table plan of kind `dynamic`
-- @tparam ?table params
-- @treturn[1] table a plan of another kind
-- @treturn[2] nil
-- @treturn[2] lunashard.error `PLUGIN_FAILED`
function extraction.ask(plan, params)
  while plan.kind == "dynamic" do
    local err
    plan, err = plan.ask(plan, params or {})
    if not plan then
      return nil, err
    end
  end
  return plan
end

-- ---- values ----

local function as_type(as, value)
  if as == nil or value == nil or value == null then
    return value
  elseif as == "text" and type(value) == "number" and value % 1 == 0 and math.abs(value) <= 2 ^ 53 then
    return ("%d"):format(value)
  end
  return core.canonical(as, value)
end

-- nil for NULL; nil and an error for what is no value of the type.
local function value_of(source, params)
  if source.columns then
    local list = {}
    for i, column in ipairs(source.columns) do
      local value, err = value_of(column, params)
      if err then
        return nil, err
      end
      list[i] = value == nil and null or value
      if list[i] == null then
        return nil
      end
    end
    return list
  elseif source.param then
    return as_type(source.as, params and params[source.param])
  end
  return source.value
end

local function array_values(plan, params)
  local list = params and params[plan.array_param]
  if list == nil or list == null then
    return {}, 0 -- nothing is equal to any of no array
  elseif type(list) ~= "table" then
    return nil, errors.new("INVALID", {
      message = ("parameter $%d is a list of keys: expected a table, got a %s"):format(plan.array_param, type(list)),
    })
  elseif plan.array_as == nil then
    return list, list.n or #list
  end
  local typed, n = {}, list.n or #list
  for i = 1, n do
    local value, err = as_type(plan.array_as, list[i])
    if err then
      return nil, err
    end
    typed[i] = value
  end
  return typed, n
end

--- The keys that a plan of kind `key`, `keys` or `rows` names.
-- @tparam table plan
-- @tparam ?table params
-- @treturn[1] table a list, in the statement's order, which is not to be changed; nil or `lunashard.null` in it for NULL
-- @treturn[1] int how many there are
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for what is no value of the type that the statement casts it to
function extraction.keys(plan, params)
  if plan.array_param then
    return array_values(plan, params)
  elseif plan.kind == "key" then
    local key, err = value_of(plan.source or plan, params)
    if err then
      return nil, err
    end
    return { key }, 1
  end
  local keys, sources = {}, plan.rows or plan.list
  for i, source in ipairs(sources) do
    local value, err = value_of(source, params)
    if err then
      return nil, err
    end
    keys[i] = value
  end
  return keys, #sources
end

local function bound_of(plan, source, params)
  if source == nil then
    return nil
  end
  local value, err = value_of(source, params)
  if err or value == null or plan.untyped and type(value) == "string" then
    return nil, err -- a text may be in a range of another order than ours
  end
  return value
end

--- The bounds of a plan of kind `range`, both inclusive: no key of the range is outside of them.
-- @tparam table plan
-- @tparam ?table params
-- @return[1] low; nil is open
-- @return[1] high; nil is open
-- @return[2] nil
-- @return[2] nil
-- @treturn[2] lunashard.error `INVALID`
function extraction.bounds(plan, params)
  local low, err = bound_of(plan, plan.low, params)
  if err then
    return nil, nil, err
  end
  local high
  high, err = bound_of(plan, plan.high, params)
  if err then
    return nil, nil, err
  end
  return low, high
end

return extraction
