--- What is shown, and how: \help \timing \x \rows \o \tb.
-- @module lunashard.repl.commands.display

local errors = require("lunashard.errors")

local display = {}

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

--- \help
-- @tparam Session session
-- @treturn boolean
function display.help(session)
  local lines = { "SQL goes to the servers when its first word is one of SQL; it ends with a semicolon. All else is Lua." }
  for _, entry in ipairs(require("lunashard.repl.commands").list()) do
    lines[#lines + 1] = ("  %-24s %s"):format(("\\%s %s"):format(entry[1], entry[2]), entry[3])
  end
  lines[#lines + 1] = "help(f) shows what a function does. _ is the last result, _1, _2, ... its values, _err the last error."
  session.out(table.concat(lines, "\n") .. "\n")
  return true
end

-- `on`, `off` or the other of the two.
local function switch(name, text, now)
  if text == "" then
    return not now
  elseif text == "on" or text == "off" then
    return text == "on"
  end
  return invalid("\\%s: expected on or off, got %q", name, text)
end

--- \timing
-- @tparam Session session
-- @string text
-- @treturn boolean
function display.timing(session, text)
  local wanted, err = switch("timing", text, session.settings.timing)
  if wanted == nil then
    return nil, err
  end
  session.settings.timing = wanted
  session.err(("timing is %s\n"):format(wanted and "on" or "off"))
  return true
end

local EXPANDED = { on = true, off = false, auto = "auto" }

--- \x
-- @tparam Session session
-- @string text
-- @treturn boolean
function display.x(session, text)
  local wanted = EXPANDED[text]
  if text == "" then
    wanted = session.settings.expanded ~= true
  elseif wanted == nil then
    return invalid("\\x: expected on, off or auto, got %q", text)
  end
  session.settings.expanded = wanted
  session.err(("one line for each field: %s\n"):format(wanted == "auto" and "when a row is too wide" or wanted and "always"
    or "never"))
  return true
end

--- \rows
-- @tparam Session session
-- @string text
-- @treturn boolean
function display.rows(session, text)
  local n = text:find("^%d+$") and tonumber(text)
  if not n then
    return invalid("\\rows: expected a whole number, 0 or more, got %q", text)
  end
  session.settings.max_rows = n
  session.err(n == 0 and "all rows are shown\n" or ("%d rows are shown\n"):format(n))
  return true
end

local function close_output(session)
  local output = session.output
  session.output, session.out = nil, output and output.before or session.out
  if output then
    local ok, why = output.file:close()
    if not ok or output.problem then
      return invalid("\\o: %s was not written whole: %s", output.path, output.problem or why)
    end
  end
  return true
end

--- \o
-- @tparam Session session
-- @string path
-- @treturn boolean
function display.o(session, path)
  local ok, err = close_output(session)
  if not ok or path == "" then
    return ok, err
  end
  local file, why = io.open(path, "w")
  if not file then
    return invalid("\\o: %s", why)
  end
  local output = { path = path, file = file, before = session.out }
  session.output = output
  function session.out(text)
    local written, problem = file:write(text)
    if written then
      written, problem = file:flush()
    end
    if not written and not output.problem then
      output.problem = problem
      session.err(("\\o: %s: %s\n"):format(path, output.problem))
    end
  end
  return true
end

--- \tb
-- @tparam Session session
-- @treturn boolean
function display.tb(session)
  session.out((session.traceback and session.traceback:gsub("^\n", "") or "the last error has no traceback") .. "\n")
  return true
end

return display
