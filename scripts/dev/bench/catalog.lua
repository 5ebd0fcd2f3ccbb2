--- All groups of benchmarks, in the order of the table.
-- A group has `name`, `needs` (what `servers.provide` makes; nil: no server at all), `prepare(ctx)` (before that),
-- `measures`, a list of { name, function(ctx) -> figures, or nil and a reason, a peer that it takes }, taken in turn in
-- each round, and `rows`: `name`, `work`, `against`, `unit`, `ours` and `peer` (which figure of which measure), `target`.
local catalog = {}

catalog.groups = {}

for _, name in ipairs({ "reads", "inserts", "scatter", "stream", "load", "route", "plugin", "extract", "scrape", "guards",
  "moves", "idle" }) do
  for _, group in ipairs(require("groups." .. name)) do
    table.insert(catalog.groups, group)
  end
end

--- Names of all rows.
-- @treturn {string,...}
function catalog.names()
  local names = {}
  for _, group in ipairs(catalog.groups) do
    for _, row in ipairs(group.rows) do
      names[#names + 1] = row.name
    end
  end
  return names
end

-- The rows that are asked for, by their own names or their group's.
local function rows_of(group, asked)
  local rows = {}
  for _, row in ipairs(group.rows) do
    if not asked or asked[row.name] or asked[group.name] then
      rows[#rows + 1] = row
    end
  end
  return rows
end

-- Only the measures that the rows take their figures from.
local function measures_of(group, rows)
  local used, measures = {}, {}
  for _, row in ipairs(rows) do
    used[row.ours[1]] = true
    if row.peer then
      used[row.peer[1]] = true
    end
  end
  for _, measure in ipairs(group.measures) do
    if used[measure[1]] then
      measures[#measures + 1] = measure
    end
  end
  return measures
end

--- The groups with no more in them than what is asked for.
-- @tparam ?table asked names of rows or groups -> true; nil: everything
-- @treturn {table,...}
function catalog.select(asked)
  local groups = {}
  for _, group in ipairs(catalog.groups) do
    local rows = rows_of(group, asked)
    if rows[1] then
      groups[#groups + 1] = {
        name = group.name,
        needs = group.needs,
        prepare = group.prepare,
        rows = rows,
        measures = measures_of(group, rows),
      }
    end
  end
  return groups
end

return catalog
