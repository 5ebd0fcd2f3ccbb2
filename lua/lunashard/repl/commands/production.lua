--- A production cluster is opened read-only: \rw and \ro.
-- @module lunashard.repl.commands.production

local cluster = require("lunashard.cluster")
local errors = require("lunashard.errors")
local transactions = require("lunashard.repl.transactions")

local production = {}

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

-- The same cluster over other connections: what a server refuses is decided when one is made.
local function reopen(session, read_only)
  local opened, err = cluster.open(session.cluster.path, { read_only = read_only })
  if not opened then
    return nil, err
  elseif session.manager.plugins and opened.manager.plugins then
    opened.manager.plugins:watch()
  end
  session:replace(opened)
  return true
end

local function check(session)
  if not session.cluster then
    return invalid("there is no cluster")
  elseif transactions.state(session) then
    return invalid("a transaction is open: COMMIT or ROLLBACK first")
  end
  return true
end

--- \rw
-- @tparam Session session
-- @treturn boolean
function production.rw(session)
  local ok, err = check(session)
  if not ok then
    return nil, err
  elseif not session.read_only then
    session.err("the session is writable already\n")
    return true
  elseif not session.ask then
    session.code = 2
    return invalid("\\rw wants the cluster's name typed, and there is no terminal to type it on")
  end
  local name = session.manager.name or ""
  local typed = session.ask(("This makes the session on %s writable. Type the cluster's name: "):format(name))
  if name == "" or not typed or typed:match("^%s*(.-)%s*$") ~= name then
    return invalid("that is not the cluster's name; the session stays read-only")
  end
  ok, err = reopen(session, false)
  if ok then
    session.err("the session is writable; \\ro undoes that\n")
  end
  return ok, err
end

--- \ro
-- @tparam Session session
-- @treturn boolean
function production.ro(session)
  local ok, err = check(session)
  if ok and session.read_only then
    session.err("the session is read-only already\n")
    return true
  elseif ok then
    ok, err = reopen(session, true)
  end
  if ok then
    session.err("the session is read-only: the servers refuse to write\n")
  end
  return ok, err
end

return production
