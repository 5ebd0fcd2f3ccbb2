#!/usr/bin/env -S lunashard run
-- Is every row on the shard where the strategy looks for it, and is every reference table the same everywhere?
-- Reads the keys of all rows; what was read is not read again when it is broken off and run with the same --state.

local lunashard = require("lunashard")
local script = require("lunashard.script")
local statement = require("lunashard.router.statement")

local PIECE = 2000 -- rows between two looks at the others

local SUM = [[
  SELECT count(*) AS rows, coalesce(sum(hashtextextended(t::text COLLATE "C", 0)::numeric), 0)::text AS checksum FROM %s AS t]]

local function invalid(format, ...)
  return lunashard.errors.new("INVALID", { message = format:format(...) })
end

-- Names of the tables to look at: those with a key, and those that are the same everywhere.
local function tables_of(job)
  local sharded, reference, named = {}, {}, job.args.table
  for _, name in ipairs(named) do
    if not job.manager.tables[name] then
      local near = lunashard.errors.nearest(name, job.manager.tables)
      job:usage(("the cluster file declares no table %s%s"):format(name, near and ("; did you mean %s?"):format(near) or ""))
    end
  end
  for name, declared in pairs(job.manager.tables) do
    local wanted = #named == 0
    for _, given in ipairs(named) do
      wanted = wanted or given == name
    end
    if wanted then
      table.insert(declared.reference and reference or sharded, name)
    end
  end
  table.sort(sharded)
  table.sort(reference)
  if #sharded + #reference == 0 then
    job:usage("the cluster file declares no tables")
  end
  return sharded, reference
end

local function csv_field(value)
  local text = tostring(value):gsub("U?LL$", "")
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

-- Where misplaced keys are written, when that is wanted.
local function open_output(path, is_resumed)
  if not path then
    return nil
  end
  local file, reason = io.open(path, is_resumed and "ab" or "wb")
  if not file then
    error(invalid("--output: %s", reason), 0)
  end
  local function write(...)
    local ok, problem = file:write(...)
    if ok then
      ok, problem = file:flush()
    end
    if not ok then
      error(lunashard.errors.new("INVALID", { message = ("--output %s: %s"):format(path, problem), exit_code = 1 }), 0)
    end
  end
  if not is_resumed then
    write("table,key,shard,belongs_to\n")
  end
  return { write = write, file = file }
end

local function verify_shard(job, shard, name, bound, output, progress)
  local key = job.manager.tables[name].shard_key
  local columns, quoted = type(key) == "table" and key or { key }, {}
  for i, column in ipairs(columns) do
    quoted[i] = statement.quote_ident(column)
  end
  local sql = ("SELECT %s FROM %s"):format(table.concat(quoted, ", "), job:quoted_table(name))
  local count = { table = name, shard = shard.shard_id, rows = 0, misplaced = 0, without_key = 0 }
  local stream = job.plain:stream(sql, {}, { shard_id = shard.shard_id })
  local ok, err = pcall(function()
    for row in stream do
      local value = row[columns[1]]
      if #columns > 1 then
        value = {}
        for i, column in ipairs(columns) do
          value[i] = row[column]
        end
      end
      local owner = value ~= nil and bound:route(value) or nil
      count.rows = count.rows + 1
      if owner == nil then
        count.without_key = count.without_key + 1
      elseif owner ~= shard.shard_id then
        count.misplaced = count.misplaced + 1
        count.example = count.example or ("%s belongs to %s"):format(csv_field(type(value) == "table"
          and table.concat(value, ", ") or value), owner)
        if output then
          output.write(csv_field(name), ",", csv_field(type(value) == "table" and table.concat(value, " ") or value), ",",
            shard.shard_id, ",", owner, "\n")
        end
      end
      if count.rows % PIECE == 0 then
        progress:add(PIECE)
        lunashard.sleep(0)
      end
    end
  end)
  stream:close()
  if not ok then
    error(err, 0)
  end
  progress:add(count.rows % PIECE)
  return count
end

local function verify_sharded(job, names, state, output, progress)
  local counts = {}
  local done = state.values
  job:each_shard(function(shard)
    local wrong = 0
    for _, name in ipairs(names) do
      local bound = assert(job.manager:strategy_for(name))
      local id = name .. "/" .. shard.shard_id
      done[id] = done[id] or verify_shard(job, shard, name, bound, output, progress)
      if state.path ~= "" then
        assert(state:save())
      end
      counts[id] = done[id]
      wrong = wrong + done[id].misplaced + done[id].without_key
    end
    job:difference(wrong)
    return "ok", { wrong = wrong }
  end)
  local rows = {}
  for _, name in ipairs(names) do
    for _, shard in ipairs(job.shards) do
      rows[#rows + 1] = counts[name .. "/" .. shard.shard_id]
    end
  end
  return rows
end

local function verify_reference(job, names)
  local found = {}
  job:each_shard(function(shard)
    found[shard.shard_id] = {}
    for _, name in ipairs(names) do
      found[shard.shard_id][name] = shard:rows(SUM:format(job:quoted_table(name)))[1]
    end
    return "ok"
  end)
  local rows = {}
  for _, name in ipairs(names) do
    local sums, first = {}, nil
    for _, shard in ipairs(job.shards) do
      local one = (found[shard.shard_id] or {})[name]
      if one then
        sums[one.checksum] = (sums[one.checksum] or 0) + 1
        first = first or one.checksum
      end
    end
    for _, shard in ipairs(job.shards) do
      local one = (found[shard.shard_id] or {})[name]
      if one then
        one.table, one.shard, one.same = name, shard.shard_id, one.checksum == first
        rows[#rows + 1] = one
      end
    end
    if next(sums) and next(sums, next(sums)) then
      job:difference()
      job:say("the reference table %s is not the same on all shards", name)
    end
  end
  return rows
end

return script.main({
  summary = "are all rows on the shards where they are looked for, and reference tables the same everywhere",
  example = "lunashard run -c cluster.lua scripts/verify_placement.lua --output misplaced.csv --exit-code",
  differences = true,
  shards = true,
  arguments = function(parser)
    parser:option("--table", "this table; may be given several times [all that are declared]"):count("*")
    parser:option("--output", "write the keys that are on the wrong shard to this CSV file")
    parser:option("--state", "keep in this file what was read, and go on from there")
    parser:flag("--restart", "forget what --state says")
  end,
  run = function(job)
    local sharded, reference = tables_of(job)
    local state = assert(job:state(job.args.state or "", { script = "verify_placement", cluster = job.cluster.name,
      strategy = job.manager.strategy.name, shards = #job.manager.shards }, { restart = job.args.restart }))
    if state.is_resumed then
      job:say("goes on where %s says", job.args.state)
    end
    local output = open_output(job.args.output, state.is_resumed)
    local progress = job:progress("reading keys", nil, "rows")
    local rows = verify_sharded(job, sharded, state, output, progress)
    job:close()
    local ok, err = job:table("tables", { "table", "shard", "rows", "misplaced", "without_key", "example" }, rows)
    if ok and #reference > 0 then
      ok, err = job:table("reference_tables", { "table", "shard", "rows", "same" }, verify_reference(job, reference))
    end
    if output then
      output.file:close()
    end
    if job.args.state and job.summary:exit_code() == 0 then
      state:remove()
    end
    if job.difference_count > 0 and not job.args.output then
      job:next_script("verify_placement", "--output misplaced.csv")
    end
    return ok, err
  end,
})
