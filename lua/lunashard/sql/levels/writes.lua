--- The levels of statements that write.
-- @module lunashard.sql.levels.writes

local build = require("lunashard.sql.levels.build")
local conditions = require("lunashard.sql.levels.conditions")
local names = require("lunashard.sql.levels.names")
local source = require("lunashard.sql.levels.source")

local STATEMENTS = build.STATEMENTS
local new_scope, append = build.new_scope, build.append

local MOVE_ADVICE = "a row cannot move between shards by UPDATE: INSERT it with the new key and DELETE the old one"

-- What makes a statement impossible to place; the first one counts.
local function refuse(self, code, reason, hint)
  self.refusal = self.refusal or { code = code, reason = reason, hint = hint }
end

-- The table that is written. WITH has no say in its name.
local function target_of(self, level, relation, inner)
  local item = self:table_item(relation, inner)
  item.written = true
  self.writes[#self.writes + 1] = { item = item, level = level, kind = level.kind }
  level.target = item
  return item
end

local function write_level(self, kind, node, env)
  local level = self:level(kind, node)
  return level, { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
end

local function is_column_of(node, item, scope, name)
  local term = node and node.ColumnRef and names.resolve(scope, node.ColumnRef.fields)
  return term ~= nil and term.item == item and term.name == name
end

-- SET of a column of the shard key, but for what does not change its value. In ON CONFLICT that is also the value of
-- the row that was to be inserted: it is on this shard because it belongs here.
local function check_set(self, item, list, scope, excluded)
  for _, node in ipairs(list or {}) do
    local set = node.ResTarget
    if item.key and item.key.index[set.name] and not is_column_of(set.val, item, scope, set.name)
      and not (excluded and is_column_of(set.val, excluded, scope, set.name)) then
      local read = not set.indirection and source.read(set.val, self.sql)
      if read and not read.null and not excluded then
        -- Fine when it is what the row has; told when all is known.
        self.sets[#self.sets + 1] = { term = item.keys[item.key.index[set.name]], read = read, item = item }
      else
        refuse(self, "INVALID", ("%s of %s is the shard key: it may not be changed"):format(set.name, item.relname),
          MOVE_ADVICE)
      end
    end
  end
end

local function returning(self, node, level, inner)
  self:visit_all(node, inner, "returningList")
  level.outputs = self:outputs(node.returningList, inner)
end

function STATEMENTS.UpdateStmt(self, node, env)
  local level, inner = write_level(self, "update", node, env)
  local item = target_of(self, level, node.relation, inner)
  local from = { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
  level.trees = append({ { item = item } }, self:from_list(node.fromClause, from))
  inner.scope.ns.merged = from.scope.ns.merged
  append(append(inner.scope.ns.items, { item }), from.scope.ns.items)
  level.leaves[#level.leaves + 1] = item
  level.where = self:condition(node.whereClause, inner, level.leaves)
  self:visit_all(node, inner, "targetList")
  check_set(self, item, node.targetList, inner.scope)
  returning(self, node, level, inner)
  return level
end

function STATEMENTS.DeleteStmt(self, node, env)
  local level, inner = write_level(self, "delete", node, env)
  local item = target_of(self, level, node.relation, inner)
  local from = { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
  level.trees = append({ { item = item } }, self:from_list(node.usingClause, from))
  inner.scope.ns.merged = from.scope.ns.merged
  append(append(inner.scope.ns.items, { item }), from.scope.ns.items)
  level.leaves[#level.leaves + 1] = item
  level.where = self:condition(node.whereClause, inner, level.leaves)
  returning(self, node, level, inner)
  return level
end

-- ---- INSERT ----

-- Positions of the columns of the shard key among those that are given.
local function key_positions(self, item, cols, what)
  local key = item.key
  if not cols then
    refuse(self, "NO_KEY", ("%s into %s names no columns, so it cannot be told which value is %s"):format(what,
      item.relname, table.concat(key.columns, ", ")), "list the columns: INSERT INTO t (a, b) ...")
    return nil
  end
  local positions = {}
  for i, node in ipairs(cols) do
    local column = key.index[node.ResTarget.name]
    if column and not node.ResTarget.indirection then
      positions[column] = i
    end
  end
  for i, column in ipairs(key.columns) do
    if not positions[i] then
      refuse(self, "NO_KEY", ("%s into %s gives no value for its shard key %s: a default of the server cannot be routed by")
        :format(what, item.relname, column))
      return nil
    end
  end
  return positions
end

local function refuse_value(self, item, column, node, row, n_rows)
  local where = n_rows > 1 and (" of row %d"):format(row) or ""
  if node == nil or node.SetToDefault then
    refuse(self, "NO_KEY", ("the shard key %s%s is DEFAULT: a default of the server cannot be routed by"):format(column,
      where))
  elseif node.A_Const and node.A_Const.isnull then
    refuse(self, "NULL_KEY", ("the shard key %s of %s%s is NULL"):format(column, item.relname, where))
  else
    refuse(self, "NO_KEY", ("the shard key %s%s is an expression: only a constant or a parameter can be routed by"):format(
      column, where))
  end
end

-- The sources of the key, row by row: list of lists. nil when one is none.
local function row_sources(self, item, positions, rows)
  local all = {}
  for i, row in ipairs(rows) do
    all[i] = {}
    for c, position in ipairs(positions) do
      local node = row[position]
      local read = node and source.read(node, self.sql)
      if not read or read.null then
        refuse_value(self, item, item.key.columns[c], node, i, #rows)
        return nil
      end
      all[i][c] = read
    end
  end
  return all
end

local function same_in_all(rows, column)
  for i = 2, #rows do
    if rows[i][column].id ~= rows[1][column].id then
      return false
    end
  end
  return true
end

-- What is inserted, as facts of the item.
local function note_rows(level, item, rows)
  local sink, same = conditions.sink(), true
  for c in ipairs(item.key.columns) do
    if same_in_all(rows, c) then
      local read = rows[1][c]
      sink.facts[#sink.facts + 1] = { term = item.keys[c], domain = { kind = "eq", source = read, id = read.id } }
    else
      same = false
    end
  end
  if not same then
    item.rows = rows
  end
  build.add_filter(level, sink, { item })
end

local function note_select(self, level, item, positions, query)
  local sink = conditions.sink()
  for c, position in ipairs(positions) do
    local term = names.output_at(query.outputs, position)
    if not term or names.may_be_null(term, query) then
      refuse(self, "NO_KEY", ("INSERT ... SELECT into %s: it cannot be told that the shard key %s is that of the rows read")
        :format(item.relname, item.key.columns[c]))
      return
    end
    sink.equal[#sink.equal + 1] = { item.keys[c], term }
  end
  build.add_filter(level, sink, { item })
end

local function insert_rows(select)
  local rows = {}
  for i, row in ipairs(select.valuesLists) do
    rows[i] = row.List.items
  end
  return rows
end

local function is_plain_values(select)
  return select.valuesLists and not select.withClause and not select.limitCount and not select.limitOffset
    and not select.sortClause
end

function STATEMENTS.InsertStmt(self, node, env)
  local level, inner = write_level(self, "insert", node, env)
  local item = target_of(self, level, node.relation, inner)
  local select = node.selectStmt and node.selectStmt.SelectStmt
  local query = select and self:query(node.selectStmt, { level = level, scope = env.scope, ctes = env.ctes })
  level.query = query
  if item.key then
    if node.override == "OVERRIDING_USER_VALUE" then
      refuse(self, "NO_KEY", "OVERRIDING USER VALUE: the server may put another value in the place of the shard key")
    elseif not select then
      refuse(self, "NO_KEY", ("INSERT into %s gives no value for its shard key: a default of the server cannot be routed by")
        :format(item.relname))
    else
      local positions = key_positions(self, item, node.cols, "INSERT")
      if positions and is_plain_values(select) then
        local rows = row_sources(self, item, positions, insert_rows(select))
        if rows then
          note_rows(level, item, rows)
        end
      elseif positions then
        note_select(self, level, item, positions, query)
      end
    end
  end
  inner.scope.ns.items[1] = item
  local conflict = node.onConflictClause
  if conflict then
    local excluded = names.item("table", { alias = "excluded", relname = "excluded", home = level, key = item.key })
    local scope = { ns = { items = { item, excluded }, merged = {} }, parent = env.scope }
    self:visit_all(conflict, { level = level, scope = scope, ctes = env.ctes, sql = self.sql }, "infer", "targetList",
      "whereClause")
    check_set(self, item, conflict.targetList, scope, excluded)
  end
  returning(self, node, level, inner)
  return level
end

-- ---- MERGE ----

local function merge_insert(self, level, item, clause, inner)
  if clause.override == "OVERRIDING_USER_VALUE" then
    refuse(self, "NO_KEY", "OVERRIDING USER VALUE: the server may put another value in the place of the shard key")
    return
  end
  local positions = key_positions(self, item, clause.targetList, "MERGE ... INSERT")
  if not positions then
    return
  end
  -- The row that is inserted, as an item of its own beside the one that is matched.
  local row = names.item("table", {
    alias = item.alias, relname = item.relname, entry = item.entry, key = item.key, home = level, written = true,
  })
  self.instances[#self.instances + 1] = row
  local sink = conditions.sink()
  for c, position in ipairs(positions) do
    local node = clause.values and clause.values[position]
    local read = node and source.read(node, self.sql)
    local term = node and node.ColumnRef and names.resolve(inner.scope, node.ColumnRef.fields)
    if term and term.item ~= item and not names.may_be_null(term, level) then
      sink.equal[#sink.equal + 1] = { row.keys[c], term }
    elseif read and not read.null then
      sink.facts[#sink.facts + 1] = { term = row.keys[c], domain = { kind = "eq", source = read, id = read.id } }
    else
      refuse_value(self, item, item.key.columns[c], node, 1, 1)
    end
  end
  level.inserted = append(level.inserted or {}, { row })
  build.add_filter(level, sink, { row })
end

function STATEMENTS.MergeStmt(self, node, env)
  local level, inner = write_level(self, "merge", node, env)
  local from = { level = level, scope = new_scope(env), outer_scope = env.scope, ctes = env.ctes, sql = self.sql }
  local trees = self:from_list({ node.sourceRelation }, from)
  local item = target_of(self, level, node.relation, inner)
  item.nullable = true
  append(append(inner.scope.ns.items, { item }), from.scope.ns.items)
  inner.scope.ns.merged = from.scope.ns.merged
  local filter = self:condition(node.joinCondition, inner, { item })
  level.trees = { { join = "JOIN_LEFT", left = trees[1], right = { item = item }, filter = filter } }
  level.leaves[#level.leaves + 1] = item
  for _, one in ipairs(node.mergeWhenClauses) do
    local clause = one.MergeWhenClause
    self:visit_all(clause, inner, "condition", "targetList", "values")
    if clause.commandType == "CMD_INSERT" and item.key then
      merge_insert(self, level, item, clause, inner)
    elseif clause.commandType == "CMD_UPDATE" then
      check_set(self, item, clause.targetList, inner.scope)
    end
  end
  return level
end

return {}
