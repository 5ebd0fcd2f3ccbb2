--- Column lists of aggregates, and the plug-ins that fold columns one by one.
-- @module lunashard.aggregate.columns

local options = require("lunashard.options")

local columns = {}

local function bad(what, spec, level)
  error(("%s: expected a column name, a list of them or { result = \"column\" }, got %s"):format(what,
    options.describe(spec)), level + 1)
end

--- Read which columns are meant. Raises when it makes no sense.
-- @string what the aggregate's name
-- @tparam string|table spec `"count"`, `{ "a", "b" }` or `{ total = "count" }`
-- @number level who is blamed, counted as for `error`
-- @treturn {table,...} list of `{ name = result column, source = what was given for it }`
function columns.parse(what, spec, level)
  level = level + 1
  if type(spec) == "string" then
    return { { name = spec, source = spec } }
  elseif type(spec) ~= "table" or next(spec) == nil then
    bad(what, spec, level)
  end
  local list = {}
  for _, column in ipairs(spec) do
    if type(column) ~= "string" then
      bad(what, column, level)
    end
    list[#list + 1] = { name = column, source = column }
  end
  local names = {}
  for name in pairs(spec) do
    if type(name) == "string" then
      names[#names + 1] = name
    elseif spec[name] == nil or name < 1 or name > #list then
      bad(what, spec, level)
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    list[#list + 1] = { name = name, source = spec[name] }
  end
  return list
end

--- A plug-in that folds each of its columns into one value of one row.
-- @string name
-- @tparam func new of the aggregate's arguments; gives a list of `{ name =, fold = }`
-- @treturn table plug-in
function columns.plugin(name, new)
  local plugin = { api = 1, kind = "aggregate", name = name, returns = "row", new = new }

  function plugin.init(folds)
    local acc = { folds = folds }
    for i, part in ipairs(folds) do
      acc[i] = part.fold:init()
    end
    return acc
  end

  function plugin.step(acc, row, shard_id, types)
    for i, part in ipairs(acc.folds) do
      local ok, err = part.fold:step(acc[i], row, types, shard_id)
      if not ok then
        return nil, err
      end
    end
    return acc
  end

  function plugin.merge(a, b)
    for i, part in ipairs(a.folds) do
      local ok, err = part.fold:merge(a[i], b[i])
      if not ok then
        return nil, err
      end
    end
    return a
  end

  function plugin.finish(acc)
    local row = {}
    for i, part in ipairs(acc.folds) do
      row[part.name] = part.fold:value(acc[i])
    end
    return row
  end

  function plugin.types(acc)
    local types = {}
    for i, part in ipairs(acc.folds) do
      types[part.name] = part.fold:type(acc[i]) or "unknown"
    end
    return types
  end

  return plugin
end

--- As `plugin`, for a fold of one column that is given by name.
-- @string name
-- @tparam func make of a column name and the aggregate's options; gives the fold
-- @tparam[opt] table known names and types of those options
-- @treturn table plug-in
function columns.simple_plugin(name, make, known)
  return columns.plugin(name, function(spec, how)
    how = options.check(how, known or {}, name)
    local folds = columns.parse(name, spec, 3)
    for i, part in ipairs(folds) do
      if type(part.source) ~= "string" then
        bad(name, part.source, 3)
      end
      folds[i] = { name = part.name, fold = make(part.source, how) }
    end
    return folds
  end)
end

return columns
