--- Orders of rows: what ORDER BY says, done on our side.
-- An order is a list of items `{ column =, desc =, nulls_first =, collate =, type = }`; NULLs
-- stand where the server puts them unless told otherwise: last when ascending, first when
-- descending.
-- @module lunashard.order

local errors = require("lunashard.errors")
local options = require("lunashard.options")
local sortkey = require("lunashard.order.sortkey")

local order = {}

local ITEM_OPTIONS = options.known({
  [1] = "string", desc = "boolean", nulls = "string", collate = "string", type = "string",
})

-- "created_at desc nulls last, "My Column" collate "C"" into words; a comma ends an item.
local function words_of(spec)
  local items, words, pos = {}, {}, 1
  while pos <= #spec do
    local start, stop, quoted = spec:find('^%s*"([^"]+)"', pos)
    if not start then
      start, stop, quoted = spec:find("^%s*([%w_.\128-\255$]+)", pos)
    end
    if start then
      words[#words + 1] = quoted
    else
      start, stop = spec:find("^%s*,", pos)
      if start then
        items[#items + 1], words = words, {}
      else
        start, stop = spec:find("^%s+$", pos)
        if not start then
          return nil
        end
      end
    end
    pos = stop + 1
  end
  items[#items + 1] = words
  return items
end

local function item_of_words(words)
  local item, at = { column = words[1] }, 2
  local function next_word()
    return words[at] and words[at]:lower()
  end
  if next_word() == "collate" then
    item.collate, at = words[at + 1], at + 2
  end
  if next_word() == "desc" or next_word() == "asc" then
    item.desc, at = next_word() == "desc", at + 1
  end
  item.desc = item.desc or false
  item.nulls_first = item.desc
  if next_word() == "nulls" then
    at = at + 1
    if next_word() ~= "first" and next_word() ~= "last" then
      return nil
    end
    item.nulls_first, at = next_word() == "first", at + 1
  end
  return item.column and words[at] == nil and item or nil
end

local function bad_order(spec, level)
  error(("bad order %s: expected column [collate \"C\"] [asc | desc] [nulls first | nulls last], ...")
    :format(options.describe(spec)), level)
end

local function add_text(items, spec, level)
  for _, words in ipairs(words_of(spec) or bad_order(spec, level + 1)) do
    items[#items + 1] = item_of_words(words) or bad_order(spec, level + 1)
  end
end

local function add_table(items, spec, level)
  for name in pairs(spec) do
    if ITEM_OPTIONS[name] == nil then
      error(errors.unknown_option("order item", name, { "desc", "nulls", "collate", "type" }), level)
    end
  end
  local nulls = spec.nulls
  if type(spec[1]) ~= "string" or (nulls ~= nil and nulls ~= "first" and nulls ~= "last") then
    error('an order item is { "column", desc = true, nulls = "first" or "last" }', level)
  end
  local item = { column = spec[1], desc = spec.desc or false, collate = spec.collate, type = spec.type }
  item.nulls_first = nulls == nil and item.desc or nulls == "first"
  items[#items + 1] = item
end

--- Read an order as a user gives it. Raises when it makes no sense.
-- @tparam string|table spec `"created_at desc, id"`, or a list of such strings and of items
--   `{ "created_at", desc = true, nulls = "last", collate = "C", type = "timestamptz" }`
-- @tparam[opt] string collate for items that name none
-- @number[opt=2] level who is blamed for a bad one, counted as for `error`
-- @treturn table the order
function order.parse(spec, collate, level)
  level = (level or 2) + 1
  local items = {}
  if type(spec) == "string" then
    add_text(items, spec, level)
  elseif type(spec) ~= "table" or #spec == 0 then
    bad_order(spec, level)
  elseif spec.desc ~= nil or spec.nulls ~= nil or spec.collate ~= nil or spec.type ~= nil then
    add_table(items, spec, level)
  else
    for _, part in ipairs(spec) do
      if type(part) == "string" then
        add_text(items, part, level)
      elseif type(part) == "table" then
        add_table(items, part, level)
      else
        bad_order(part, level)
      end
    end
  end
  for _, item in ipairs(items) do
    item.collate = item.collate or collate
  end
  return items
end

local function not_mergeable(fields)
  return nil, errors.new("NOT_MERGEABLE", fields)
end

--- The error for a column that the rows do not have.
-- @string column
-- @tparam table types column name -> SQL type
-- @tparam ?string shard_id
-- @treturn lunashard.error `INVALID`
function order.no_column(column, types, shard_id)
  local near = errors.nearest(column, types)
  return errors.new("INVALID", {
    message = ("no column %q in the rows%s"):format(column, near and ("; did you mean %q?"):format(near) or ""),
    shard_id = shard_id,
  })
end

local Bound = {}
Bound.__index = Bound

--- Prepare an order for rows whose column types are known.
-- @tparam table items the order
-- @tparam ?table types column name -> SQL type; nil lets the Lua values say
-- @tparam ?string shard_id for messages
-- @treturn[1] Bound with `keys(row)` and `compare(keys, keys)`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` for an unknown column, `NOT_MERGEABLE` for a type that
--   cannot be ordered outside the server
function order.bind(items, types, shard_id)
  local bound = { items = items, shard_id = shard_id, key_of = {}, family = {} }
  for i, item in ipairs(items) do
    if types ~= nil and types[item.column] == nil then
      return nil, order.no_column(item.column, types, shard_id)
    end
    local sql_type = item.type or (types and types[item.column])
    local key_of, reason = sortkey.ordering(sql_type, item.collate)
    if not key_of then
      return not_mergeable({ message = ("column %q: %s"):format(item.column, reason), shard_id = shard_id })
    end
    bound.key_of[i] = key_of
    bound.family[i] = sortkey.family(sql_type)
  end
  return setmetatable(bound, Bound)
end

--- The error for a value that is not of its column's type.
-- @tparam Bound bound
-- @int i the item
-- @param value
-- @treturn lunashard.error `NOT_MERGEABLE`
function order.misplaced(bound, i, value)
  local column, family = bound.items[i].column, bound.family[i]
  local message = ("column %q: %s has no place in the order of its type (%s)"):format(column, options.describe(value),
    family)
  if family == "untyped" and type(value) == "string" then
    message = ("column %q holds text, and its type is not known: give collate = \"C\""):format(column)
  end
  return errors.new("NOT_MERGEABLE", { message = message, shard_id = bound.shard_id })
end

--- The sort keys of a row, to be compared with those of another.
-- @tparam table row
-- @treturn[1] table one key for each item, nil for NULL
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE` for a value that is not of its type
function Bound:keys(row)
  local keys = {}
  for i, item in ipairs(self.items) do
    local value = row[item.column]
    if value ~= nil then
      local key = self.key_of[i](value)
      if key == nil then
        return nil, order.misplaced(self, i, value)
      end
      keys[i] = key
    end
  end
  return keys
end

--- Compare the keys of two rows of one order.
-- @tparam table items the order
-- @tparam table a
-- @tparam table b
-- @treturn number below 0, 0 or above 0
function order.compare(items, a, b)
  for i = 1, #items do
    local item, x, y = items[i], a[i], b[i]
    local by
    if x == nil or y == nil then
      by = x == y and 0 or (x == nil) == item.nulls_first and -1 or 1
    else
      by = sortkey.compare(x, y)
      by = item.desc and -by or by
    end
    if by ~= 0 then
      return by
    end
  end
  return 0
end

--- Refuse to compare columns of different kinds, such as int8 on one shard and text on another.
-- @tparam Bound a
-- @tparam Bound b
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE`
function order.check_same(a, b)
  for i, item in ipairs(a.items) do
    if a.family[i] ~= b.family[i] then
      return not_mergeable({
        message = ("column %q is %s on %s but %s on %s: cast it to one type"):format(item.column, a.family[i],
          tostring(a.shard_id), b.family[i], tostring(b.shard_id)),
        shard_id = b.shard_id,
      })
    end
  end
  return true
end

--- Column name -> SQL type of a result.
-- @tparam table result with `columns` and `column_types`
-- @treturn ?table nil when the result does not say
function order.types(result)
  if type(result.columns) ~= "table" or type(result.column_types) ~= "table" then
    return nil
  end
  local types = {}
  for i, name in ipairs(result.columns) do
    types[name] = result.column_types[i] or "unknown"
  end
  return types
end

return order
