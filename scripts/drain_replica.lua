#!/usr/bin/env -S lunashard run
-- Before a replica is stopped: is it safe to, and are all sessions gone from it? Sessions that do nothing are ended, those
-- that run something are waited for.

local lunashard = require("lunashard")
local script = require("lunashard.script")
local server = require("lunashard.script.server")

local STANDBY = [[
  SELECT pg_is_in_recovery() AS standby,
         (SELECT substring(conninfo FROM 'application_name=(\S+)') FROM pg_stat_wal_receiver) AS name,
         (SELECT slot_name::text FROM pg_stat_wal_receiver) AS slot]]

-- How many commits could still count on when this one is gone.
local SYNCHRONOUS = [[
  SELECT current_setting('synchronous_standby_names') AS wanted,
         count(*) FILTER (WHERE application_name = $1 AND sync_state IN ('sync', 'quorum')) AS own,
         count(*) FILTER (WHERE application_name <> $1 AND sync_state <> 'async') AS others
    FROM pg_stat_replication]]

local SESSIONS = [[
  SELECT pid, usename AS "user", application_name AS application, state,
         extract(epoch FROM clock_timestamp() - state_change)::float8 AS seconds, left(query, 100) AS query
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid]]

local PAUSE = 0.2

local function seconds(text)
  local value = tonumber(text)
  if not value or value < 0 then
    return nil, ("expected a number of seconds, got %q"):format(text)
  end
  return value
end

local function invalid(format, ...)
  return lunashard.errors.new("INVALID", { message = format:format(...) })
end

local function find_endpoint(job, name)
  local names = {}
  for _, member in ipairs(job.manager.members) do
    for _, endpoint in ipairs(member.endpoints) do
      if endpoint.name == name then
        return member, endpoint
      end
      names[#names + 1] = endpoint ~= member.primary and endpoint.name or nil
    end
  end
  local near = lunashard.errors.nearest(name, names)
  return nil, near and ("; did you mean %s?"):format(near) or names[1] and "; replicas are " .. table.concat(names, ", ") or ""
end

local function ask(where, sql, params)
  local result, err = where:execute(sql, params, { deadline = lunashard.now() + 10, pipeline = false })
  return result and result.rows or error(err, 0)
end

-- What stopping it would break.
local function check_safe(job, member, replica)
  local found = ask(replica, STANDBY)[1]
  if not found.standby then
    error(invalid("%s is no standby: promote another server first", job.args.replica), 0)
  end
  local primary = member.primary.pool
  local sync = ask(primary, SYNCHRONOUS, { found.name or "" })[1]
  if sync.wanted ~= "" and sync.own > 0 and sync.others == 0 then
    error(invalid("commits on %s wait for this replica (synchronous_standby_names = '%s'): they would wait for ever",
      member.shard_id, sync.wanted), 0)
  end
  if found.slot then
    job:say("its replication slot %s keeps WAL on %s while it is away: watch the disk there", found.slot, member.primary.name)
  end
  local others = 0
  for _, endpoint in ipairs(member.replicas) do
    others = others + ((endpoint.name ~= job.args.replica and endpoint.health.is_healthy) and 1 or 0)
  end
  if others == 0 then
    job:say("no other replica of %s is well: its reads go to the primary %s", member.shard_id, member.primary.name)
  end
end

local function is_idle(session)
  return session.state == "idle"
end

local function end_sessions(replica, sessions, which)
  local ended = 0
  for _, session in ipairs(sessions) do
    if which(session) then
      local rows = ask(replica, "SELECT pg_terminate_backend($1) AS done", { session.pid })
      ended = ended + (rows[1].done and 1 or 0)
    end
  end
  return ended
end

local function show(job, sessions)
  for _, session in ipairs(sessions) do
    session.seconds = session.seconds and math.floor(session.seconds * 10) / 10
  end
  return job:table("sessions", { "pid", "user", "application", "state", "seconds", "query" }, sessions)
end

local function drain(job, replica)
  local started = lunashard.now()
  local progress, total, ended = job:progress("sessions gone", nil, "sessions"), 0, 0
  while true do
    local sessions, now = ask(replica, SESSIONS), lunashard.now() - started
    total = math.max(total, #sessions)
    progress:set(total - #sessions)
    if #sessions == 0 then
      return true, ended
    elseif now >= job.args.timeout then
      if not job.args.terminate then
        show(job, sessions)
        return nil, lunashard.errors.new("TIMEOUT", { message = ("%d session%s there still after %g s: wait longer "
          .. "(--timeout), or end them with --terminate"):format(#sessions, #sessions == 1 and " is" or "s are",
          job.args.timeout) })
      end
      ended = ended + end_sessions(replica, sessions, function()
        return true
      end)
    elseif now >= job.args.grace then
      ended = ended + end_sessions(replica, sessions, is_idle)
    end
    lunashard.sleep(PAUSE)
  end
end

return script.main({
  summary = "empty a replica of sessions before it is stopped, when that is safe",
  example = "lunashard run -c cluster.lua scripts/drain_replica.lua db1-replica.example.com:5432 --shard shard1",
  writes = function(args)
    return "end sessions on " .. args.replica
  end,
  arguments = function(parser)
    parser:argument("replica", "host:port")
    parser:option("--shard", "whose replica it is, when the cluster file does not have it any more")
    parser:flag("--listed", "go on although the cluster file still has it: clients may come back as they are sent away")
    parser:option("--grace", "seconds until idle sessions are ended", "2"):convert(seconds)
    parser:option("--timeout", "seconds until those that run something are given up", "60"):convert(seconds)
    parser:flag("--terminate", "end these then, too")
  end,
  run = function(job)
    local args = job.args
    local host, port = args.replica:match("^(.+):(%d+)$")
    if not host then
      job:usage(("the replica: expected host:port, got %q"):format(args.replica))
    end
    local member, endpoint = find_endpoint(job, args.replica)
    if member and member.primary == endpoint then
      error(invalid("%s is the primary of %s: promote a replica first", args.replica, member.shard_id), 0)
    elseif not member and not args.shard then
      job:usage(("%s is not in the cluster file%s; say with --shard whose replica it was"):format(args.replica, endpoint))
    elseif member and not args.listed and not job.dry_run then
      job:usage(("%s is in the cluster file: take it out, have the programs read the file again (SIGHUP to `lunashard serve`, "
        .. "cluster:reload()), then drain it; or say --listed"):format(args.replica))
    end
    member = member or assert(job.manager:member(args.shard))
    local replica = assert(server.connect(job.cluster.path, member.shard_id, { host = host, port = tonumber(port) }))
    local ok, done, detail = pcall(function()
      check_safe(job, member, replica)
      if job.dry_run then
        return show(job, ask(replica, SESSIONS))
      end
      return drain(job, replica)
    end)
    replica:close()
    if not ok or not done then
      error(ok and detail or done, 0)
    end
    job.summary:add(member.shard_id, job.dry_run and "ok" or "changed", { ended = detail })
    if not job.dry_run then
      job:next("stop the server at %s", args.replica)
    end
    return true
  end,
})
