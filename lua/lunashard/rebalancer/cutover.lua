--- The fast way from `fencing` to `merged`: whatever can be done before the buckets are closed is done before.
-- How long they are closed does not depend on how many rows they have:
--
-- 1. The source is looked at through one snapshot: what was noted and not brought yet (a delta), and the checksum of all
--    rows.
-- 2. The destination's last transaction begins: the staged rows, put right by the delta, go into the live tables. Nobody
--    sees them yet. What stands there must have the source's checksum.
-- 3. The source is fenced. Its last answer is the delta of all that was noted since the move began to copy.
-- 4. The destination's rows are put right by that while the source commits, and must be what the delta says. It owns the
--    buckets, and commits.
--
-- Every row is compared: those that were not written since the snapshot by 2, the others by 4. Before the rows leave the
-- source all of them are, once more (see `purge`). What goes wrong for the way in which rows are put there (a trigger on
-- updates, values that are exchanged between rows) is tried again the plain way, by `steps`, where rows are
-- staged, compared and merged while the buckets are closed.
-- @module lunashard.rebalancer.cutover
-- @local

local copy = require("lunashard.rebalancer.copy")
local delta = require("lunashard.rebalancer.delta")
local errors = require("lunashard.errors")
local fence = require("lunashard.rebalancer.fence")
local flip = require("lunashard.rebalancer.flip")
local merge = require("lunashard.rebalancer.merge")
local names = require("lunashard.rebalancer.names")
local replicas = require("lunashard.rebalancer.replicas")
local sequences = require("lunashard.rebalancer.sequences")
local session = require("lunashard.rebalancer.session")
local sums = require("lunashard.rebalancer.sums")
local task = require("lunashard.task")
local turn = require("lunashard.rebalancer.turn")
local verify = require("lunashard.rebalancer.verify")

local cutover = {}

local MERGE_LOCKS = 500 -- ms that the destination waits for one lock

--- Can a move go this way?
-- @tparam Mover mover
-- @treturn boolean
function cutover.is_possible(mover)
  return mover.context.in_sql and not mover:is_offline() and not mover.is_plain and mover.at_source.step ~= "fenced"
    and mover.at_destination.step ~= "merged"
end

-- ---- before the fence ----------------------------------------------------------------------

local SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

local REST = [[
  SELECT %d AS i, m.checksum FROM (%s) AS m]]

-- The checksums of all rows that were not noted.
local function rest_text(context, row, tables, noted)
  local parts = {}
  for i, one in ipairs(tables) do
    local rest = copy.listed(context, row, one)
    if #noted[i].keys[1] > 0 then
      rest = ("%s AND NOT EXISTS (SELECT FROM %s AS w WHERE %s)"):format(rest, names.relation(one, noted[i].keys),
        names.each(one.key, "w.k%d = k.k%d", " AND "))
    end
    parts[i] = REST:format(i, names.checksum(("(SELECT %s AS h %s) AS m"):format(names.hash("t", one.columns), rest)))
  end
  return table.concat(parts, " UNION ALL ")
end

local function look_at_rest(from, context, row, tables, noted)
  local found, err = from:execute(rest_text(context, row, tables, noted), nil, { deadline = session.soon() })
  if not found then
    return nil, err
  end
  local list = {}
  for _, one in ipairs(found.rows) do
    list[one.i] = sums.add(sums.parse(one.checksum), noted[one.i].sum)
  end
  return list
end

local function put(into, row, others, noted)
  local list = {}
  for i, one in ipairs(others) do
    local found, err = into:execute(merge.text(one, delta.staged(row, one, noted[i])), nil, { deadline = session.soon() })
    if not found then
      return nil, err
    end
    list[i] = sums.parse(found.rows[1].checksum)
  end
  return list
end

local function compare(mover, expected, merged)
  for i, one in ipairs(mover.tables) do
    local wanted, found = sums.check(expected[i]), sums.check(merged[i])
    if wanted.checksum ~= found.checksum then
      return nil, verify.difference(one, ("staged on %s"):format(mover.row.destination), wanted, found)
    end
  end
  return true
end

-- The rows as they are in the source's snapshot come to stand in the live tables; their sums.
local function bring_snapshot(mover, from, into)
  local context, row, tables, others = mover.context, mover.row, mover.tables, mover.others
  local found, err = session.run(from, { SNAPSHOT, delta.query(context, row, tables, others) })
  if not found then
    return nil, err
  end
  local noted = delta.read(found.rows, tables)
  local answers, raised = task.gather({
    function()
      return context.options.enable_validation and { look_at_rest(from, context, row, tables, noted) } or { {} }
    end,
    function()
      return { put(into, row, others, noted) }
    end,
  })
  if not answers then
    return nil, raised
  elseif not answers[1][1] or not answers[2][1] then
    return nil, answers[1][2] or answers[2][2]
  end
  local ok = true
  if context.options.enable_validation then
    ok, err = compare(mover, answers[1][1], answers[2][1])
  end
  if not ok then -- there may be a reason that says more
    local same, reason = fence.check_source(from, row, tables, mover.at_source.detail.fingerprint)
    return nil, not same and reason or err
  end
  return answers[2][1]
end

local function bring_rows(mover, into)
  local from, err = mover.source:connect()
  if not from then
    return nil, err
  end
  local merged, ended
  merged, err = bring_snapshot(mover, from, into)
  if from:transaction_status() ~= "unknown" then
    local problem
    ended, problem = from:execute("ROLLBACK", nil, { deadline = session.soon() })
    err = err or problem
  end
  if not ended and not err then
    err = errors.new("SHARD_DOWN", { shard_id = mover.row.source, message = "the connection was lost behind the last answer" })
  end
  return ended and merged or nil, err
end

-- ---- behind it ----------------------------------------------------------------------------

-- The rest of the destination's transaction but for its end, in one message.
local function start_finish(mover, into, rows, versions)
  local context, row = mover.context, mover.row
  local all = delta.read(rows, mover.tables)
  local texts, kept = delta.apply(context, row, mover.others, all)
  for _, text in ipairs(sequences.raising(mover.tables, mover.others, rows)) do
    texts[#texts + 1] = text
  end
  for _, text in ipairs(merge.owning(context, row, versions)) do
    texts[#texts + 1] = text
  end
  texts[#texts + 1] = "SELECT " .. kept
  local worker = task.spawn(function()
    return session.run(into, texts, mover:cutover_deadline())
  end):watch()
  return { worker = worker, delta = all }
end

local function finish(mover, rest, merged)
  local joined, answer, err = rest.worker:join()
  if not joined or not answer then
    return nil, joined and err or answer
  end
  local list, at, found = delta.sums(answer.rows[1], merged, rest.delta)
  if not list then
    return nil, verify.difference(mover.tables[at], ("merged on %s"):format(mover.row.destination),
      sums.check(rest.delta[at].sum), sums.check(found))
  end
  local checks = {}
  for i, one in ipairs(mover.context.options.enable_validation and list or {}) do
    checks[i] = sums.check(one)
  end
  return checks
end

-- From the fence to the point where only the destination's commit is left.
local function close(mover, into, merged, versions)
  local context, row, rest = mover.context, mover.row, nil
  local questions = sequences.questions(mover.tables, mover.others)
  table.insert(questions, delta.query(context, row, mover.tables, mover.others))
  local done, value, problem = pcall(function()
    local ok, err = fence.close(context, mover.source, row, mover.tables, {
      versions = versions, source_fingerprint = mover.at_source.detail.fingerprint, questions = questions,
      locked = function()
        mover.fenced_at = task.now()
      end,
      closed = function(rows)
        rest = start_finish(mover, into, rows, versions)
      end,
    })
    if ok then
      mover.at_source.step = "fenced"
      ok, err = replicas.wait(mover.source, mover:cutover_deadline())
    end
    local checks
    if ok then
      flip.pass(context, row, "fenced")
      checks, err = finish(mover, rest, merged)
    end
    if checks then
      row.cursor.checks = checks
      ok, err = flip.save(context, row, "verified")
    end
    return checks and ok, err
  end)
  if rest then -- nobody else may use the destination's connection while it works
    rest.worker:cancel()
    pcall(rest.worker.join, rest.worker)
  end
  if not done then
    error(value, 0)
  end
  return value or nil, problem
end

-- What the plain way may do better: anything that the server refused, and rows that came out as others than they should.
local function is_worth_another_way(mover, err)
  return err.code == "RESULT_TOO_LARGE" or err.keeps_evidence and mover.at_source.step == "fenced"
    or err.code == "SQL" and not err.retryable and err.sqlstate ~= "LS005" and err.sqlstate ~= "55P03"
end

-- Everything up to the destination's commit, in its transaction.
local function run_in(mover, into, versions)
  local row = mover.row
  local merged, err = bring_rows(mover, into)
  local ok = merged
  if ok then
    ok, err = fence.check_shape(into, mover.others, mover.at_destination.detail.fingerprint, row.destination)
  end
  if ok then
    ok, err = into:execute(fence.REHEARSE_OWNING, nil, { deadline = session.soon() })
  end
  if ok then
    mover.release_turn = turn.take(mover.context.manager, { row.source, row.destination })
    err = mover:stopped()
    ok = not err
  end
  if not ok then
    return nil, err
  end
  return close(mover, into, merged, versions)
end

--- Go it. Yields.
-- @tparam Mover mover of a move in the state `fencing`
-- @treturn[1] boolean true: the move is `merged`; false: it is to be done the plain way, from the state in which it is now
-- @treturn[2] nil
-- @treturn[2] lunashard.error with SQLSTATE 55P03 when the locks of the fence were not to be had
function cutover.run(mover)
  local versions, err = flip.versions(mover.context, mover.row)
  if not versions then
    return nil, err
  end
  turn.give_way(mover.context)
  local ok
  ok, err = mover.destination:transaction("verified", function(into)
    return run_in(mover, into, versions)
  end, { lock_timeout = MERGE_LOCKS, moves_rows = true })
  if ok then
    mover.at_destination.step, mover.versions = "merged", versions
    ok, err = replicas.wait(mover.destination, session.soon())
    if ok then
      flip.pass(mover.context, mover.row, "merged")
    end
    return ok, err
  end
  if mover.at_source.step ~= "fenced" then
    mover:end_turn()
  end
  if not is_worth_another_way(mover, err) then
    return nil, err
  end
  mover.is_plain = true
  ok, err = fence.mend(mover.context, mover.destination) -- what was rolled back may have had a number already
  return ok and false, err
end

return cutover
