#!/usr/bin/env -S lunashard run
-- Finds statements that have been running for long, and transactions that sit idle, on every server of every shard,
-- and cancels or terminates them.

local script = require("lunashard.script")

-- Only what a client runs, and nothing of this program's own.
local FIND = [[
  SELECT pid, usename AS "user", application_name AS application, state,
         extract(epoch FROM clock_timestamp() - CASE state WHEN 'active' THEN query_start ELSE state_change END)::float8
           AS seconds,
         wait_event_type AS waits_for, left(regexp_replace(query, '\s+', ' ', 'g'), 200) AS query,
         extract(epoch FROM backend_start)::text AS born
    FROM pg_stat_activity
   WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND datname = current_database()
     AND CASE WHEN state = 'active' THEN clock_timestamp() - query_start >= make_interval(secs => $1)
              WHEN state LIKE 'idle in transaction%' THEN clock_timestamp() - state_change >= make_interval(secs => $2)
              ELSE false END
     AND ($3 = '' OR usename = $3) AND ($4 = '' OR application_name = $4) AND ($5 = '' OR query ILIKE $5)
   ORDER BY seconds DESC]]

-- The process may have ended and its id be another's by now, hence the time of its birth.
local KILL = [[
  SELECT CASE WHEN $3 = 'terminate' THEN pg_terminate_backend(pid) ELSE pg_cancel_backend(pid) END AS done
    FROM pg_stat_activity WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2]]

local NEVER = 1e9 -- seconds

local function seconds(text)
  local value = tonumber(text)
  if not value or value < 0 or value ~= value then
    return nil, ("expected a number of seconds, got %q"):format(text)
  end
  return value
end

local function ask(job, endpoint, sql, params)
  local result, err = endpoint.pool:execute(sql, params, { deadline = require("lunashard").now() + 10 })
  if not result then
    if err.sqlstate == "42501" then
      err.hint = "GRANT pg_signal_backend TO the cluster file's user, or run this as the sessions' owner"
    end
    return nil, err
  end
  return result.rows, job
end

-- A session that waits in a transaction runs nothing that could be cancelled.
local function kill(job, endpoint, found)
  local how = (job.args.terminate or found.state ~= "active") and "terminate" or "cancel"
  if job.dry_run then
    return "would " .. how
  end
  local rows, err = ask(job, endpoint, KILL, { found.pid, found.born, how })
  if not rows then
    return nil, err
  end
  return rows[1] == nil and "gone" or rows[1].done and (how == "cancel" and "cancelled" or "terminated") or "gone"
end

local function look_at(job, endpoint, list)
  local args = job.args
  local found, err = ask(job, endpoint, FIND, { args.longer or NEVER, args.idle or NEVER, args.user, args.application,
    args.like })
  if not found then
    return nil, err
  end
  local changed, failure = 0, nil
  for _, one in ipairs(found) do
    local done
    done, err = kill(job, endpoint, one)
    failure = failure or err
    one.action, one.shard, one.endpoint, one.born = done or "failed", endpoint.shard_id, endpoint.name, nil
    one.seconds = math.floor(one.seconds * 10) / 10
    changed = changed + ((done == "cancelled" or done == "terminated") and 1 or 0)
    list[#list + 1] = one
  end
  job:difference(#found)
  return not failure and changed or nil, failure
end

return script.main({
  summary = "cancel statements that run for too long, and end transactions that sit idle, on all servers of all shards",
  example = "lunashard run -c cluster.lua scripts/kill_long_queries.lua --longer 60 --like '%report%' --dry-run",
  writes = "cancel statements of other sessions",
  shards = true,
  differences = true,
  arguments = function(parser)
    parser:option("--longer", "statements that have been running for so many seconds"):convert(seconds)
    parser:option("--idle-in-transaction", "and transactions that have been idle for so many seconds; they are terminated")
      :convert(seconds):target("idle")
    parser:option("--user", "only those of this user", "")
    parser:option("--application", "only those of this application_name", "")
    parser:option("--like", "only statements like this pattern (% and _ as in SQL's ILIKE)", "")
    parser:flag("--terminate", "end the sessions, too: for those that a cancel does not stop")
    parser:flag("--primaries", "leave the replicas alone")
  end,
  run = function(job)
    if not job.args.longer and not job.args.idle then
      job:usage("say which: --longer SECONDS, --idle-in-transaction SECONDS, or both")
    end
    local list = {}
    job:each_shard(function(shard)
      local member, changed = assert(job.manager:member(shard.shard_id)), 0
      for _, endpoint in ipairs(job.args.primaries and { member.primary } or member.endpoints) do
        local n, err = look_at(job, endpoint, list)
        if not n then
          return nil, err
        end
        changed = changed + n
      end
      return changed > 0 and "changed" or "ok"
    end)
    return job:table("sessions",
      { "shard", "endpoint", "pid", "user", "application", "state", "seconds", "waits_for", "action", "query" }, list)
  end,
})
