--- Lines that are run again, from elsewhere, or kept: \watch \i \e \save \q.
-- @module lunashard.repl.commands.lines

local errors = require("lunashard.errors")
local process = require("lunashard.process")
local save = require("lunashard.repl.save")
local statements = require("lunashard.repl.statements")
local task = require("lunashard.task")

local lines = {}

local INTERVAL = 2
local MAX_DEPTH = 20 -- of files that run files

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

--- \watch. Returns when it is stopped, or when the statement fails.
-- @tparam Session session
-- @string text
-- @treturn boolean
function lines.watch(session, text)
  local seconds, sql = text:match("^([%d.]+)%s*(.*)$")
  seconds, sql = tonumber(seconds or INTERVAL), sql or text
  if not seconds or seconds <= 0 then
    return invalid("\\watch: expected a number of seconds above 0, got %q", text)
  end
  sql = sql ~= "" and sql or session.last_sql
  if not sql then
    return invalid("\\watch: there is no statement yet: \\watch %g SELECT ...", seconds)
  end
  while true do
    session.err(("-- %s, every %g s; Ctrl-C ends it\n"):format(os.date("%H:%M:%S"), seconds))
    if not statements.run(session, sql) then
      return false
    end
    task.sleep(seconds)
  end
end

-- Give each complete piece of a text to a function, with the number of its first line, until that says false.
local function each_piece(session, next_line, fn)
  local pending, first, number = nil, 1, 0
  for line in next_line do
    number = number + 1
    first = pending and first or number
    pending = pending and pending .. "\n" .. line or line
    if session:feed(pending) == "done" then
      if not fn(pending, first) then
        return false
      end
      pending = nil
    end
  end
  return not pending or not pending:find("%S") or fn(pending, first)
end

--- \i
-- @tparam Session session
-- @string path
-- @treturn boolean
function lines.i(session, path)
  if path == "" then
    return invalid("\\i: give a file")
  elseif (session.depth or 0) >= MAX_DEPTH then
    return invalid("\\i: %s: files that run files more than %d deep; does one run itself?", path, MAX_DEPTH)
  end
  local file, why = io.open(path, "r")
  if not file then
    return invalid("\\i: %s", why)
  end
  why = select(2, file:read(0))
  if why then
    file:close()
    return invalid("\\i: %s: %s", path, why)
  end
  session.depth = (session.depth or 0) + 1
  local ok, outcome = pcall(each_piece, session, file:lines(), function(text, number)
    local done = session:perform(text)
    if not done then
      session.err(("%s:%d: stopped here\n"):format(path, number))
    end
    return done
  end)
  session.depth = session.depth - 1
  file:close()
  if not ok then
    error(outcome, 0)
  end
  return outcome
end

local function read_file(path)
  local file, why = io.open(path, "r")
  if not file then
    return nil, why
  end
  local text = file:read("*a")
  file:close()
  return text
end

--- \e
-- @tparam Session session
-- @treturn boolean
function lines.e(session)
  if not session.ask then
    session.code = 2
    return invalid("\\e: there is no terminal to edit on")
  end
  local before
  for i = #session.lines, 1, -1 do
    if session.lines[i].kind ~= "command" then
      before = session.lines[i].text
      break
    end
  end
  local path = os.tmpname()
  local file = assert(io.open(path, "w"))
  file:write(before or "", "\n")
  file:close()
  local editor = os.getenv("VISUAL") or os.getenv("EDITOR") or "vi"
  local result = process.run({ argv = { "sh", "-c", editor .. ' "$1"', "sh", path }, inherit_stdin = true, stdout = "inherit",
    stderr = "inherit", foreground = true })
  local text = read_file(path)
  os.remove(path)
  if not result or result.code ~= 0 then
    return invalid("\\e: %s failed; nothing was run", editor)
  elseif not text or not text:find("%S") then
    session.err("(nothing to run)\n")
    return true
  end
  text = text:match("^.*%S")
  session.err(text .. "\n")
  if session:feed(text) == "more" then
    return invalid("\\e: the text is not complete; nothing was run")
  end
  return session:perform(text)
end

--- \save
-- @tparam Session session
-- @string text
-- @treturn boolean
function lines.save(session, text)
  local name, count = text:match("^(%S+)%s*(%d*)$")
  if not name then
    return invalid("\\save: give the script's name, and how many lines when not all: \\save NAME [LINES]")
  end
  local path, err = save.write(session, name, tonumber(count))
  if not path then
    return nil, err
  end
  session.err(("%s: run it with lunashard run -c FILE %s\n"):format(path, path))
  return true
end

--- \q
-- @tparam Session session
-- @treturn boolean
function lines.q(session)
  session.is_done = true
  return true
end

return lines
