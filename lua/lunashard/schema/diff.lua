--- Drift: where the schemas of shards differ, and what would mend it.
-- One shard is the model; the others are compared with it, object by object.
-- @module lunashard.schema.diff

local attempt = require("lunashard.router.attempt")
local inventory = require("lunashard.schema.inventory")
local mend = require("lunashard.schema.mend")
local options = require("lunashard.options")
local parallel = require("lunashard.parallel")
local scatter = require("lunashard.router.scatter")
local task = require("lunashard.task")

local diff = {}

local OPTIONS = { against = "string", shard_ids = "table", schemas = "table", timeout = "seconds" }

local function read_shard(router, member, opts, deadline)
  local lease, err = attempt.lease(router, member, {}, deadline)
  if not lease then
    return nil, err
  end
  local ok, found, problem = pcall(inventory.read, lease, { schemas = opts.schemas, deadline = deadline })
  lease:release()
  if not ok then
    error(found, 0)
  end
  return found, problem
end

-- Parts of a table that is missing or extra as a whole are no differences of their own.
local function is_told_by_table(object, other)
  return object.parent ~= nil and not other.by_id["table\0\0" .. object.parent] and not other.by_id["view\0\0" .. object.parent]
    and not other.by_id["sequence\0\0" .. object.parent]
end

local function full_name(object)
  return object.parent and ("%s.%s"):format(object.parent, object.name) or object.name
end

-- `users.email`, `index users_email_idx`: with its table where the name alone says too little.
local function named(object)
  local has_parent = object.kind ~= "index" and object.parent
  return has_parent and full_name(object) or object.name
end

--- Compare two databases.
-- @tparam table model an inventory, see `lunashard.schema.inventory`
-- @tparam table other
-- @treturn {table,...} differences of `other`: `kind`, `name`, `what` (`missing`, `extra`, `changed`), `expected` and `found`
--   (their definitions), `statements` (what would mend it: `text`, `comment`)
function diff.compare(model, other)
  local list = {}
  for _, expected in ipairs(model.list) do
    local found = other.by_id[expected.id]
    if not found then
      if not is_told_by_table(expected, other) then
        list[#list + 1] = { kind = expected.kind, name = named(expected), what = "missing", expected = expected.def,
          statements = mend.missing(expected, model) }
      end
    elseif found.def ~= expected.def then
      list[#list + 1] = { kind = expected.kind, name = named(expected), what = "changed", expected = expected.def,
        found = found.def, statements = mend.changed(expected, found) }
    end
  end
  for _, found in ipairs(other.list) do
    if not model.by_id[found.id] and not is_told_by_table(found, model) then
      list[#list + 1] = { kind = found.kind, name = named(found), what = "extra", found = found.def,
        statements = mend.extra(found) }
    end
  end
  return list
end

--- The SQL that would make a shard like the model.
-- @function script
-- @tparam {table,...} differences from @{compare} or @{run}
-- @treturn string what would lose something is a comment
diff.script = mend.script

--- Compare the shards with one of them. Yields. Raises for unknown options and wrong types.
-- @tparam Router router
-- @tparam[opt] table opts `against`: the model's shard_id [the first]; `shard_ids`: which are compared; `schemas`: a list of
--   names [all]; `timeout` seconds [query_timeout]
-- @treturn[1] table `against`, `same` (no shard that was read differs), `complete` (all were read), `failed` (list of
--   `{ shard_id, error }`), `objects` (how many the model has), and `shards`: a list, without the model, of `shard_id`,
--   `differences` (see @{compare}) or `error`
-- @treturn[2] nil
-- @treturn[2] lunashard.error the model cannot be read; `NO_SHARD`, `INVALID`, `CLOSED`
function diff.run(router, opts)
  opts = options.check(opts, OPTIONS, "schema.diff")
  local ok, err = router.manager:check_open()
  local members, model
  if ok then
    members, err = scatter.members(router.manager, opts.shard_ids)
  end
  if members then
    model, err = router.manager:member(opts.against or members[1].shard_id)
  end
  if not model then
    return nil, err
  end
  local deadline = task.deadline(opts.timeout or router.query_timeout)
  local all = { model }
  for _, member in ipairs(members) do
    all[#all + 1] = member ~= model and member or nil
  end
  local read = parallel.each(all, function(member)
    return read_shard(router, member, opts, deadline)
  end, { limit = router.max_parallel_shards })
  if not read.results[1] then
    return nil, read.errors[1]
  end
  local report = { against = model.shard_id, objects = #read.results[1].list, same = true, failed = {}, shards = {} }
  for i = 2, #all do
    local one = { shard_id = all[i].shard_id, error = read.errors[i] }
    if one.error then
      report.failed[#report.failed + 1] = { shard_id = one.shard_id, error = one.error }
    else
      one.differences = diff.compare(read.results[1], read.results[i])
      report.same = report.same and #one.differences == 0
    end
    report.shards[#report.shards + 1] = one
  end
  report.complete = #report.failed == 0
  return report
end

return diff
