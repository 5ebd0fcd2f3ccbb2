--- Bulk loading: rows are routed by the batch and sent to all shards at once by COPY.
-- No shard commits before every shard has taken all of its rows without complaint, so that bad data
-- anywhere means no rows anywhere; only what fails during the COMMITs themselves can leave some
-- shards loaded and others not, and then the error says which.
-- @module lunashard.router.copy_in

local copy_load = require("lunashard.router.copy_load")
local copy_source = require("lunashard.router.copy_source")
local copy_split = require("lunashard.router.copy_split")
local errors = require("lunashard.errors")
local guarding = require("lunashard.router.guarding")
local raise = require("lunashard.misuse").raise
local options = require("lunashard.options")
local statement = require("lunashard.router.statement")
local task = require("lunashard.task")

local copy_in = { methods = {} }

local CHUNK = 65536 -- bytes for a shard that are sent together

local COPY = options.known({ shard_id = "string", routing_key = "any" }, {
  key = "any",
  table = "string",
  format = "string",
  header = "boolean",
  timeout = "seconds",
})
local FORMATS = { text = "text", csv = "csv" }

local function quoted_columns(columns)
  local list = {}
  for i, column in ipairs(columns) do
    if type(column) ~= "string" or column == "" then
      raise("copy_in: columns: expected names, got " .. options.describe(column), 3)
    end
    list[i] = statement.quote_ident(column)
  end
  if #list == 0 then
    raise("copy_in: columns: expected at least one name", 3)
  end
  return table.concat(list, ", ")
end

local function check_format(opts)
  local format = opts.format
  if format ~= nil and not FORMATS[format] then
    local near = errors.nearest(format, FORMATS)
    raise(('copy_in: option format: expected "text" or "csv", got %s%s'):format(options.describe(format),
      near and ("; did you mean %q?"):format(near) or ""), 3)
  elseif opts.header ~= nil and format == nil then
    raise("copy_in: option header: rows that are tables have no header; it goes with option format", 3)
  end
end

-- The shards that may get rows.
local function members_of(manager, split)
  if not split.shard_ids then
    return manager.members
  end
  local list = {}
  for i, shard_id in ipairs(split.shard_ids) do
    list[i] = manager.by_id[shard_id]
  end
  return list
end

-- Read, route and hand over everything; how many rows there were.
local function feed(job, source, split)
  local more = true
  while more do
    local ok, err
    ok, err, more = source(split)
    if not ok then
      return nil, err
    elseif not split:drain(job, more and CHUNK or 1) or job:failure() then
      return split:count() -- job:finish reports it
    end
  end
  return split:count()
end

--- Load rows by COPY, each on the shard that owns its key. Yields.
-- Either all rows are committed on all shards, or none, unless a COMMIT itself fails: then the error's
-- `committed` says which shards have how many.
-- @string table_name may carry a schema: `app.users`
-- @tparam {string,...} columns
-- @param rows a list, or an iterator that gives a row and in the end nil; a row is a list of values in the
--   columns' order (nil is NULL) or a table by column name. An iterator that gives nil and an error has
--   failed, as one that raises. With `format`: bytes as `psql`'s `\copy` would read them, which is faster:
--   a string, an open file (a pipe blocks all tasks while it is empty), a list of strings, or an iterator that
--   gives strings and in the end nil; they may be cut anywhere
-- @tparam[opt] table opts `key`: the shard key's column or columns [the table's, then the strategy's];
--   `shard_id` or `routing_key`: all
--   rows to one shard; `table`: whose declaration counts, when the name differs; `format`: `text` (tabs, and
--   `\N` for NULL) or `csv` (commas, double quotes, and nothing for NULL); `header`: the first row names the
--   columns, and is checked; `timeout` for everything [none]. Rows of a reference table go to every shard
-- @treturn[1] table `row_count`, `rows_by_shard` (shard_id -> rows), `duration`, `success`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `SHARDS_FAILED` (with `failed`, whose errors have the row's number in `index` where
--   the server names one, and `committed`), `NULL_KEY`, `INVALID`, `NO_SHARD`
--   (with `index`, the row's
--   number, the header not counted), `PLUGIN_FAILED` (the iterator failed, or what it gave is no row), `CLOSED`
function copy_in.methods:copy_in(table_name, columns, rows, opts)
  local quoted = type(table_name) == "string" and statement.quote_table(table_name)
  if not quoted then
    raise("copy_in: expected a table's name, got " .. options.describe(table_name), 2)
  elseif type(columns) ~= "table" then
    raise("copy_in: columns: expected a list of names, got " .. options.describe(columns), 2)
  end
  opts = options.check(opts, COPY, "copy_in")
  check_format(opts)
  local started = task.now()
  local deadline = opts.timeout and started + opts.timeout
  local source, message = copy_source.new(rows, opts.format, deadline)
  if not source then
    raise("copy_in: rows: " .. message, 2)
  end
  local sql = ("COPY %s (%s) FROM STDIN%s"):format(quoted, quoted_columns(columns),
    opts.format == "csv" and " (FORMAT csv)" or "")
  local ok, err = self.manager:check_open()
  if not ok then
    return nil, err
  end
  local split
  split, err = copy_split.new(self.manager, table_name, columns, opts)
  if not split then
    if type(err) == "string" then
      raise("copy_in: " .. err, 2)
    end
    return nil, err
  end
  local function new_job()
    return copy_load.new(self, sql, function(shard_id, n)
      return split:row_of(shard_id, n)
    end, deadline)
  end
  local job = new_job()
  if self.manager.catalog then
    ok, err = guarding.through(self.manager, deadline or self:deadline({}), function(guarded)
      job = new_job()
      local under = guarding.under_all(self.manager, guarded, self.manager.members)
      local prepared, problem = job:prepare(members_of(self.manager, split), under)
      if not prepared then
        return nil, problem
      end
      -- Now nothing moves any more, and the map is right.
      split, problem = copy_split.new(self.manager, table_name, columns, opts)
      if not split or not job:has_begun(split.shard_ids) then
        job:abort()
      end
      if not split then
        return nil, problem
      elseif not job:has_begun(split.shard_ids) then
        return guarding.changed()
      end
      return true
    end)
    if not ok then
      return nil, err
    end
  end
  local total
  ok, total, err = pcall(feed, job, source, split)
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
