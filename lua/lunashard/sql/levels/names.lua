--- Names of columns, looked up as PostgreSQL looks them up.
-- Of a declared table only the columns of the shard key are known: whatever other name a table may have or not, it is
-- never concluded that a name is not its. Only these columns, and what is made of them and of constants, become terms:
-- others may be of a type whose equality is another one, such as float8, char(n) or citext.
-- @module lunashard.sql.levels.names

local names = {}

--- A column that is there, but of which nothing is known.
names.UNKNOWN = {}

-- A term stands for the values that a column of one item of FROM has in a level. `domains` is what its values are
-- known to be in, where they are not NULL.
local function new_term(item, name)
  return { item = item, name = name, domains = {} }
end

--- The term of a constant or parameter.
-- @tparam table read what `source.read` gave
-- @treturn table term
function names.constant(read)
  local term = new_term(nil, nil)
  if not read.null then
    term.domains[1] = { kind = "eq", source = read, id = read.id }
  end
  return term
end

local function memo(item, name)
  local term = item.terms[name]
  if not term then
    term = new_term(item, name)
    item.terms[name] = term
  end
  return term
end

local function look_up(outputs, name)
  local state, found = "lacks", nil
  for _, entry in ipairs(outputs) do
    local own, term
    if entry.star then
      own, term = entry.star(name)
    elseif entry.name == nil then
      own = "unknown"
    elseif entry.name == name then
      own, term = "has", entry.term
    end
    if own == "has" and state == "has" or own == "ambiguous" then
      return "ambiguous"
    elseif own == "has" then
      state, found = "has", term
    elseif own == "unknown" and state == "lacks" then
      state = "unknown"
    end
  end
  return state, found
end

--- What a level gives: entries `{ name =, term = }`, without a name where PostgreSQL makes one up, and `{ star = }`,
-- a function that looks a name up in what `*` stands for.
-- @tparam table outputs a list of entries
-- @string name
-- @treturn string `has`, `lacks`, `unknown` or `ambiguous`
-- @treturn ?table term
function names.output(outputs, name)
  outputs.memo = outputs.memo or {} -- else what refers twice to what refers twice ... would be looked through for ever
  local answer = outputs.memo[name]
  if not answer then
    local state, term = look_up(outputs, name)
    answer = { state = state, term = term }
    outputs.memo[name] = answer
  end
  return answer.state, answer.term
end

--- The term at a position of what a level gives.
-- @tparam table outputs
-- @int position
-- @treturn ?table nil when it is not known, or no column
function names.output_at(outputs, position)
  for i = 1, position do
    if not outputs[i] or outputs[i].star then
      return nil
    end
  end
  return outputs[position].term
end

-- ---- items of FROM ----

local COLUMN = {}

function COLUMN.table(item, name)
  local index = item.key and not item.renamed and item.key.index[name]
  if index then
    return "has", item.keys[index]
  end
  return "unknown"
end

local function renamed_position(item, name)
  local position
  for i, renamed in ipairs(item.renamed) do
    if renamed == name then
      if position then
        return nil, true
      end
      position = i
    end
  end
  return position
end

-- A column of a sub-select: `inner` is what it stands for.
function COLUMN.sub(item, name)
  local outputs = item.outputs()
  local state, inner
  if item.renamed then
    local position, twice = renamed_position(item, name)
    if twice then
      return "ambiguous"
    elseif position then
      state, inner = "has", names.output_at(outputs, position)
    else
      local rest = {}
      for i = #item.renamed + 1, #outputs do
        rest[#rest + 1] = outputs[i]
      end
      for _, entry in ipairs(outputs) do
        if entry.star then
          return "unknown"
        end
      end
      state, inner = names.output(rest, name)
    end
  else
    state, inner = names.output(outputs, name)
  end
  if state ~= "has" or not inner then
    return state
  end
  local term = memo(item, name)
  term.inner = term.inner or inner
  return "has", term
end

-- A function in FROM: only what its alias names is known.
COLUMN["function"] = function(item, name)
  if item.only == name then
    return "has", memo(item, name)
  end
  return "unknown"
end

-- An alias of a join.
function COLUMN.join(item, name)
  if item.renamed then
    return "unknown"
  end
  return names.unqualified(item.within, name)
end

local function merged_column(merged, name)
  local term = merged[name]
  return term and "has" or "lacks", term ~= names.UNKNOWN and term or nil
end

-- An alias of what USING merges.
function COLUMN.using(item, name)
  return merged_column(item.merged, name)
end

--- Make an item of FROM.
-- @string kind `table`, `sub`, `function`, `join` or `using`
-- @tparam table item its fields
-- @treturn table
function names.item(kind, item)
  item.kind, item.terms = kind, {}
  if item.key then
    item.keys = {}
    for i, column in ipairs(item.key.columns) do
      item.keys[i] = memo(item, column)
      item.keys[i].key = i
    end
  end
  return item
end

-- ---- lookup ----

--- Look up a name without a qualifier among items.
-- @tparam table ns `items`, and `merged`: terms by name, of what joins merged
-- @string name
-- @treturn string `has`, `lacks`, `unknown` or `ambiguous`
-- @treturn ?table term
function names.unqualified(ns, name)
  if ns.merged[name] then
    return merged_column(ns.merged, name)
  end
  local state, found = "lacks", nil
  for _, item in ipairs(ns.items) do
    if item.kind ~= "using" then
      local own, term = COLUMN[item.kind](item, name)
      if own == "has" and state == "has" or own == "ambiguous" then
        return "ambiguous"
      elseif own == "has" then
        state, found = "has", term
      elseif own == "unknown" and state == "lacks" then
        state = "unknown"
      end
    end
  end
  return state, found
end

local function answers_to(item, schema, name)
  if schema == nil then
    return (item.alias or item.relname) == name
  end
  return item.alias == nil and item.relname == name and (item.schema == nil or item.schema == schema)
end

--- The items with a name.
-- @tparam table ns
-- @tparam ?string schema
-- @string name
-- @treturn ?table the item
-- @treturn ?boolean true: there are several
function names.relation(ns, schema, name)
  local found
  for _, item in ipairs(ns.items) do
    if answers_to(item, schema, name) then
      if found then
        return nil, true
      end
      found = item
    end
  end
  return found
end

local function qualified(item, name)
  local state, term = COLUMN[item.kind](item, name)
  return state == "has" and term or nil
end

--- Look up a column reference.
-- @tparam ?table scope `ns`, `parent`
-- @tparam table fields of the ColumnRef
-- @treturn ?table term; nil when it cannot be told which column is meant
function names.resolve(scope, fields)
  local parts = {}
  for i, field in ipairs(fields) do
    if not field.String then
      return nil
    end
    parts[i] = field.String.sval
  end
  local n = #parts
  while scope do
    if n == 1 then
      local state, term = names.unqualified(scope.ns, parts[1])
      if state ~= "lacks" then
        return state == "has" and term or nil
      end
    else
      local item, several = names.relation(scope.ns, parts[n - 2], parts[n - 1])
      if several then
        return nil
      elseif item then
        return qualified(item, parts[n])
      end
    end
    scope = scope.parent
  end
end

local function find_null(term, level)
  if term.arms then
    return names.may_be_null(term.arms[1], level) or names.may_be_null(term.arms[2], level)
  elseif term.parts or level and level.has_grouping_sets or term.item and term.item.nullable then
    return true
  end
  return term.inner ~= nil and names.may_be_null(term.inner, term.item and term.item.level or level)
end

--- May a term be NULL where its table has a value, by an outer join or grouping sets?
-- @tparam table term
-- @tparam ?table level that it is of
-- @treturn boolean
function names.may_be_null(term, level)
  if term.nullable == nil then
    term.nullable = find_null(term, level) or false
  end
  return term.nullable
end

return names
