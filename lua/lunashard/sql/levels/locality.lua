--- Does a statement give, run on each shard for itself, the rows that it would give on all rows together?
-- It does when rows of tables with a shard key meet only rows with the same key, which are on the same shard, and rows
-- of reference tables. What the outermost SELECT then makes of these rows (aggregates, ORDER BY, LIMIT, DISTINCT) is
-- not looked at here.
-- @module lunashard.sql.levels.locality

local names = require("lunashard.sql.levels.names")

local locality = {}

-- More than anybody joins; each is compared with each.
local MAX_TABLES = 100

-- How the rows of something are spread over the shards: `rep`, the same on each; `broken`, a text, not as they would
-- be on all rows together; else by key, and `keys` is what holds it: a list of `{ type_id =, sets = }`, for each
-- column of the key a set of terms.
local REP = { rep = true, keys = {} }

local function broken(text, ...)
  return { broken = text:format(...), keys = {} }
end

-- Functions that give one value for each row, for sure; others may be aggregates.
local SCALAR = {}
for name in ([[abs age array_length btrim cardinality ceil ceiling char_length chr clock_timestamp concat concat_ws
  current_setting date_part date_trunc div encode extract floor format gen_random_uuid greatest initcap jsonb_build_object
  json_build_object jsonb_extract_path_text json_extract_path_text left length lower lpad ltrim make_date md5 mod now
  nullif overlay position pg_typeof power random regexp_replace repeat replace reverse right round row_to_json rpad rtrim
  sign split_part sqrt strpos substr substring timezone to_char to_date to_json to_jsonb to_number to_timestamp translate
  trim trunc upper unnest generate_series]]):gmatch("%S+") do
  SCALAR[name] = true
end

local function item_name(item)
  return item.alias or item.relname or "a sub-select"
end

-- ---- equality ----

local function in_one_group(filter, set, other)
  for _, group in ipairs(filter.groups) do
    local has, has_other = false, false
    for _, term in ipairs(group.terms) do
      has, has_other = has or set[term], has_other or other[term]
    end
    if has and has_other then
      return true
    end
  end
  return false
end

-- Both are known to be the same constant.
local function pinned_alike(set, other)
  local ids = {}
  for term in pairs(set) do
    for _, domain in ipairs(term.domains) do
      ids[domain.id] = domain.kind == "eq"
    end
  end
  for term in pairs(other) do
    for _, domain in ipairs(term.domains) do
      if ids[domain.id] and domain.kind == "eq" then
        return true
      end
    end
  end
  return false
end

local function same_key(key, other, filters)
  if key.type_id ~= other.type_id then
    return false
  end
  for i, set in ipairs(key.sets) do
    local equal = pinned_alike(set, other.sets[i])
    for _, filter in ipairs(filters) do
      equal = equal or in_one_group(filter, set, other.sets[i])
    end
    if not equal then
      return false
    end
  end
  return true
end

local function meet(one, other, filters)
  for _, key in ipairs(one.keys) do
    for _, other_key in ipairs(other.keys) do
      if same_key(key, other_key, filters) then
        return true
      end
    end
  end
  return false
end

local function all_keys(one, other)
  local keys = {}
  for _, list in ipairs({ one.keys, other.keys }) do
    for _, key in ipairs(list) do
      keys[#keys + 1] = key
    end
  end
  return { keys = keys, name = one.name }
end

-- ---- FROM ----

local level_spread, tree_spread

local function own_keys(item)
  local sets = {}
  for i, term in ipairs(item.keys) do
    sets[i] = { [term] = true }
  end
  return { keys = { { type_id = item.key.type_id, sets = sets } }, name = item_name(item) }
end

-- The keys inside, as what holds them outside.
local function exposed(item, inner)
  local keys = {}
  for _, key in ipairs(inner.keys) do
    local sets, complete = {}, true
    for i, set in ipairs(key.sets) do
      sets[i] = {}
      for _, term in pairs(item.terms) do
        if term.inner and set[term.inner] then
          sets[i][term] = true
        end
      end
      complete = complete and next(sets[i]) ~= nil
    end
    if complete then
      keys[#keys + 1] = { type_id = key.type_id, sets = sets }
    end
  end
  return { keys = keys, name = item_name(item) }
end

local function item_spread(item)
  if item.key then
    return own_keys(item)
  elseif item.kind == "table" then
    local entry = item.entry
    if entry and entry.reference then
      return REP
    end
    return { keys = {}, name = item_name(item) }
  elseif item.kind == "sub" then
    local level = item.assumed and item.cte.base_level or item.level
    local inner = level and level_spread(level) or broken("%s refers to itself", item_name(item))
    return (inner.rep or inner.broken) and inner or exposed(item, inner)
  end
  return REP -- a function
end

-- Inner joins as a list of what is joined, and all that is said of it.
local function flatten(tree, filters, factors)
  if tree.join == "JOIN_INNER" then
    filters[#filters + 1] = tree.filter
    flatten(tree.left, filters, factors)
    flatten(tree.right, filters, factors)
  else
    factors[#factors + 1] = tree
  end
end

local function copy_of(filters)
  return { unpack(filters) }
end

local function outer_join(tree, filters)
  local kind = tree.join
  local own = { tree.filter }
  local kept, other = tree.left, tree.right
  if kind == "JOIN_RIGHT" then
    kept, other = other, kept
  end
  local a = tree_spread({ kept }, kind == "JOIN_FULL" and {} or filters)
  local b = tree_spread({ other }, kind == "JOIN_FULL" and {} or own)
  if a.broken or b.broken then
    return a.broken and a or b
  elseif b.rep and kind ~= "JOIN_FULL" or a.rep and b.rep then
    return a
  elseif a.rep or b.rep then
    return broken("an outer join keeps rows of a table that every shard has, for rows of %s", b.name or a.name)
  elseif not meet(a, b, own) then
    return broken("%s and %s are not joined on their shard keys", a.name, b.name)
  end
  return all_keys(a, b)
end

local function factor_spread(tree, filters)
  if tree.item then
    return item_spread(tree.item)
  end
  return outer_join(tree, filters)
end

-- Trees that are joined with each other, under filters that all rows have to pass.
function tree_spread(trees, filters)
  local factors = {}
  filters = copy_of(filters)
  for _, tree in ipairs(trees) do
    flatten(tree, filters, factors)
  end
  local open, result = {}, REP
  for _, factor in ipairs(factors) do
    local spread = factor_spread(factor, filters)
    if spread.broken then
      return spread
    elseif not spread.rep then
      open[#open + 1] = spread
    end
  end
  if #open == 0 then
    return result
  end
  result = table.remove(open, 1)
  while #open > 0 do
    local met
    for i, spread in ipairs(open) do
      if meet(result, spread, filters) then
        met = i
        break
      end
    end
    if not met then
      return broken("%s and %s are not joined on their shard keys", result.name, open[1].name)
    end
    result = all_keys(result, table.remove(open, met))
  end
  return result
end

-- ---- levels ----

-- Every filter that all rows of a level have to pass.
local function level_filters(level)
  local filters = { level.where }
  for _, tree in ipairs(level.trees) do
    flatten(tree, filters, {})
  end
  return filters
end

local function may_aggregate(level)
  for _, call in ipairs(level.calls) do
    local name = call.funcname[#call.funcname].String.sval
    if call.agg_star or call.agg_distinct or call.agg_order or call.agg_filter or call.agg_within_group
      or not SCALAR[name] then
      return name
    end
  end
end

-- NULLs of an outer join are on every shard, and would be one group on all rows.
local function holds_key(terms, spread)
  for _, key in ipairs(spread.keys) do
    local complete = true
    for _, set in ipairs(key.sets) do
      local found = false
      for term in pairs(set) do
        found = found or terms[term] and not names.may_be_null(term)
      end
      complete = complete and found
    end
    if complete then
      return true
    end
  end
  return false
end

local function output_terms(level)
  local terms = {}
  for _, entry in ipairs(level.outputs) do
    if entry.term then
      terms[entry.term] = true
    end
  end
  return terms
end

-- Inside another query, what a level makes of its rows must be made of rows of one key.
local function nested_check(level, spread)
  local node = level.node
  if node.limitCount or node.limitOffset then
    return broken("LIMIT in a sub-select counts rows of %s on all shards", spread.name)
  elseif node.windowClause or level.has_window then
    return broken("a window function in a sub-select sees rows of %s on all shards", spread.name)
  elseif level.has_grouping_sets or node.groupClause and not holds_key(level.groups, spread) then
    return broken("a sub-select groups rows of %s by other columns than the shard key", spread.name)
  elseif not node.groupClause and (node.havingClause or may_aggregate(level)) then
    return broken("an aggregate in a sub-select is of rows of %s on all shards", spread.name)
  elseif node.distinctClause and (next(node.distinctClause[1]) or not holds_key(output_terms(level), spread)) then
    return broken("DISTINCT in a sub-select is of rows of %s on all shards", spread.name)
  end
  return spread
end

-- A level inside an expression: of reference tables, or of rows with the key of the row outside.
local function check_within(level, spread)
  for _, within in ipairs(level.within) do
    local inner = level_spread(within.level, { correlated = spread })
    if inner.broken then
      return inner
    elseif not inner.rep and not inner.tied then
      local tied = within.item and meet(spread, exposed(within.item, inner), level_filters(level))
      if not tied then
        return broken("a sub-select reads %s without the shard key of the row that it is for",
          inner.name or "a table")
      end
    end
  end
  return spread
end

local function select_spread(level, options)
  local spread = tree_spread(level.trees, { level.where })
  if spread.broken then
    return spread
  end
  spread = check_within(level, spread)
  if spread.broken or spread.rep or options.top then
    return spread
  end
  local outside = options.correlated
  if outside and meet(spread, outside, level_filters(level)) then
    return { keys = spread.keys, name = spread.name, tied = true }
  end
  return nested_check(level, spread)
end

-- Columns of a UNION that hold the key in both arms.
local function union_keys(level, left, right)
  local keys = {}
  for _, key in ipairs(left.keys) do
    for _, other in ipairs(right.keys) do
      local sets, complete = {}, key.type_id == other.type_id
      for i, set in ipairs(complete and key.sets or {}) do
        sets[i] = {}
        for _, entry in ipairs(level.outputs) do
          local arms = entry.term and entry.term.arms
          if arms and set[arms[1]] and other.sets[i][arms[2]] then
            sets[i][entry.term] = true
          end
        end
        complete = complete and next(sets[i]) ~= nil
      end
      if complete then
        keys[#keys + 1] = { type_id = key.type_id, sets = sets }
      end
    end
  end
  return keys
end

local function union_spread(level, options)
  local left, right = level_spread(level.left), level_spread(level.right)
  if left.broken or right.broken then
    return left.broken and left or right
  elseif left.rep and right.rep then
    return left
  elseif left.rep or right.rep then
    return broken("one arm of a UNION is the same on every shard, the other is not")
  end
  local spread = { keys = union_keys(level, left, right), name = left.name }
  local node = level.node
  if (node.op ~= "SETOP_UNION" or not node.all or level.recursive) and not holds_key(output_terms(level), spread) then
    return broken("the arms of a UNION, INTERSECT or EXCEPT do not give the shard key in the same column")
  elseif not options.top and (node.limitCount or node.limitOffset) then
    return broken("LIMIT in a sub-select counts rows of %s on all shards", spread.name)
  end
  return spread
end

local function insert_spread(level)
  local item, query = level.target, level.query
  local spread = query and level_spread(query) or REP
  if spread.broken then
    return spread
  elseif not item.key then
    if item.entry and item.entry.reference and not spread.rep then
      return broken("%s is on every shard, but what is inserted is not the same on each", item_name(item))
    end
    return check_within(level, REP)
  elseif not item.rows and not meet(own_keys(item), spread, level.filters) then
    return broken("the rows that are inserted into %s need not belong to the shard that they are read on",
      item_name(item))
  end
  return check_within(level, own_keys(item))
end

local function write_spread(level)
  local spread = tree_spread(level.trees, { level.where })
  if spread.broken then
    return spread
  elseif level.target.entry and level.target.entry.reference and not spread.rep then
    return broken("%s is on every shard, but what is written depends on rows of one", item_name(level.target))
  end
  for _, row in ipairs(level.inserted or {}) do
    if not meet(spread, own_keys(row), level.filters) then
      return broken("the rows that are inserted into %s need not belong to the shard that they are read on",
        item_name(row))
    end
  end
  return check_within(level, spread)
end

local function spread_of(level, options)
  if level.kind == "select" then
    return select_spread(level, options)
  elseif level.kind == "union" then
    return union_spread(level, options)
  elseif level.kind == "values" then
    return check_within(level, REP)
  elseif level.kind == "insert" then
    return insert_spread(level)
  end
  return write_spread(level)
end

-- `options`: `top`, the outermost one, or `correlated`, the spread of the query around it.
function level_spread(level, options)
  if options then
    return spread_of(level, options)
  end
  level.spread = level.spread or spread_of(level, {})
  return level.spread
end

--- Look at a statement.
-- @tparam table built what `build.run` gave, solved
-- @treturn[1] boolean true
-- @treturn[2] boolean false
-- @treturn[2] string why not
function locality.of(built)
  if #built.instances > MAX_TABLES then
    return false, ("it has more than %d tables"):format(MAX_TABLES)
  end
  local spread = level_spread(built.top, { top = true })
  if spread.broken then
    return false, spread.broken
  elseif spread.rep and #built.instances > 0 then
    return false, "every shard would give the same rows"
  end
  for _, cte in ipairs(built.ctes) do
    if cte.uses == 0 or cte.level.target then
      spread = level_spread(cte.level)
      if spread.broken then
        return false, spread.broken
      end
    end
  end
  return true
end

return locality
