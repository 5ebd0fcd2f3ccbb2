--- One look at one endpoint: is it there, what is it, how far behind.
-- @module lunashard.manager.probe


local probe = {}

-- One round trip. The functions may be called by anybody; what of pg_stat_wal_receiver is for monitors only is
-- NULL for others, as its row is not. The checkpoint's timeline is an old one for a while after a promotion.
local SQL = [[
  SELECT r.in_recovery,
    CASE WHEN r.in_recovery
      THEN greatest(c.timeline_id, v.min_recovery_end_timeline, w.received_tli)
      ELSE ('x' || substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int8::int4
    END AS timeline,
    (CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END
      - '0/0')::float8 AS lsn,
    CASE WHEN r.in_recovery THEN (pg_catalog.pg_last_wal_receive_lsn() - '0/0')::float8 END AS received,
    CASE WHEN r.in_recovery THEN
      extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
    END AS replay_age,
    w.pid IS NOT NULL AS streaming,
    s.system_identifier::text AS system_identifier,
    extract(epoch FROM pg_catalog.pg_postmaster_start_time())::text AS started,
    pg_catalog.current_setting('server_encoding') AS server_encoding
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) r
    CROSS JOIN pg_catalog.pg_control_checkpoint() c
    CROSS JOIN pg_catalog.pg_control_recovery() v
    CROSS JOIN pg_catalog.pg_control_system() s
    LEFT JOIN pg_catalog.pg_stat_wal_receiver w ON true]]

--- Ask an endpoint who it is, on the probe's own connection. Yields.
-- @tparam table endpoint
-- @number deadline
-- @treturn[1] table `latency` (seconds), `in_recovery`, `timeline`, `lsn`, `received`, `replay_age`, `streaming`,
--   `system_identifier`, `server_encoding`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function probe.run(endpoint, deadline)
  local result, err = endpoint.probe:execute(SQL, nil, { deadline = deadline, read_only = true, pipeline = false })
  if not result then
    return nil, err
  end
  local found = result.rows[1]
  found.latency = result.duration
  return found
end

return probe
