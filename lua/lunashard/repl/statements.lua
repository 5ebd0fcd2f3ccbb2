--- Runs a line of SQL: where it goes, what is asked before, what is shown afterwards.
-- @module lunashard.repl.statements

local asking = require("lunashard.repl.asking")
local errors = require("lunashard.errors")
local classify = require("lunashard.router.statement").classify
local explaining = require("lunashard.repl.explaining")
local show = require("lunashard.repl.show")
local without_semicolon = require("lunashard.repl.classify").without_semicolon
local parse = require("lunashard.sql.statement").parse
local task = require("lunashard.task")
local transactions = require("lunashard.repl.transactions")

local statements = {}

-- What belongs to a session on a server, which the next statement may not have.
local OF_SESSION = { VariableSetStmt = "SET", ListenStmt = "LISTEN", UnlistenStmt = "UNLISTEN", PrepareStmt = "PREPARE",
  ExecuteStmt = "EXECUTE", DeallocateStmt = "DEALLOCATE", DeclareCursorStmt = "DECLARE", FetchStmt = "FETCH",
  ClosePortalStmt = "CLOSE", LockStmt = "LOCK", ConstraintsSetStmt = "SET CONSTRAINTS", DiscardStmt = "DISCARD" }

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function shard_ids(manager)
  local ids = {}
  for i, info in ipairs(manager.shards) do
    ids[i] = info.shard_id
  end
  return ids
end

-- The reply to a question, by whoever sits there; the default is no.
local function is_allowed(session, question, sql)
  if session.yes then
    return true
  elseif not session.ask then
    session.err(("refused: %s\n  %s\nThere is no terminal to ask on.\n"):format(question, sql))
    session.code = 2
    return false
  end
  local answer = session.ask(("%s\nRun it? [y/N] "):format(question))
  if answer and answer:match("^%s*[yY][eE]?[sS]?%s*$") then
    return true
  end
  session.err("(not run)\n")
  return false
end

-- A plan: where the statement runs and how.
local function plan_utility(session, parsed)
  local word = OF_SESSION[parsed.utility]
  if word then
    return invalid("%s belongs to a session on one server, and the next statement may run in another: "
      .. "BEGIN first, with \\use for the shard", word)
  elseif parsed.utility == "CopyStmt" then
    return invalid("COPY needs a program at its other end: use router:copy_in and router:copy_out")
  elseif parsed.utility == "ExplainStmt" or parsed.utility == "VariableShowStmt" then
    return nil
  end
  local shards = session.pin and { session.pin.shard_id } or shard_ids(session.manager)
  return { shards = shards, broadcast = true }
end

local function plan_statement(session, parsed, sql)
  if session.pin then
    return { shards = { session.pin.shard_id }, options = { shard_id = session.pin.shard_id } }
  end
  local explained, err = session.router:explain(sql)
  if explained then
    return { shards = explained.any and { explained.shards[1] } or explained.shards, options = {} }
  elseif errors.is(err, "NO_KEY") and (parsed.kind == "update" or parsed.kind == "delete") then
    return { shards = shard_ids(session.manager), options = { all_shards = true } }
  end
  return nil, err
end

-- For what concerns no table: `SELECT now()`, `SHOW work_mem`.
local function any_shard(manager)
  for _, member in ipairs(manager.members) do
    if member.primary.health.status ~= "unhealthy" then
      return member.shard_id
    end
  end
  return manager.members[1].shard_id
end

local function plan(session, parsed, sql)
  if parsed.utility or parsed.into then
    local made, err = plan_utility(session, parsed)
    if made or err then
      return made, err
    end
  end
  if not asking.writes(parsed) then -- a read: the router says what is wrong with it
    local shard_id = session.pin and session.pin.shard_id or #parsed.tables == 0 and any_shard(session.manager) or nil
    return { shards = {}, options = { shard_id = shard_id } }
  end
  return plan_statement(session, parsed, sql)
end

local function run_broadcast(session, sql, shards)
  local report, err = session.router:execute_on_all_shards(sql, { shard_ids = shards })
  if not report then
    return nil, err
  end
  local _, first = next(report.shard_results)
  return { rows = first.rows or {}, columns = #shards == 1 and first.columns or {}, command = first.command,
    column_types = first.column_types, row_count = #shards == 1 and first.row_count or nil,
    shard_results = report.shard_results }
end

local function run_in_transaction(session, parsed, sql)
  if not session.tx then
    local where = session.pin and session.pin.shard_id
    if not where then
      local explained, err = session.router:explain(sql)
      if not explained then
        return nil, err
      end
      where = explained.shard_id or explained.any and explained.shards[1]
      if not where then
        return invalid("a transaction lives on one shard, and this statement concerns %s: name a key in it, or \\use one",
          table.concat(explained.shards, ", "))
      end
    end
    local ok, err = transactions.enter(session, where)
    if not ok then
      return nil, err
    end
  end
  local question = asking.question(parsed, { session.tx.shard_id })
  if question and not is_allowed(session, question, sql) then
    return false
  end
  session:note("TX", { sql = sql })
  return session.tx:execute(sql)
end

local function execute(session, parsed, sql)
  if session.begin or session.tx then
    return run_in_transaction(session, parsed, sql)
  end
  if parsed.utility == "ExplainStmt" and not session.pin and not asking.writes(parsed) then
    local result, err = explaining.run(session.router, sql)
    if result or err then
      return result, err
    end
  end
  local planned, err = plan(session, parsed, sql)
  if not planned then
    return nil, err
  end
  local question = asking.question(parsed, planned.shards)
  if question and not is_allowed(session, question, sql) then
    return false
  elseif planned.broadcast then
    session:note("BROADCAST", { sql = sql, shard_ids = planned.shards })
    return run_broadcast(session, sql, planned.shards)
  end
  session:note("EXECUTE", { sql = sql, options = planned.options })
  return session.router:execute(sql, nil, planned.options)
end

-- Too long to be looked at: only a shard can be named for it, and what it does is told by its words alone.
local function execute_unread(session, sql)
  if session.begin and session.pin then
    local ok, err = transactions.enter(session, session.pin.shard_id)
    if not ok then
      return nil, err
    end
  end
  local where = session.tx and session.tx.shard_id or session.pin and session.pin.shard_id
  if not where then
    return nil, errors.new("NO_KEY", { message = "a text of more than 32 KiB is not parsed, so that its shard is not known" })
  elseif classify(sql) ~= "read" and not is_allowed(session, "the text is too long to be looked at, and it may write on "
    .. where, sql:sub(1, 200) .. " ...") then
    return false
  elseif session.tx then
    session:note("TX", { sql = sql })
    return session.tx:execute(sql)
  end
  session:note("EXECUTE", { sql = sql, options = { shard_id = where } })
  return session.router:execute(sql, nil, { shard_id = where })
end

-- Was something else sent than was typed? Then a server's position says nothing about it.
local function is_rewritten(session, sql)
  local explained = session.router:explain(sql)
  for _, sent in pairs(explained and explained.statements or {}) do
    if sent.sql ~= sql then
      return true
    end
  end
  return false
end

--- Run one statement. Yields.
-- @tparam Session session
-- @string sql
-- @treturn boolean false when it failed, which was said
function statements.run(session, sql)
  if not session.router then
    session:fail(errors.new("INVALID", { message = "there is no cluster: start with -c FILE, or try the sandbox" }), sql)
    return false
  end
  sql = without_semicolon(sql)
  local started = task.now()
  local parsed, err = parse(sql)
  local result
  if parsed and parsed.utility == "TransactionStmt" then
    result, err = transactions.control(session, parsed.ast[1].stmt.TransactionStmt, sql)
    if result then
      return true
    end
  elseif parsed then
    result, err = execute(session, parsed, sql)
  elseif not errors.is(err, "SQL") then
    result, err = execute_unread(session, sql)
  end
  if result == false then
    return false
  elseif not result then
    session:fail(err, sql, session.tx == nil and parsed and not session.pin and is_rewritten(session, sql))
    return false
  end
  session.last_sql = sql
  session.env._, session.env._1 = result, result
  show.result(session, result, task.now() - started)
  return true
end

return statements
