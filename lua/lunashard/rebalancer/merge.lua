--- The staged rows become rows of the destination, which owns their buckets from then on: one transaction.
-- @module lunashard.rebalancer.merge
-- @local

local fence = require("lunashard.rebalancer.fence")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local verify = require("lunashard.rebalancer.verify")

local merge = {}

-- What the rows say after triggers and generated columns have had their way. A column that goes by one name in the
-- table and another in the statement would be read from the wrong one: hence the alias.
local MERGE = [[
  WITH merged AS (INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s ORDER BY %s RETURNING %s AS h) %s]]

--- Put rows into a live table. A query as of `names.checksum`, of what stands there then.
-- @tparam table one the table, on the destination
-- @string relation SQL of what is to be put there
-- @treturn string
function merge.text(one, relation)
  return MERGE:format(one.qualified, names.each(one.written, "%s"), names.each(one.written, "s.%s"), relation,
    names.each(one.key, "s.%s"), names.hash("t", one.columns), names.checksum("merged"))
end

local MERGED = "UPDATE lunashard.move SET step = 'merged' WHERE job = %d AND seq = %d AND role = 'destination'"

--- Statements that make the destination the owner. The last of the transaction that put the rows there.
-- @tparam table context
-- @tparam table row
-- @tparam {number,...} versions of the buckets
-- @treturn {string,...}
function merge.owning(context, row, versions)
  return { session.brief(context), MERGED:format(row.job, row.seq), fence.SHARD_LOCK, fence.owning(context, row, versions),
    fence.ADVANCE }
end

local function insert(lease, row, tables, expected, deadline)
  for i, one in ipairs(tables) do
    local found, err = lease:execute(merge.text(one, names.staging(row, one.n)), nil, { deadline = deadline })
    if not found then
      return nil, err
    elseif expected[i] and found.rows[1].checksum ~= expected[i].checksum then
      return nil, verify.difference(one, ("merged on %s"):format(row.destination), expected[i], found.rows[1])
    end
  end
  return true
end

--- Merge. Yields.
-- @tparam table context
-- @tparam Session destination
-- @tparam table row
-- @tparam {table,...} tables of the destination, parents first
-- @tparam table known `checks` (of each table), `versions`, `destination_fingerprint`
-- @tparam number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `gives_up` when it cannot be done
function merge.run(context, destination, row, tables, known, deadline)
  return destination:transaction("verified", function(lease)
    local ok, err = fence.check_shape(lease, tables, known.destination_fingerprint, row.destination)
    if ok then
      ok, err = insert(lease, row, tables, known.checks, deadline)
    end
    if ok then
      ok, err = session.run(lease, merge.owning(context, row, known.versions), deadline)
    end
    return ok, err
  end, { lock_timeout = 500, deadline = deadline, moves_rows = true })
end

return merge
