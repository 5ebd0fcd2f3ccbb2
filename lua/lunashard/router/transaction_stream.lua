--- Streams inside a transaction.
-- Ending a statement early means cancelling it, which would abort the whole transaction. So a stream
-- runs inside a savepoint: an early end goes back to it, and the transaction stays usable.
-- @module lunashard.router.transaction_stream

local checking = require("lunashard.router.checking")
local cursors = require("lunashard.router.cursors")
local guarding = require("lunashard.router.guarding")
local lease_of_map = require("lunashard.catalog.lease")
local routing = require("lunashard.router.routing")
local stream = require("lunashard.router.stream")
local task = require("lunashard.task")
local transaction_guards = require("lunashard.router.transaction_guards")

local transaction_stream = {}

local SAVEPOINT = "lunashard_stream" -- one at a time: nothing else runs meanwhile
local END_TIMEOUT = 5

local function earlier(a, b)
  return a and b and math.min(a, b) or a or b
end

-- Give the source an end that looks after the savepoint, and an eye on errors.
local function guard(tx, source)
  local read, end_cursor, state = source.next_rows, source.close, "open"

  function source.next_rows()
    local rows, err = read()
    if rows == nil and state == "open" then
      state = err and "failed" or "read"
      if err then
        tx:note_failure(err)
      end
    end
    return rows, err
  end

  function source.close()
    if state == "closed" then
      return
    end
    local sql = "RELEASE SAVEPOINT " .. SAVEPOINT
    if state == "open" then
      sql = ("ROLLBACK TO SAVEPOINT %s; %s"):format(SAVEPOINT, sql)
    end
    local was = state
    state = "closed"
    end_cursor()
    tx.streaming = nil
    if was ~= "failed" and not tx.lost then
      local ok, err = tx.lease:execute(sql, nil, { simple = true, deadline = task.now() + END_TIMEOUT })
      if not ok then
        tx:note_failure(err)
      end
    end
  end
end

--- A stream on the connection of a transaction.
-- @tparam Tx tx
-- @tparam func check_usable tells whether the transaction can run a statement now
-- @string sql
-- @tparam ?table params
-- @tparam table opts `fetch_size`, `timeout`, `decode_json`
-- @treturn Stream
function transaction_stream.new(tx, check_usable, sql, params, opts)
  return stream.new(function(made)
    local ok, err = check_usable(tx)
    if ok then
      ok, err = routing.check_statement(sql)
    end
    if ok and tx.router.checks then
      ok, err = checking.check(tx.router, sql, params, nil, tx.member)
    end
    if ok then
      ok, err = transaction_guards.extend(tx, sql, params, opts)
    end
    if not ok then
      return nil, err
    end
    local started = task.now()
    local deadline = earlier(opts.timeout and started + opts.timeout, tx.deadline)
    ok, err = tx.lease:execute("SAVEPOINT " .. SAVEPOINT, nil, { deadline = deadline or tx.router:deadline(opts) })
    local source
    if ok and tx.generation ~= guarding.EXEMPT and not lease_of_map.holds(tx.router.manager, tx.generation) then
      return transaction_guards.too_late(tx)
    elseif ok then
      source, err = cursors.on_lease(tx.lease, sql, params, {
        started = started,
        deadline = deadline,
        decode_json = opts.decode_json,
        fetch_size = opts.fetch_size,
      })
    end
    if not source then
      tx:note_failure(err)
      return nil, err
    end
    guard(tx, source)
    source.shard_id = tx.shard_id
    made.sources[1], tx.streaming = source, made
    return stream.in_turn(made.sources)
  end)
end

return transaction_stream
