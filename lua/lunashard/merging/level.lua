--- One query level: its tables, and which of their shard keys are equal.
-- @module lunashard.merging.level

local expression = require("lunashard.merging.expression")

local level = {}

local Level = {}
Level.__index = Level

--- A level without tables.
-- @tparam table env names of WITH in scope
-- @tparam ?Level outer
-- @treturn Level
function level.new(env, outer)
  return setmetatable({ env = env, outer = outer, entries = {}, edges = {}, outward = {} }, Level)
end

--- Add a table.
-- @tparam table entry `sharded`, `keys`, `n_keys`, `type_id`
-- @string alias
-- @tparam ?table alias_node with names of columns
-- @treturn table entry
function Level:add(entry, alias, alias_node)
  entry.alias = alias
  if alias_node and alias_node.colnames then -- other names for its columns
    entry.keys, entry.columns = {}, nil
  end
  self.entries[#self.entries + 1] = entry
  return entry
end

local function names_of(ref)
  local fields = ref.fields
  local column, qualifier = fields[#fields], fields[#fields - 1]
  return column.String and column.String.sval, qualifier and qualifier.String and qualifier.String.sval
end

--- The shard key that a column is.
-- @tparam table ref a `ColumnRef`
-- @treturn[1] table entry
-- @treturn[1] int which column of the key
-- @treturn[1] boolean is it one of a level around this one?
-- @treturn[2] nil
function Level:key_of(ref)
  local column, qualifier = names_of(ref)
  local best
  for _, entry in ipairs(self.entries) do
    if qualifier == nil or entry.alias == qualifier then
      local index = entry.sharded and entry.keys[column]
      if index and (best == nil or best.nullable) then
        best = entry
      end
      if qualifier and not index then
        return nil
      end
    end
  end
  if best then
    return best, best.keys[column], false
  elseif qualifier and self.outer then
    local entry, index = self.outer:key_of(ref)
    return entry, index, entry ~= nil
  end
end

local function mark(edges, a, b, index)
  edges[a] = edges[a] or {}
  edges[a][b] = edges[a][b] or { n = 0 }
  local edge = edges[a][b]
  if not edge[index] then
    edge[index], edge.n = true, edge.n + 1
  end
end

local function contains(list, wanted)
  for _, one in ipairs(list) do
    if one == wanted then
      return true
    end
  end
  return false
end

-- What an outer join says of two tables leads from the side that keeps its rows to the other one: that both
-- of two tables on one side equal a third says nothing of rows without a match.
function Level:connect(a, b, index, join)
  if not join or join.type == "JOIN_INNER" then
    mark(self.edges, a, b, index)
    mark(self.edges, b, a, index)
    return
  end
  local from, to = join.left, join.right
  if join.type == "JOIN_RIGHT" then
    from, to = to, from
  end
  if contains(from, b) then
    a, b = b, a
  end
  if contains(from, a) and contains(to, b) then
    mark(self.edges, a, b, index)
  end
end

--- Two columns are equal.
-- @tparam table left a `ColumnRef`
-- @tparam table right a `ColumnRef`
-- @tparam ?table join whose condition says so: `type`, `left` and `right` (entries); nil for WHERE
function Level:link(left, right, join)
  local a, i, a_outside = self:key_of(left)
  local b, k, b_outside = self:key_of(right)
  if not a or not b or a == b or i ~= k or a.type_id ~= b.type_id or a.n_keys ~= b.n_keys then
    return
  elseif not a_outside and not b_outside then
    self:connect(a, b, i, join)
  elseif a_outside ~= b_outside and (not join or join.type == "JOIN_INNER") then
    mark(self.outward, a_outside and b or a, a_outside and a or b, i)
  end
end

--- The columns of one name are equal on both sides of a join.
-- @tparam table join
-- @string column
function Level:link_using(join, column)
  for _, a in ipairs(join.left) do
    for _, b in ipairs(join.right) do
      local index = a.sharded and b.sharded and a.keys[column]
      if index and b.keys[column] == index and a.type_id == b.type_id and a.n_keys == b.n_keys then
        self:connect(a, b, index, join)
      end
    end
  end
end

local function is_complete(edge, entry)
  return edge ~= nil and entry.n_keys > 0 and edge.n == entry.n_keys
end

-- Rows of the server's own tables belong to their server.
local function are_linked(edges, a, b)
  return a.system and b.system or is_complete(edges[a] and edges[a][b], a)
end

--- Do two sides of a join compare their keys?
-- @tparam {table,...} left entries
-- @tparam {table,...} right entries
-- @treturn boolean
function Level:is_linked(left, right)
  for _, a in ipairs(left) do
    for _, b in ipairs(right) do
      if a.sharded and b.sharded and (are_linked(self.edges, a, b) or are_linked(self.edges, b, a)) then
        return true
      end
    end
  end
  return false
end

local function sharded_entries(self)
  local list = {}
  for _, entry in ipairs(self.entries) do
    if entry.sharded then
      list[#list + 1] = entry
    end
  end
  return list
end

-- The tables whose rows are where the rows of one are.
local function reached_from(self, list, root)
  local reached, queue = {}, { root }
  while #queue > 0 do
    local entry = table.remove(queue)
    reached[entry] = true
    for _, other in ipairs(list) do
      if not reached[other] and are_linked(self.edges, entry, other) then
        queue[#queue + 1] = other
      end
    end
  end
  return reached
end

-- The first of the tables that is not; nil when there is none.
local function first_apart(self, list, root)
  local reached = reached_from(self, list, root)
  for _, entry in ipairs(list) do
    if not reached[entry] then
      return entry
    end
  end
end

--- Are all sharded tables joined by their keys?
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string which are not
function Level:check_connected()
  local list = sharded_entries(self)
  for _, root in ipairs(list) do
    if not first_apart(self, list, root) then
      return true
    end
  end
  if not list[1] then
    return true
  end
  return nil, ("%s and %s are not joined by their shard keys: rows that belong together may be on different shards")
    :format(list[1].alias, first_apart(self, list, list[1]).alias)
end

--- Are its rows those of one key of the level around it?
-- @treturn boolean
function Level:is_correlated()
  local list = sharded_entries(self)
  for entry, edges in pairs(self.outward) do
    for _, edge in pairs(edges) do
      if is_complete(edge, entry) and not first_apart(self, list, entry) then
        return true
      end
    end
  end
  return false
end

--- Do these expressions name all columns of a shard key?
-- @tparam {table,...} nodes
-- @treturn boolean
function Level:covers_key(nodes)
  local seen = {}
  for _, node in ipairs(nodes) do
    local entry, index, outside = nil, nil, nil
    if node.ColumnRef then
      entry, index, outside = self:key_of(node.ColumnRef)
    end
    if entry and not outside and not entry.nullable then
      seen[entry] = seen[entry] or { n = 0 }
      if not seen[entry][index] then
        seen[entry][index], seen[entry].n = true, seen[entry].n + 1
        if seen[entry].n == entry.n_keys then
          return true
        end
      end
    end
  end
  return false
end

-- May a name in GROUP BY be a column of the tables? nil when it is not known.
local function is_input_column(self, name)
  for _, entry in ipairs(self.entries) do
    if entry.sharded and entry.keys[name] then
      return true
    elseif not entry.columns then
      return nil
    elseif entry.columns[name] then
      return true
    end
  end
  return false
end

--- The table that a column without one in front is of.
-- @string name
-- @treturn ?string its alias; nil when it is not known, or may be that of several joined by USING
function Level:owner_of(name)
  local owner
  for _, entry in ipairs(self.entries) do
    if not entry.columns or owner and entry.columns[name] then
      return nil
    end
    owner = entry.columns[name] and entry.alias or owner
  end
  return owner
end

--- What an item of GROUP BY means: an expression, for a column comes before an alias, and an alias before nothing.
-- @tparam table stmt
-- @tparam table node
-- @tparam table ctx `integer_of(constant)`, `is_offline` (the catalog is not asked), `missing`
-- @treturn[1] table the expression
-- @treturn[1] ?int the number of the target that it is
-- @treturn[2] nil
-- @treturn[2] string why it cannot be told
function Level:group_item(stmt, node, ctx)
  local constant, ref = node.A_Const, node.ColumnRef
  if constant and constant.ival then
    local number = ctx.integer_of(constant)
    local target = number and stmt.targetList[number]
    if not target then
      return nil, "GROUP BY names a position that the list does not have"
    end
    return target.ResTarget.val, number
  elseif not ref or #ref.fields ~= 1 or not ref.fields[1].String then
    return node
  end
  local name = ref.fields[1].String.sval
  for i, target in ipairs(stmt.targetList or {}) do
    local value = target.ResTarget.val
    if target.ResTarget.name == name then
      local own = value.ColumnRef and value.ColumnRef.fields
      if own and #own == 1 and own[1].String and own[1].String.sval == name then
        return value, i
      end
      local is_column = is_input_column(self, name)
      if is_column == nil and ctx.is_offline and next(ctx.missing.relations) then
        is_column = false -- most likely; the plan says that it was assumed
      end
      if is_column == false then
        return value, i
      elseif is_column == nil then
        return nil, ("GROUP BY %s may be a column or the alias: write the expression or its position"):format(name)
      end
      return node
    end
  end
  return node
end

-- The windows that calls name, and those written with them.
local function partitions(stmt, windows)
  local named = {}
  for _, window in ipairs(stmt.windowClause or {}) do
    named[window.WindowDef.name] = window.WindowDef
  end
  local list = {}
  for _, call in ipairs(windows) do
    local over = call.over
    local base = named[over.name or over.refname or false]
    while base and not base.partitionClause and named[base.refname or false] do
      base = named[base.refname]
    end
    list[#list + 1] = over.partitionClause or base and base.partitionClause or {}
  end
  return list
end

--- How a query forms groups, and whether each group lies on one shard.
-- @tparam table ctx `integer_of`, `user_aggregates`
-- @tparam table stmt
-- @treturn table `aggregated` (aggregates, GROUP BY or HAVING), `grouped_by_key`, `distinct_by_key`, `windows_by_key`,
--   `has_windows`, `problem`: why the rows are not those of the shards put together
function Level:shape(ctx, stmt)
  local contents = expression.contents({ stmt.targetList or {}, stmt.havingClause or {}, stmt.sortClause or {} },
    ctx.user_aggregates)
  local shape = {
    contents = contents,
    aggregated = contents.aggregates[1] ~= nil or stmt.groupClause ~= nil or stmt.havingClause ~= nil,
    has_windows = contents.windows[1] ~= nil,
    distinct = stmt.distinctClause ~= nil,
  }
  local keys = {}
  for _, node in ipairs(stmt.groupClause or {}) do
    if node.GroupingSet then
      keys = {}
      shape.grouping_sets = true
      break
    end
    keys[#keys + 1] = self:group_item(stmt, node, ctx)
  end
  shape.grouped_by_key = not shape.grouping_sets and self:covers_key(keys)
  local values = {}
  for _, target in ipairs(stmt.targetList or {}) do
    values[#values + 1] = target.ResTarget.val
  end
  local on = stmt.distinctClause and next(stmt.distinctClause[1] or {}) and stmt.distinctClause
  shape.distinct_on = on and true or false
  shape.distinct_by_key = shape.distinct and self:covers_key(on or values)
  shape.windows_by_key = true
  for _, partition in ipairs(partitions(stmt, contents.windows)) do
    shape.windows_by_key = shape.windows_by_key and self:covers_key(partition)
  end
  if shape.aggregated and not shape.grouped_by_key then
    shape.problem = "groups span shards inside of the statement: GROUP BY must have the shard key there"
  elseif shape.distinct and not shape.distinct_by_key then
    shape.problem = "DISTINCT inside of the statement compares rows of different shards"
  elseif shape.has_windows and not shape.windows_by_key then
    shape.problem = "a window function looks at rows of all shards: PARTITION BY must have the shard key"
  end
  return shape
end

--- The level as a table in FROM: its columns that are shard keys.
-- @tparam table stmt
-- @treturn table entry
function Level:outputs(stmt)
  local result = { sharded = true, keys = {}, n_keys = 0, columns = {} }
  local by_entry = {}
  local function note(entry, index, name, position)
    by_entry[entry] = by_entry[entry] or { keys = {}, n = 0, seen = {} }
    local found = by_entry[entry]
    found.keys[name] = index
    if not found.seen[index] then
      found.seen[index], found.n = true, found.n + 1
    end
    if found.n == entry.n_keys and result.n_keys == 0 then
      result.keys, result.n_keys, result.type_id = found.keys, entry.n_keys, entry.type_id
    end
    if position == 1 then
      result.first_key = index
    end
  end
  for i, target in ipairs(stmt.targetList or {}) do
    local ref = target.ResTarget.val.ColumnRef
    local last = ref and ref.fields[#ref.fields]
    if last and last.A_Star then
      result.columns = nil
    elseif result.columns then
      result.columns[expression.output_name(target.ResTarget)] = true
    end
    if last and last.A_Star then
      local qualifier = ref.fields[2] and ref.fields[1].String.sval
      for _, entry in ipairs(self.entries) do
        if entry.sharded and not entry.nullable and (qualifier == nil or qualifier == entry.alias) then
          for name, index in pairs(entry.keys) do
            note(entry, index, name)
          end
        end
      end
    elseif ref then
      local entry, index, outside = self:key_of(ref)
      if entry and not outside and not entry.nullable then
        note(entry, index, expression.output_name(target.ResTarget), i)
      end
    end
  end
  return result
end

return level
