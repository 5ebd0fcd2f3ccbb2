--- The staged rows become rows of the destination, which owns their buckets from then on: one transaction.
-- @module lunashard.rebalancer.merge
-- @local

local fence = require("lunashard.rebalancer.fence")
local names = require("lunashard.rebalancer.names")
local verify = require("lunashard.rebalancer.verify")

local merge = {}

-- What the rows say after triggers and generated columns have had their way. A column that goes by one name in the
-- table and another in the statement would be read from the wrong one: hence the alias.
local function text_of(row, one)
  return ("WITH merged AS (INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s AS s ORDER BY %s "
    .. "RETURNING %s AS h) %s"):format(one.qualified, names.each(one.written, "%s"), names.each(one.written, "s.%s"),
    names.staging(row, one.n), names.each(one.key, "s.%s"), names.hash("t", one.columns), names.checksum("merged"))
end

local MERGED = [[UPDATE lunashard.move SET step = 'merged' WHERE job = $1 AND seq = $2 AND role = 'destination']]

local function insert(lease, row, tables, expected, deadline)
  for i, one in ipairs(tables) do
    local found, err = lease:execute(text_of(row, one), nil, { deadline = deadline })
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
      ok, err = lease:execute(MERGED, { row.job, row.seq }, { deadline = deadline })
    end
    if ok then
      ok, err = fence.lock_shard(lease)
    end
    if ok then
      ok, err = fence.own(context, lease, row, known)
    end
    return ok, err
  end, { lock_timeout = 500, deadline = deadline, moves_rows = true })
end

return merge
