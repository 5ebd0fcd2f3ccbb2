--- What a script's work is given: its arguments, the cluster, and ways to tell what it does.
-- @classmod lunashard.script.job

local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local output = require("lunashard.script.output")
local parallel = require("lunashard.parallel")
local progress = require("lunashard.script.progress")
local router = require("lunashard.router")
local state = require("lunashard.script.state")
local statement = require("lunashard.router.statement")
local summary = require("lunashard.script.summary")

local job = {}

--- Metatable of what a wrong command line raises.
-- @local
job.Usage = {}

local Job = {}
Job.__index = Job

local Shard = {}
Shard.__index = Shard

--- Make a job.
-- @tparam table given `name`, `folder`, `args`, `cluster`, `dry_run`, `json`, `shards`
-- @treturn Job with these, and `manager`, `router` (the cluster's), `summary`, `result` (what `--json` shows)
function job.new(given)
  local self = setmetatable(given, Job)
  self.manager, self.router = given.cluster.manager, given.cluster.router
  -- For what is said to one shard by name: nothing in the statement is questioned.
  self.plain = router.new({ shard_manager = self.manager, extractor = false })
  self.summary, self.result, self.difference_count = summary.new(), {}, 0
  self.progresses = {}
  return self
end

--- Say a line on stderr.
-- @string format
-- @param ...
function Job:say(format, ...)
  progress.say(("lunashard: %s: %s"):format(self.name, select("#", ...) > 0 and format:format(...) or format))
end

--- Begin to show progress on stderr. The one before it is over.
-- @string phase what is being done
-- @int[opt] total how much there is
-- @string[opt] unit such as `rows`
-- @treturn lunashard.script.progress with `add(n)`, `set(n)`, `finish()`
function Job:progress(phase, total, unit)
  self:close()
  self.progresses[1] = progress.new(self.name, phase, total, unit)
  return self.progresses[1]
end

--- Progress is over.
-- @local
function Job:close()
  if self.progresses[1] then
    self.progresses[1]:finish()
    self.progresses[1] = nil
  end
end

--- Show rows: a table on stdout, or with `--json` a part of the result.
-- @string name of that part
-- @tparam {string,...} columns
-- @tparam {table,...} rows by column name
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error stdout cannot be written
function Job:table(name, columns, rows)
  self.result[name] = output.list(rows)
  if self.json then
    return true
  elseif #rows == 0 then
    self:say("%s: none", name)
    return true
  end
  self:close()
  if self.has_written then -- a blank line between two tables
    local ok, err = output.write("\n")
    if not ok then
      return nil, err
    end
  end
  self.has_written = true
  return output.table(columns, rows)
end

--- Write text to stdout, unless it is JSON that is wanted there.
-- @string text
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error stdout cannot be written
function Job:write(text)
  if self.json then
    return true
  end
  self:close()
  return output.write(text)
end

--- End the run because its arguments are wrong: exit code 2. Raises.
-- @string message one line
function Job:usage(message) -- luacheck: no self
  error(setmetatable({ message = message }, job.Usage), 0)
end

--- Before something severe: the cluster's name has to be typed or given with `--yes`, on any cluster. Nothing is asked in a
-- dry run. Raises when it is not confirmed.
-- @string what follows "this will"
function Job:confirm(what)
  if self.dry_run then
    return
  end
  local ok, err = confirm.check(self.manager, { what = what, yes = self.args.yes, severe = true })
  if not ok then
    error(err, 0)
  end
end

--- There is something to see to: with `--exit-code` the exit code is 3.
-- @int[opt=1] n
function Job:difference(n)
  self.difference_count = self.difference_count + (n or 1)
end

--- What to type next, the last line of the run.
-- @string format
-- @param ...
function Job:next(format, ...)
  self.next_command = format:format(...)
end

--- That script of the same folder as this one is what to run next.
-- @string name without .lua
-- @string[opt] format its arguments
-- @param ...
function Job:next_script(name, format, ...)
  self:next("lunashard run -c %s %s%s.lua%s", self.cluster.path, self.folder, name, format and " " .. format:format(...) or "")
end

--- A state file, from which a run that was broken off goes on.
-- @string path
-- @tparam table identity what the run is about; a file of another run is refused
-- @tparam[opt] table opts `restart`
-- @treturn[1] table `values`, `is_resumed`, `:save()`, `:remove()`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function Job:state(path, identity, opts) -- luacheck: no self
  return state.open(path, identity, opts)
end

-- ---- tables ---------------------------------------------------------------------------

--- A table's name, quoted. Raises when it is none.
-- @string name may carry a schema
-- @treturn string
function Job:quoted_table(name) -- luacheck: no self
  return statement.quote_table(name) or error(errors.new("INVALID", { message = ("%q is no table's name"):format(name) }), 0)
end

local NAMES = [[
  SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast']]

--- Is there a table of this name, on the first shard that answers?
-- @string name may carry a schema
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with the nearest name, or why no shard answers
function Job:check_table(name)
  local quoted, err = self:quoted_table(name), nil
  for _, shard in ipairs(self.shards) do
    local found
    found, err = self.plain:execute("SELECT to_regclass($1) IS NOT NULL AS found", { quoted }, { shard_id = shard.shard_id })
    if found and found.rows[1].found then
      return true
    elseif found then
      local names = {}
      for i, row in ipairs(assert(self.plain:execute(NAMES, nil, { shard_id = shard.shard_id })).rows) do
        names[i] = row.name
      end
      local near = errors.nearest(name, names)
      return nil, errors.new("INVALID", { message = ("there is no table %s on %s%s"):format(name, shard.shard_id,
        near and ("; did you mean %s?"):format(near) or "") })
    end
  end
  return nil, err
end

-- ---- shards ---------------------------------------------------------------------------

--- Run a statement on this shard. Yields. As `router:execute`.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts
-- @treturn[1] table result
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function Shard:execute(sql, params, opts)
  local how = { shard_id = self.shard_id }
  for name, value in pairs(opts or {}) do
    how[name] = value
  end
  return self.job.plain:execute(sql, params, how)
end

--- Its rows. Raises what `execute` would return.
-- @string sql
-- @tparam[opt] table params
-- @tparam[opt] table opts
-- @treturn {table,...}
function Shard:rows(sql, params, opts)
  local result, err = self:execute(sql, params, opts)
  return result and result.rows or error(err, 0)
end

--- The shards that are meant, as `each_shard` gives them.
-- @treturn {table,...}
function Job:shard_list()
  local list = {}
  for i, info in ipairs(self.shards) do
    list[i] = setmetatable({ shard_id = info.shard_id, info = info, job = self, number = i }, Shard)
  end
  return list
end

--- Do something on every shard that is meant, and note in the summary how it went. Yields.
-- @tparam func fn is called with a shard (`shard_id`, `info`, `number`, `:execute(sql, params, opts)`,
--   `:rows(sql, params, opts)`); it returns `"ok"`, `"changed"`, `"failed"` or `"skipped"`, and a text or table with
--   what there is to say; or nil and an error, which may be raised as well
-- @tparam[opt] table opts `parallel`: how many at a time [all]; `stop_on_error`: begin no more after a failure
-- @treturn boolean did none fail?
function Job:each_shard(fn, opts)
  local list = self:shard_list()
  local all_well = true
  local outcome = parallel.each(list, function(shard)
    local ok, word, detail = pcall(fn, shard)
    if not ok and (not errors.is(word) or word.code == "CANCELED") then
      error(word, 0)
    elseif not ok then
      return nil, word
    elseif word == nil and not errors.is(detail) then
      error(("each_shard: expected a word for the outcome, or nil and an error; got %s"):format(tostring(detail)), 0)
    elseif word == nil then
      return nil, detail
    end
    return { word = word, detail = detail }
  end, { limit = opts and opts.parallel, stop_on_error = opts and opts.stop_on_error })
  for i, shard in ipairs(list) do
    local result, err = outcome.results[i], outcome.errors[i]
    if result then
      self.summary:add(shard.shard_id, result.word, result.detail)
      all_well = all_well and result.word ~= "failed"
    elseif err then
      self.summary:add(shard.shard_id, summary.state_of(err), nil, err)
      all_well = false
    else
      self.summary:add(shard.shard_id, "skipped", "not begun, for another shard failed")
    end
  end
  return all_well
end

return job
