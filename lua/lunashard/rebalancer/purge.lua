--- The rows leave the source, after the map says that they are elsewhere.
-- They go into holding tables, and must be those that were verified.
-- @module lunashard.rebalancer.purge
-- @local

local copy = require("lunashard.rebalancer.copy")
local fence = require("lunashard.rebalancer.fence")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local verify = require("lunashard.rebalancer.verify")

local purge = {}

local function text_of(context, row, one)
  return ([[
    WITH gone AS (DELETE FROM %s AS t USING %s AS k WHERE %s RETURNING %s),
    held AS (INSERT INTO %s (%s) SELECT * FROM gone) %s]]):format(one.qualified, names.keys(row, one.n),
    copy.matching(context, row, one), names.each(one.columns, "t.%s"), names.holding(row, one.n),
    names.each(one.columns, "%s"), names.checksum(("(SELECT %s AS h FROM gone AS g) AS m"):format(
      names.hash("g", one.columns))))
end

local PURGED = [[UPDATE lunashard.move SET step = 'purged' WHERE job = $1 AND seq = $2 AND role = 'source']]

--- Purge. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables parents first
-- @tparam {table,...} checks of each table, when it was verified
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function purge.run(context, source, row, tables, checks)
  return source:transaction("flipped", function(lease)
    for i = #tables, 1, -1 do
      local one = tables[i]
      local found, err = lease:execute(text_of(context, row, one), nil, { deadline = session.soon() })
      if not found then
        return nil, err
      elseif checks[i] and found.rows[1].checksum ~= checks[i].checksum then
        return nil, verify.difference(one, ("left on %s"):format(row.source), checks[i], found.rows[1])
      end
    end
    for _, one in ipairs(tables) do
      for _, list in ipairs({ names.keys(row, one.n), names.dirty(row, one.n) }) do
        local ok, err = lease:execute(("DELETE FROM %s WHERE bucket = ANY ($1)"):format(list), { row.buckets },
          { deadline = session.soon() })
        if not ok then
          return nil, err
        end
      end
    end
    local ok, err = lease:execute(PURGED, { row.job, row.seq }, { deadline = session.soon() })
    if ok then
      ok, err = fence.lock_shard(lease)
    end
    if ok then
      ok, err = fence.end_transition(lease)
    end
    return ok, err
  end, { lock_timeout = 500, moves_rows = true })
end

return purge
