--- The tables that a move makes for itself, on both sides, and their end.
-- @module lunashard.rebalancer.staging
-- @local

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local shape = require("lunashard.rebalancer.shape")

local staging = {}

local STEP = [[
  UPDATE lunashard.move SET step = %s, detail = detail || %s::jsonb WHERE job = %d AND seq = %d AND role = %s]]

local function columns_of(tables)
  local list = {}
  for _, one in ipairs(tables) do
    local columns = {}
    for i, name in ipairs(one.columns) do
      columns[i] = name .. " " .. one.types[i]
    end
    table.sort(columns)
    list[one.n] = { columns = table.concat(columns, ", "), key = table.concat(one.key, ", ") }
  end
  return list
end

--- Have both sides the same columns and primary keys? Pre-flight looks at more than this.
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam {table,...} others
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function staging.compare(row, tables, others)
  local here, there = columns_of(tables), columns_of(others)
  for _, one in ipairs(tables) do
    local a, b = here[one.n], there[one.n]
    if a.columns ~= b.columns or a.key ~= b.key then
      return nil, errors.new("INVALID", { gives_up = true, message = ("table %s is not the same on %s (%s; key %s) and %s "
        .. "(%s; key %s)"):format(one.name, row.source, a.columns, a.key, row.destination, b.columns, b.key) })
    end
  end
  return true
end

-- Runs once: with it the step goes from `planned` to another one.
local function prepare(side, row, role, step, tables, texts, more)
  return side:transaction("planned." .. role, function(lease)
    local fingerprint, err = shape.fingerprint(lease, tables, session.soon())
    if not fingerprint then
      return nil, err
    end
    more.fingerprint = fingerprint
    texts[#texts + 1] = STEP:format(names.literal(step), names.literal(cjson.encode(more)), row.job, row.seq, names.literal(role))
    local ok
    ok, err = session.run(lease, texts)
    return ok and { step = step, detail = more }, err
  end)
end

--- Make the staging tables of a move on its destination. Yields.
-- @tparam Session destination
-- @tparam table row
-- @tparam {table,...} tables of the destination
-- @treturn[1] table `step`, and `detail`: `fingerprint`, `progress`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.prepare_destination(destination, row, tables)
  local texts = {}
  for i, one in ipairs(tables) do
    local name = names.staging(row, one.n)
    -- An earlier try may have left its rows as evidence.
    texts[i] = ("DROP TABLE IF EXISTS %s; CREATE TABLE %s AS SELECT %s FROM %s AS t WITH NO DATA"):format(name, name,
      names.each(one.columns, "t.%s"), one.qualified)
  end
  return prepare(destination, row, "destination", "staged", tables, texts, { progress = { table = 1, rows = 0, bytes = 0 } })
end

--- Note on the source how its tables look before a move. Yields.
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables of the source
-- @treturn[1] table `step`, and `detail`: `fingerprint`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.prepare_source(source, row, tables)
  return prepare(source, row, "source", "prepared", tables, {}, {})
end

local FORGET = "DELETE FROM lunashard.move WHERE job = %d AND seq = %d AND role = %s"

local function drop(side, row, role, name_of, tables, keep)
  local texts = {}
  for i, one in ipairs(keep and {} or tables) do
    texts[i] = "DROP TABLE IF EXISTS " .. name_of(row, one.n)
  end
  texts[#texts + 1] = FORGET:format(row.job, row.seq, names.literal(role))
  return side:transaction("done." .. role, function(lease)
    return session.run(lease, texts)
  end)
end

--- Drop what `prepare_destination` made, and forget the move there. Yields.
-- @tparam Session destination
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam ?boolean keep the tables, as evidence
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.drop_destination(destination, row, tables, keep)
  return drop(destination, row, "destination", names.staging, tables, keep)
end

--- Drop what `purge.run` held back, and forget the move there. Yields.
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables
-- @tparam ?boolean keep the tables
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.drop_source(source, row, tables, keep)
  return drop(source, row, "source", names.holding, tables, keep)
end

return staging
