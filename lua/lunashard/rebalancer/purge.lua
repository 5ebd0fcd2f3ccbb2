--- The rows leave the source, after the map says that they are elsewhere.
-- They must be those that were verified; where `purge_delay` says so they go into holding tables.
-- @module lunashard.rebalancer.purge
-- @local

local copy = require("lunashard.rebalancer.copy")
local fence = require("lunashard.rebalancer.fence")
local keys = require("lunashard.rebalancer.keys")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local verify = require("lunashard.rebalancer.verify")

local purge = {}

-- They are held back where somebody asked for that.
local MAKE_HOLDING = "CREATE TABLE IF NOT EXISTS %s AS SELECT %s FROM %s AS t WITH NO DATA"
local HOLD = "held AS (INSERT INTO %s (%s) SELECT * FROM gone)"

local function text_of(context, row, one, is_checked)
  local removal = copy.removal(context, row, one)
  if context.options.purge_delay > 0 then
    return ("WITH gone AS (%s RETURNING %s), %s %s"):format(removal, names.each(one.columns, "t.%s"),
      HOLD:format(names.holding(row, one.n), names.each(one.columns, "%s")),
      names.checksum(("(SELECT %s AS h FROM gone AS g) AS m"):format(names.hash("g", one.columns))))
  elseif is_checked then
    return ("WITH gone AS (%s RETURNING %s AS h) %s"):format(removal, names.hash("t", one.columns), names.checksum("gone"))
  end
  return removal
end

local FORGET = "DELETE FROM %s WHERE bucket = ANY (%s::text[])"

-- Keys that nobody has taken from the list of those that were written go to the other one: rows may be there of which
-- nothing else is known. Where only Lua can tell buckets, all were taken.
local function first_words(context, row, tables)
  local texts = context.in_sql and keys.taking_over(row, tables) or {}
  for _, one in ipairs(context.options.purge_delay > 0 and tables or {}) do
    texts[#texts + 1] = MAKE_HOLDING:format(names.holding(row, one.n), names.each(one.columns, "t.%s"), one.qualified)
  end
  for _, one in ipairs(context.in_sql and {} or tables) do
    texts[#texts + 1] = FORGET:format(names.dirty(row, one.n), names.array(row.buckets))
  end
  return texts
end

local PURGED = "UPDATE lunashard.move SET step = 'purged' WHERE job = %d AND seq = %d AND role = 'source'"

-- The list of their keys goes with the job. It is true of these buckets no more: what a mover brings back is not noted.
local UNLISTED = [[
  UPDATE lunashard.move SET detail = jsonb_set(detail, '{buckets}', (detail->'buckets') - %s::text[])
   WHERE job = %d AND seq = 0 AND role = 'source']]

-- What is left to do when the rows are gone.
local function last_words(row)
  return { PURGED:format(row.job, row.seq), UNLISTED:format(names.array(row.buckets), row.job), fence.SHARD_LOCK,
    fence.END_TRANSITION, fence.ADVANCE }
end

local function remove(lease, context, row, tables, checks)
  for i = #tables, 1, -1 do
    local one = tables[i]
    local found, err = lease:execute(text_of(context, row, one, checks[i] ~= nil), nil, { deadline = session.soon() })
    if not found then
      return nil, err
    elseif checks[i] and found.rows[1].checksum ~= checks[i].checksum then
      return nil, verify.difference(one, ("left on %s"):format(row.source), checks[i], found.rows[1])
    end
  end
  return true
end

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
    local ok, err = session.run(lease, first_words(context, row, tables))
    if ok then
      ok, err = remove(lease, context, row, tables, checks)
    end
    if not ok then
      return nil, err
    end
    return session.run(lease, last_words(row))
  end, { lock_timeout = 500, moves_rows = true, brief = context })
end

return purge
