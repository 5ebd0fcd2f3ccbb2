--- What must be right before the first row moves, and what to do where it is not.
-- @module lunashard.rebalancer.preflight

local circle = require("lunashard.rebalancer.preflight.circle")
local errors = require("lunashard.errors")
local facts = require("lunashard.rebalancer.preflight.facts")
local parallel = require("lunashard.parallel")
local problems_of = require("lunashard.rebalancer.preflight.problems")
local rights = require("lunashard.rebalancer.preflight.rights")
local statement = require("lunashard.router.statement")

local preflight = {}

local OLD = 60 -- seconds: a transaction that is open for longer holds up cutovers

local function quoted(names)
  local list = {}
  for i, name in ipairs(names) do
    list[i] = '"' .. name .. '"'
  end
  return table.concat(list, ", ")
end

local function check_database(shard_id, told, first, is_fresh, add, warn)
  local own = told.database
  if own.standby then
    add(shard_id, nil, "the server is a standby; rows can only be moved between primaries")
  end
  if own.encoding ~= first.encoding then
    add(shard_id, nil, ("the database is in %s, that of the other shards in %s"):format(own.encoding, first.encoding))
  elseif own.collation ~= first.collation then
    warn(shard_id, nil, ("the database sorts by %s, that of the other shards by %s"):format(own.collation, first.collation))
  end
  if not own.installed and not is_fresh then
    add(shard_id, nil, "the schema lunashard is not there: run `lunashard cluster init`")
  elseif own.belongs_to then
    add(shard_id, nil, ('our schemas belong to %s, and moves write there: GRANT "%s" TO "%s"'):format(own.belongs_to,
      own.belongs_to, own.user))
  end
  for _, job in ipairs(told.left) do
    add(shard_id, nil, ("job %s, which has ended, has left notes of its moves: run `lunashard rebalance cleanup`"):format(job))
  end
  if own.prepared > 0 then
    warn(shard_id, nil, ("%d prepared transactions are open; while one has written to a bucket, this does not change hands")
      :format(own.prepared))
  end
  if own.oldest_transaction > OLD then
    warn(shard_id, nil, ("a transaction has been open for %d s; triggers stay until it has ended"):format(own.oldest_transaction))
  end
end

local function check_shape(shard_id, name, told, user, add)
  if told.kind ~= "r" and told.kind ~= "p" then
    add(shard_id, name, "is no table, and only tables move")
  elseif told.is_partition then
    add(shard_id, name, "is a partition: declare the partitioned table instead")
  elseif told.persistence ~= "p" or #told.unlogged > 0 then
    add(shard_id, name, "is unlogged: a crash would lose what was moved; ALTER TABLE ... SET LOGGED")
  end
  if told.primary_key == nil then
    add(shard_id, name, "has no primary key, by which changes are followed: ALTER TABLE ... ADD PRIMARY KEY")
  end
  if not told.owned then
    add(shard_id, name, ('belongs to %s, and only its owner can set triggers: GRANT "%s" TO "%s"'):format(told.owner,
      told.owner, user))
  end
  if told.row_security then
    add(shard_id, name, "has FORCE ROW LEVEL SECURITY, which hides rows from its owner, too: ALTER TABLE ... NO FORCE ROW LEVEL "
      .. "SECURITY while it moves")
  end
end

local function check_ties(shard_id, name, told, harmless, add)
  for _, list in ipairs({ { told.triggers, "trigger" }, { told.rules, "rule" } }) do
    local others = {}
    for _, one in ipairs(list[1]) do
      if not harmless[one] then
        others[#others + 1] = one
      end
    end
    if #others > 0 then
      add(shard_id, name, ("has the %s %s, which would see rows that move: drop it, or name it in harmless"):format(list[2],
        quoted(others)))
    end
  end
  if #told.inherits > 0 then
    add(shard_id, name, ("takes part in inheritance with %s"):format(table.concat(told.inherits, ", ")))
  end
  if #told.leaving > 0 then
    add(shard_id, name, ("has a foreign key that leaves the group: %s; put that table into the group, make it a "
      .. "reference table, or drop the constraint"):format(table.concat(told.leaving, ", ")))
  end
  if #told.entering > 0 then
    add(shard_id, name, ("is referenced from outside the group: %s; put that table into the group, or drop the constraint")
      :format(table.concat(told.entering, ", ")))
  end
end

local function check_same(shard_id, name, told, first, first_id, add)
  for _, part in ipairs({ "columns", "constraints" }) do
    if told[part] ~= first[part] then
      add(shard_id, name, ("has other %s than on %s: (%s) against (%s)"):format(part, first_id, told[part] or "none",
        first[part] or "none"))
      return
    end
  end
end

--- Judge what shards have said. Pure.
-- @tparam {table,...} list `shard_id`, `facts` of each, sources first
-- @tparam {string,...} names of the group's tables
-- @tparam {string,...} references
-- @tparam table harmless set of names of triggers and rules
-- @tparam ?table fresh set of ids of shards that have not joined yet
-- @treturn {table,...} problems, each `shard_id`, `table`, `message`
-- @treturn {table,...} warnings, the same
function preflight.judge(list, names, references, harmless, fresh)
  local problems, warnings = {}, {}
  local function add(shard_id, name, message)
    problems[#problems + 1] = { shard_id = shard_id, table = name, message = message }
  end
  local function warn(shard_id, name, message)
    warnings[#warnings + 1] = { shard_id = shard_id, table = name, message = message }
  end
  for _, one in ipairs(list) do
    check_database(one.shard_id, one.facts, list[1].facts.database, fresh and fresh[one.shard_id], add, warn)
    for _, granting in ipairs(one.facts.missing) do
      add(one.shard_id, nil, rights.message(granting))
    end
    for _, name in ipairs(references) do
      if one.facts.references[name] == false then
        add(one.shard_id, name, "the reference table is not there; create it as it is on the other shards")
      end
    end
    local found = circle.find(one.facts.tables, names)
    if found then
      add(one.shard_id, found[1].table, circle.message(found))
    end
  end
  for _, name in ipairs(names) do
    local first, first_id
    for _, one in ipairs(list) do
      local told = one.facts.tables[name]
      if told == false then
        add(one.shard_id, name, ("is not there; create it as on the other shards: pg_dump --schema-only --table=%s"):format(name))
      elseif told then
        check_shape(one.shard_id, name, told, one.facts.database.user, add)
        check_ties(one.shard_id, name, told, harmless, add)
        if first then
          check_same(one.shard_id, name, told, first, first_id, add)
        end
        first, first_id = first or told, first_id or one.shard_id
      end
    end
  end
  return problems, warnings
end

local function references_of(manager)
  local list, names = {}, {}
  for name, declared in pairs(manager.tables) do
    if declared.reference then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for i, name in ipairs(names) do
    list[i] = { name = name, sql = statement.quote_table(name) }
  end
  return list, names
end

--- The reference tables of a manager.
-- @tparam Manager manager
-- @treturn {table,...} each `name`, `sql`
-- @treturn {string,...} their names
preflight.references = references_of

--- A problem as a line.
-- @tparam table problem
-- @treturn string
preflight.line = problems_of.line

--- May this user write jobs down? See `lunashard.rebalancer.preflight.rights`.
preflight.rights = rights.of_catalog

--- Look at all shards that take part. Yields.
-- @tparam Manager manager
-- @tparam {table,...} tables of the group, see `lunashard.rebalancer.tables`
-- @tparam {string,...} shard_ids that take part, sources first
-- @tparam table opts `harmless` (a list of names), `job`, `fresh` (a set of shards that have not joined yet), `deadline`
-- @treturn[1] {table,...} warnings, each `shard_id`, `table`, `message`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` with `problems`, or `SHARDS_FAILED`
function preflight.check(manager, tables, shard_ids, opts)
  local references, reference_names = references_of(manager)
  local done = parallel.each(shard_ids, function(shard_id)
    local member, err = manager:member(shard_id)
    if not member then
      return nil, err
    end
    return facts.read(member.primary.pool, tables, references, { job = opts.job, deadline = opts.deadline,
      fresh = opts.fresh and opts.fresh[shard_id] ~= nil, any_fresh = opts.fresh and next(opts.fresh) ~= nil })
  end)
  local list, failed, names, harmless = {}, {}, {}, {}
  for i, shard_id in ipairs(shard_ids) do
    if done.results[i] then
      list[#list + 1] = { shard_id = shard_id, facts = done.results[i] }
    else
      failed[#failed + 1] = { shard_id = shard_id, error = done.errors[i] }
    end
  end
  if #failed > 0 then
    return nil, errors.new("SHARDS_FAILED", { message = ("%d of %d shards cannot be looked at"):format(#failed, #shard_ids),
      failed = failed, total = #shard_ids })
  end
  for i, one in ipairs(tables) do
    names[i] = one.name
  end
  for _, name in ipairs(opts.harmless or {}) do
    harmless[name] = true
  end
  local problems, warnings = preflight.judge(list, names, reference_names, harmless, opts.fresh)
  if #problems > 0 then
    return nil, problems_of.refusal(problems)
  end
  return warnings
end

return preflight
