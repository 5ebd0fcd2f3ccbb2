--- How busy buckets and shards are, for policies that go by that.
-- @module lunashard.rebalancer.load

local buckets = require("lunashard.catalog.buckets")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local load = {}

local ALL = 2 ^ 31
local TIMEOUT = 10 -- seconds

-- What is read by an index, and written: whoever counts rows for a plan reads them all without one.
local TOUCHED = [[
  SELECT coalesce(sum(coalesce(idx_tup_fetch, 0) + n_tup_ins + n_tup_upd + n_tup_del), 0)::float8 AS n
    FROM pg_catalog.pg_stat_user_tables s
   WHERE s.relid IN (SELECT t.relid FROM pg_catalog.unnest($1::text[]) AS name,
                       pg_catalog.pg_partition_tree(pg_catalog.to_regclass(name)) t)
      OR s.relid IN (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest($1::text[]) AS name)]]

--- The time that the statements of this process took in the last five minutes, by bucket. Does not yield.
-- @tparam Manager manager
-- @tparam table bound the group's strategy
-- @treturn table bucket in SQL's text -> seconds
-- @treturn number of all
function load.own(manager, bound)
  local seconds, total = {}, 0
  for router in pairs(manager.routers) do
    for _, one in ipairs(router:get_top_buckets(ALL)) do
      if one.table == nil or manager:strategy_for(one.table) == bound then
        local text = buckets.text(one.bucket)
        seconds[text], total = (seconds[text] or 0) + one.seconds, total + one.seconds
      end
    end
  end
  return seconds, total
end

local function touched(manager, list, deadline)
  local names = {}
  for i, one in ipairs(list) do
    names[i] = one.sql
  end
  local counts, err = {}, nil
  local done = parallel.each(manager.members, function(member)
    local result, problem = member.primary.pool:execute(TOUCHED, { names }, { deadline = deadline })
    return result and result.rows[1].n, problem
  end)
  for i, member in ipairs(manager.members) do
    counts[member.shard_id], err = done.results[i], err or done.errors[i]
  end
  return not err and counts or nil, err
end

--- Rows that each shard's tables gave and took in some seconds. Yields for as long.
-- @tparam Manager manager
-- @tparam {table,...} list of tables, from `tables.of_group`
-- @number seconds
-- @treturn[1] table shard_id -> rows
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function load.of_shards(manager, list, seconds)
  local before, err = touched(manager, list, task.now() + TIMEOUT)
  local after
  if before then
    task.sleep(seconds)
    after, err = touched(manager, list, task.now() + TIMEOUT)
  end
  for shard_id, n in pairs(after or {}) do
    after[shard_id] = math.max(0, n - before[shard_id])
  end
  return after, err
end

--- Give every bucket of a state its `load`: that of this process where it sent anything, else its share by rows of what
-- its shard did. Pure.
-- @tparam table state
-- @tparam table own from `own`
-- @number total of it
-- @tparam ?table of_shards from `of_shards`
function load.spread(state, own, total, of_shards)
  local rows, count = {}, {}
  for _, item in ipairs(state.buckets) do
    rows[item.owner], count[item.owner] = (rows[item.owner] or 0) + item.rows, (count[item.owner] or 0) + 1
  end
  for _, item in ipairs(state.buckets) do
    local share = rows[item.owner] > 0 and item.rows / rows[item.owner] or 1 / count[item.owner]
    if total > 0 then
      item.load = own[buckets.text(item.bucket)] or 0
    else
      item.load = of_shards and (of_shards[item.owner] or 0) * share or 0
    end
  end
end

return load
