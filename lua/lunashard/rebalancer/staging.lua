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
  UPDATE lunashard.move SET step = $4, detail = detail || $5::jsonb WHERE job = $1 AND seq = $2 AND role = $3]]

local function run(lease, sql, params)
  return lease:execute(sql, params, { deadline = session.soon() })
end

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

-- Runs once: in the transaction that makes the tables the step goes from `planned` to another one.
local function prepare(side, row, role, step, tables, make, more)
  return side:transaction("planned." .. role, function(lease)
    for _, one in ipairs(tables) do
      local ok, err = make(lease, one)
      if not ok then
        return nil, err
      end
    end
    local fingerprint, err = shape.fingerprint(lease, tables, session.soon())
    if not fingerprint then
      return nil, err
    end
    more.fingerprint = fingerprint
    local ok
    ok, err = run(lease, STEP, { row.job, row.seq, role, step, cjson.encode(more) })
    return ok and more, err
  end)
end

--- Make the staging tables of a move on its destination. Yields.
-- @tparam Session destination
-- @tparam table row
-- @tparam {table,...} tables of the destination
-- @treturn[1] table what is noted of it: `fingerprint`, `progress`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.prepare_destination(destination, row, tables)
  return prepare(destination, row, "destination", "staged", tables, function(lease, one)
    local name = names.staging(row, one.n)
    local ok, err = run(lease, ("CREATE TABLE %s AS SELECT %s FROM %s AS t WITH NO DATA"):format(name,
      names.each(one.columns, "t.%s"), one.qualified))
    if ok then
      ok, err = run(lease, ("ALTER TABLE %s ADD PRIMARY KEY (%s)"):format(name, names.each(one.key, "%s")))
    end
    return ok, err
  end, { progress = { table = 1, rows = 0, bytes = 0 } })
end

--- Make the holding tables of a move on its source. Yields.
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables of the source
-- @treturn[1] table what is noted of it: `fingerprint`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function staging.prepare_source(source, row, tables)
  return prepare(source, row, "source", "prepared", tables, function(lease, one)
    return run(lease, ("CREATE TABLE %s AS SELECT %s FROM %s AS t WITH NO DATA"):format(names.holding(row, one.n),
      names.each(one.columns, "t.%s"), one.qualified))
  end, {})
end

local function drop(side, row, role, name_of, tables, keep)
  return side:transaction("done." .. role, function(lease)
    for _, one in ipairs(keep and {} or tables) do
      local ok, err = run(lease, "DROP TABLE IF EXISTS " .. name_of(row, one.n))
      if not ok then
        return nil, err
      end
    end
    return run(lease, "DELETE FROM lunashard.move WHERE job = $1 AND seq = $2 AND role = $3", { row.job, row.seq, role })
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

--- Drop what `prepare_source` made, and forget the move there. Yields.
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
