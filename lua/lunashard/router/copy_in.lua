--- Bulk loading: rows are routed one by one and sent to all shards at once by COPY.
-- No shard commits before every shard has taken all of its rows without complaint, so that bad data
-- anywhere means no rows anywhere; only what fails during the COMMITs themselves can leave some
-- shards loaded and others not, and then the error says which.
-- @module lunashard.router.copy_in

local copy_load = require("lunashard.router.copy_load")
local errors = require("lunashard.errors")
local execute_many = require("lunashard.router.execute_many")
local options = require("lunashard.options")
local routing = require("lunashard.router.routing")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")
local values = require("lunashard.values")

local copy_in = { methods = {} }

local BATCH = 500 -- rows routed and sent at a time
local null = values.null

local COPY = options.known({ shard_id = "string", routing_key = "any" }, {
  key = "any",
  table = "string",
  timeout = "seconds",
})

-- ---- rows and routing ------------------------------------------------------------------

local function iterator(rows)
  if type(rows) == "table" and getmetatable(rows) == nil then
    local i = 0
    return function()
      i = i + 1
      return rows[i]
    end
  end
  return rows
end

-- A row as a list with a value for every column. Rows may also be tables by column name.
local function normalise(row, columns, n)
  if type(row) ~= "table" then
    error(("copy_in: row %d: expected a table, got a %s"):format(n, type(row)), 0)
  end
  local by_name = type(next(row)) == "string"
  local list = {}
  for i, column in ipairs(columns) do
    local value
    if by_name then
      value = row[column]
    else
      value = row[i]
    end
    list[i] = value == nil and null or value
  end
  if not by_name and row[#columns + 1] ~= nil then
    error(("copy_in: row %d: it has more values than the %d columns"):format(n, #columns), 0)
  end
  return list
end

local function key_of(row, positions, n)
  local key = {}
  for i, position in ipairs(positions) do
    local value = row[position]
    if value == null then
      return nil, errors.new("NULL_KEY", { message = ("row %d: the shard key is NULL"):format(n), index = n })
    end
    key[i] = value
  end
  return #positions == 1 and key[1] or key
end

local function quoted_columns(columns)
  local list = {}
  for i, column in ipairs(columns) do
    if type(column) ~= "string" or column == "" then
      error("copy_in: columns: expected names, got " .. options.describe(column), 3)
    end
    list[i] = statement.quote_ident(column)
  end
  if #list == 0 then
    error("copy_in: columns: expected at least one name", 3)
  end
  return table.concat(list, ", ")
end

-- Where in a row the shard key is.
local function key_positions(manager, table_name, columns, opts)
  local declared = manager.tables[opts.table or table_name]
  local key = opts.key or (declared and declared.shard_key) or manager.strategy.shard_key
  if key == nil then
    error("copy_in: option key: expected the shard key's column, for the strategy names none", 3)
  end
  local at = {}
  for i, column in ipairs(columns) do
    at[column] = i
  end
  local positions = {}
  for i, column in ipairs(type(key) == "table" and key or { key }) do
    positions[i] = at[column]
    if not at[column] then
      local near = errors.nearest(column, columns)
      error(("copy_in: the shard key %s is not among the columns%s"):format(options.describe(column),
        near and (", did you mean %q?"):format(near) or ""), 3)
    end
  end
  return positions
end

-- Keys are counted within a batch, rows from the first one on.
local function at_row(err, first)
  if not err.index then
    return err
  end
  local fields = {}
  for name, value in pairs(err) do
    fields[name] = value
  end
  fields.index = first + err.index - 1
  fields.message = err.message:gsub("^key %d+:", ("row %d:"):format(fields.index))
  return errors.new(err.code, fields)
end

-- How rows find their shards: a function from a list of rows to shard_id -> rows.
local function router_of_rows(manager, table_name, columns, opts)
  if routing.is_reference(manager, opts.table or table_name) then
    return function(rows)
      local all = {}
      for _, member in ipairs(manager.members) do
        all[member.shard_id] = rows
      end
      return all
    end
  elseif opts.shard_id or opts.routing_key ~= nil then
    return function(rows)
      local member, err = routing.resolve(manager, { shard_id = opts.shard_id, routing_key = opts.routing_key,
        table = opts.table })
      return member and { [member.shard_id] = rows }, err
    end
  end
  local positions = key_positions(manager, table_name, columns, opts)
  local key_table = opts.table or (manager.tables[table_name] and table_name) or nil
  return function(rows, first)
    local keys = {}
    for i, row in ipairs(rows) do
      local key, err = key_of(row, positions, first + i - 1)
      if key == nil then
        return nil, err
      end
      keys[i] = key
    end
    local shard_ids, err = execute_many.route(manager, key_table, keys)
    if not shard_ids then
      return nil, at_row(err, first)
    end
    local by_shard = {}
    for i, shard_id in ipairs(shard_ids) do
      by_shard[shard_id] = by_shard[shard_id] or {}
      table.insert(by_shard[shard_id], rows[i])
    end
    return by_shard
  end
end

-- Read, route and hand over everything; how many rows there were.
local function feed(job, next_row, columns, route)
  local more, total = true, 0
  while more do
    local rows, first = {}, total + 1
    while #rows < BATCH do
      local row, failure = next_row()
      if row == nil then
        if failure ~= nil then
          error(failure, 0)
        end
        more = false
        break
      end
      rows[#rows + 1] = normalise(row, columns, total + #rows + 1)
    end
    total = total + #rows
    local by_shard, err = {}, nil
    if rows[1] then
      by_shard, err = route(rows, first)
    end
    if not by_shard then
      return nil, err
    end
    for _, member in ipairs(job.manager.members) do
      local part = by_shard[member.shard_id]
      if part and not job:push(member.shard_id, part) then
        return total -- job:finish reports it
      end
    end
  end
  return total
end

--- Load rows by COPY, each on the shard that owns its key. Yields.
-- Either all rows are committed on all shards, or none, unless a COMMIT itself fails: then the error's
-- `committed` says which shards have how many.
-- @string table_name may carry a schema: `app.users`
-- @tparam {string,...} columns
-- @tparam table|func rows a list, or an iterator that gives a row and in the end nil; a row is a list of
--   values in the columns' order (nil is NULL) or a table by column name. An iterator that gives nil and an
--   error has failed, as one that raises
-- @tparam[opt] table opts `key`: the shard key's column or columns [the table's, then the strategy's];
--   `shard_id` or `routing_key`: all
--   rows to one shard; `table`: whose declaration counts, when the name differs; `timeout` for everything
--   [none]. Rows of a
--   reference table go to every shard
-- @treturn[1] table `row_count`, `rows_by_shard` (shard_id -> rows), `duration`, `success`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` (with `failed`, `committed`), `NULL_KEY`, `INVALID`, `NO_SHARD`
--   (with `index`, the row's
--   number), `PLUGIN_FAILED` (the iterator failed), `CLOSED`
function copy_in.methods:copy_in(table_name, columns, rows, opts)
  local quoted = type(table_name) == "string" and statement.quote_table(table_name)
  if not quoted then
    error("copy_in: expected a table's name, got " .. options.describe(table_name), 2)
  elseif type(columns) ~= "table" then
    error("copy_in: columns: expected a list of names, got " .. options.describe(columns), 2)
  elseif type(rows) ~= "table" and type(rows) ~= "function" then
    error("copy_in: rows: expected a list or an iterator, got " .. options.describe(rows), 2)
  elseif type(rows) == "table" and getmetatable(rows) == nil and not options.is_list(rows) then
    error("copy_in: rows: expected a list or an iterator, got a table with gaps or names", 2)
  end
  opts = options.check(opts, COPY, "copy_in")
  local sql = ("COPY %s (%s) FROM STDIN"):format(quoted, quoted_columns(columns))
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  local route = router_of_rows(self.manager, table_name, columns, opts)
  local started = task.now()
  local job = copy_load.new(self, sql, #columns, opts.timeout and started + opts.timeout)
  local total
  ok, total, err = pcall(feed, job, iterator(rows), columns, route)
  if not ok then
    job:abort()
    if errors.is(total, "CANCELED") then
      error(total, 0)
    end
    return nil, errors.wrap(total, { message = "copy_in: the rows could not be read: " .. tostring(total) })
  elseif not total then
    job:abort()
    return nil, err
  end
  local answer
  answer, err = job:finish()
  if answer then
    answer.row_count, answer.duration = total, task.now() - started
  end
  return answer, err
end

return copy_in
