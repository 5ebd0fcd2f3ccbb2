--- Rebalance jobs as the catalog has them: made, read, told what to do.
-- A job is a list of moves. Its `status` is one of `pending running paused completed failed cancelled rolled_back`; whoever
-- runs it holds the lock (see `lunashard.rebalancer.lock`), and is asked to pause or to end by `options.request`.
-- @module lunashard.rebalancer.job

local cjson = require("cjson.safe")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local lock = require("lunashard.rebalancer.lock")
local offline = require("lunashard.rebalancer.offline")
local values = require("lunashard.values")
local waves = require("lunashard.rebalancer.waves")

local job = {}

--- States of a move in which nothing of it is left anywhere.
-- @table SETTLED
job.SETTLED = { planned = true, done = true, aborted = true }

-- A failed job is open while one of its moves stands half-way.
local OPEN = [[
  (j.status IN ('pending', 'running', 'paused') OR j.status = 'failed' AND EXISTS (
    SELECT FROM lunashard_catalog.move m WHERE m.job = j.id AND m.state NOT IN ('planned', 'done', 'aborted')))]]

local FIND_OPEN = "SELECT j.id, j.grp, j.status FROM lunashard_catalog.job j WHERE " .. OPEN .. " ORDER BY j.id LIMIT 1"

local INSERT_JOB = [[
  INSERT INTO lunashard_catalog.job (grp, kind, strategy, options, total_rows)
  VALUES ($1, $2, $3, $4::jsonb, $5::bigint) RETURNING id]]

local INSERT_MOVES = [[
  INSERT INTO lunashard_catalog.move (job, seq, source, destination, buckets, rows_estimated, bytes)
  SELECT $1::bigint, m.seq, m.source, m.destination, m.buckets, m.rows, m.bytes
  FROM jsonb_to_recordset($2::jsonb) AS m(seq int, source text, destination text, buckets text[], rows bigint, bytes bigint)]]

local READ = [[
  SELECT j.id, j.grp, j.kind, j.strategy, j.status, j.options::text AS options, j.token, j.total_rows, j.error_message,
         extract(epoch FROM j.created_at)::float8 AS created_at, extract(epoch FROM j.started_at)::float8 AS started_at,
         extract(epoch FROM j.finished_at)::float8 AS finished_at,
         extract(epoch FROM coalesce(j.finished_at, now()) - j.started_at)::float8 AS duration_seconds, ]] .. OPEN .. [[ AS open,
         EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
           AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('lunashard lock rebalance', 0)) AS held
    FROM lunashard_catalog.job j]]

local READ_MOVES = [[
  SELECT m.seq, m.source, m.destination, m.buckets, m.state, m.cursor::text AS cursor, m.rows_estimated, m.rows_copied, m.bytes,
         m.pause_seconds, m.error_message, extract(epoch FROM m.started_at)::float8 AS started_at,
         extract(epoch FROM m.finished_at)::float8 AS finished_at
    FROM lunashard_catalog.move m WHERE m.job = $1::bigint ORDER BY m.seq]]

--- The refusal because of an open job.
-- @tparam table found from `find_open`
-- @treturn lunashard.error
function job.open_error(found)
  return errors.new("JOB_OPEN", {
    message = ("rebalance job %d (group %s) is %s: finish it first, with resume, cancel or rollback"):format(found.id,
      found.grp, found.status),
    job_id = found.id,
  })
end

--- The job that is open, if one is. Yields.
-- @tparam table catalog
-- @tparam ?number deadline
-- @treturn[1] table `id`, `grp`, `status`; or false
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function job.find_open(catalog, deadline)
  local result, err = catalog:execute(FIND_OPEN, nil, deadline)
  if not result then
    return nil, err
  end
  return result.rows[1] or false
end

local function texts(list)
  local all = {}
  for i, value in ipairs(list) do
    all[i] = tostring(value)
  end
  return all
end

-- Moves as INSERT_MOVES takes them.
local function encode_moves(moves)
  local list = {}
  for i, move in ipairs(moves) do
    list[i] = { seq = move.seq, source = move.source, destination = move.destination, buckets = texts(move.buckets),
      rows = math.floor(move.rows + 0.5), bytes = math.floor(move.bytes + 0.5) }
  end
  return json_text.encode(json_text.list(list))
end

-- Others wait for its locks, also when our process stands still.
local BEGIN = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5s'"

-- Statements in one transaction on the catalog; `fn(lease)` returns a value, or nil and an error.
local function transaction(catalog, deadline, fn)
  local lease, err = catalog:lease(deadline)
  if not lease then
    return nil, err
  end
  local ok
  ok, err = lease:execute(BEGIN, nil, { deadline = deadline, simple = true })
  local value
  if ok then
    value, err = fn(lease)
  end
  if value ~= nil then
    ok, err = lease:execute("COMMIT", nil, { deadline = deadline })
    value = ok and value or nil
  end
  lease:release()
  return value, err
end

--- Write a job down. Yields.
-- @tparam table catalog
-- @tparam table given `group`, `kind` (the planner), `strategy`, `options`, `moves` (as from `plan.pack`), `rows`
-- @tparam ?number deadline
-- @treturn[1] number id
-- @treturn[2] nil
-- @treturn[2] lunashard.error `JOB_OPEN` naming the one that is
function job.create(catalog, given, deadline)
  return transaction(catalog, deadline, function(lease)
    local opts = { deadline = deadline }
    local result, err = lease:execute("LOCK TABLE lunashard_catalog.job IN SHARE ROW EXCLUSIVE MODE", nil, opts)
    if result then
      result, err = lease:execute(FIND_OPEN, nil, opts)
    end
    if result and result.rows[1] then
      return nil, job.open_error(result.rows[1])
    elseif result then
      result, err = lease:execute(INSERT_JOB, { given.group, given.kind, given.strategy, assert(cjson.encode(given.options)),
        given.rows }, opts)
    end
    local id = result and result.rows[1].id
    if id then
      result, err = lease:execute(INSERT_MOVES, { id, encode_moves(given.moves) }, opts)
    end
    if not result then
      return nil, err
    end
    return id
  end)
end

--- Append moves to a job. Yields.
-- @tparam table catalog
-- @tparam number id
-- @tparam number token of its mover
-- @tparam {table,...} moves
-- @tparam table options that the job has from now on beside its own
-- @tparam ?number deadline
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when another mover has taken over
function job.append(catalog, id, token, moves, options, deadline)
  return transaction(catalog, deadline, function(lease)
    local result, err = lease:execute(
      "UPDATE lunashard_catalog.job SET options = options || $2::jsonb, status = 'running', finished_at = NULL, "
        .. "error_message = NULL WHERE id = $1::bigint AND token = $3", { id, assert(cjson.encode(options)), token },
      { deadline = deadline })
    if result and result.row_count == 0 then
      return nil, lock.taken_over(id)
    elseif result and #moves > 0 then
      result, err = lease:execute(INSERT_MOVES, { id, encode_moves(moves) }, { deadline = deadline })
    end
    return result and true or nil, err
  end)
end

local function decode(row)
  row.options = cjson.decode(row.options) or {}
  return row
end

--- Read a job, or the latest. Yields.
-- @tparam table catalog
-- @tparam ?number id
-- @tparam ?number deadline
-- @treturn[1] table the columns of the catalog's table (`options` decoded, times as Unix time), `open`, `held` (somebody moves)
--   and `moves`: a list
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when there is none
function job.read(catalog, id, deadline)
  local result, err
  if id then
    result, err = catalog:execute(READ .. " WHERE j.id = $1::bigint", { id }, deadline)
  else
    result, err = catalog:execute(READ .. " ORDER BY j.id DESC LIMIT 1", nil, deadline)
  end
  if not result then
    return nil, err
  elseif not result.rows[1] then
    return nil, errors.new("INVALID", { message = id and ("there is no rebalance job %s"):format(tostring(id))
      or "there is no rebalance job yet" })
  end
  local row = decode(result.rows[1])
  local moves
  moves, err = catalog:execute(READ_MOVES, { row.id }, deadline)
  if not moves then
    return nil, err
  end
  row.moves = moves.rows
  for _, move in ipairs(row.moves) do
    move.job, move.cursor = row.id, cjson.decode(move.cursor) or {}
  end
  return row
end

--- All jobs, the latest first, without their moves. Yields.
-- @tparam table catalog
-- @tparam number limit
-- @tparam ?number deadline
-- @treturn[1] {table,...}
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function job.list(catalog, limit, deadline)
  local result, err = catalog:execute(READ .. " ORDER BY j.id DESC LIMIT $1", { limit }, deadline)
  if not result then
    return nil, err
  end
  for _, row in ipairs(result.rows) do
    decode(row)
  end
  return result.rows
end

local SET = [[
  UPDATE lunashard_catalog.job j SET status = $2, error_message = $3,
         options = CASE WHEN $4::bool THEN options - 'request' ELSE options END,
         started_at = CASE WHEN $2 = 'running' THEN coalesce(started_at, now()) ELSE started_at END,
         finished_at = CASE WHEN $2 IN ('completed', 'failed', 'cancelled', 'rolled_back') THEN now() END,
         total_migrated = (SELECT coalesce(sum(m.rows_copied), 0) FROM lunashard_catalog.move m
                           WHERE m.job = j.id AND m.state IN ('merged', 'flipped', 'done'))
   WHERE id = $1::bigint AND token = $5]]

--- Say where a job stands; ends what was asked of it. Yields.
-- @tparam table catalog
-- @tparam number id
-- @tparam number token of its mover
-- @string status
-- @tparam ?string message what is wrong
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error `LOCK_HELD` when another mover has taken over
function job.set(catalog, id, token, status, message, deadline)
  local result, err = catalog:execute(SET, { id, status, message or values.null, true, token }, deadline)
  if result and result.row_count == 0 then
    return nil, lock.taken_over(id)
  end
  return result, err
end

--- Ask whoever runs a job for something: `pause`, `cancel`, or nothing any more. Yields.
-- @tparam table catalog
-- @tparam number id
-- @tparam ?string request
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function job.ask(catalog, id, request, deadline)
  if not request then
    return catalog:execute("UPDATE lunashard_catalog.job SET options = options - 'request' WHERE id = $1::bigint", { id },
      deadline)
  end
  return catalog:execute("UPDATE lunashard_catalog.job SET options = options || jsonb_build_object('request', $2::text), "
    .. "status = status WHERE id = $1::bigint", { id, request }, deadline)
end

--- What was asked, and the present token. Yields.
-- @tparam table catalog
-- @tparam number id
-- @tparam ?number deadline
-- @treturn[1] table `request`, `token`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function job.look(catalog, id, deadline)
  local result, err = catalog:execute("SELECT options->>'request' AS request, token FROM lunashard_catalog.job "
    .. "WHERE id = $1::bigint", { id }, deadline)
  return result and result.rows[1] or nil, err
end

local RENEW = [[
  UPDATE lunashard_catalog.move m SET state = 'planned', cursor = '{}', rows_copied = 0, error_message = NULL,
      started_at = NULL, finished_at = NULL
    FROM lunashard_catalog.job j
   WHERE j.id = $1::bigint AND j.token = $2 AND m.job = j.id AND m.state = 'aborted'
     AND m.seq >= coalesce((j.options->>'back_from')::int, 0)]]

--- Moves that were given up, to be begun again; in a job that is rolled back only those that lead back. Yields.
-- @tparam table catalog
-- @tparam number id
-- @tparam number token of the job's mover: another one's does nothing
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function job.renew(catalog, id, token, deadline)
  return catalog:execute(RENEW, { id, token }, deadline)
end

-- ---- what is told of it --------------------------------------------------------------

local CARRIED = { merged = true, flipped = true, done = true }

--- The guide's fields and more, of a job as `read` gives it. Pure.
-- @tparam table row
-- @treturn table `job_id`, `group`, `status`, `progress_percent`, `total_migrated`, `total_rows`, `duration_seconds`,
--   `error_message`, `moves` (how many, by state), `moves_done`, `moves_total`, `rows_copied` (those of moves under way,
--   too), `rate` (rows a second), `eta` (seconds), `last_pause` and `longest_pause` (seconds that a cutover took),
--   `downtime_seconds` (of an offline job: for how long buckets were closed, added up over its moves), `interrupted` (it is
--   `running` and nobody runs it), `request`, `planner`, `strategy`, `open`, `active`: the moves that are half-way;
--   `waves`, of a gradual job
function job.describe(row)
  local told = { job_id = row.id, group = row.grp, status = row.status, planner = row.kind, strategy = row.strategy,
    error_message = row.error_message, duration_seconds = row.duration_seconds or 0, total_rows = 0, total_migrated = 0,
    moves = {}, moves_done = 0, moves_total = #row.moves, active = {}, request = row.options.request, open = row.open,
    waves = waves.describe(row), rolling_back = row.options.direction == "back" or nil,
    interrupted = row.status == "running" and not row.held and true or nil }
  local copied, latest = 0, 0
  for _, move in ipairs(row.moves) do
    local carried = CARRIED[move.state]
    told.moves[move.state] = (told.moves[move.state] or 0) + 1
    if move.state ~= "aborted" then
      told.total_rows = told.total_rows + (carried and move.rows_copied or math.max(move.rows_estimated, move.rows_copied))
      copied = copied + move.rows_copied
    end
    if carried then
      told.total_migrated = told.total_migrated + move.rows_copied
    end
    if move.state == "done" then
      told.moves_done = told.moves_done + 1
    elseif not job.SETTLED[move.state] then
      table.insert(told.active, move)
    end
    if move.pause_seconds then
      told.longest_pause = math.max(told.longest_pause or 0, move.pause_seconds)
      if (move.finished_at or math.huge) >= latest then
        latest, told.last_pause = move.finished_at or math.huge, move.pause_seconds
      end
    end
  end
  told.rows_copied = copied
  told.downtime_seconds = row.strategy == "offline" and offline.downtime(row.moves) or nil
  local share = told.total_rows > 0 and copied / told.total_rows or told.moves_total > 0
    and told.moves_done / told.moves_total or 0
  local ended = row.status == "completed" or row.status == "rolled_back"
  told.progress_percent = ended and 100 or math.min(99.9, share * 100)
  if told.duration_seconds > 0 and copied > 0 then
    told.rate = copied / told.duration_seconds
    told.eta = row.status == "running" and (told.total_rows - copied) / told.rate or nil
  end
  return told
end

return job
