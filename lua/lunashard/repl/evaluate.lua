--- Runs a line of Lua.
-- @module lunashard.repl.evaluate

local classify = require("lunashard.repl.classify")
local errors = require("lunashard.errors")
local failure = require("lunashard.repl.failure")
local show = require("lunashard.repl.show")

local evaluate = {}

local function pack(...)
  return { n = select("#", ...), ... }
end

-- Compiled code cannot be stopped: see src/lua/interrupt.h.
local function stoppable(chunk)
  jit.off(chunk, true)
  return chunk
end

local function text_of(...)
  local parts = pack(...)
  for i = 1, parts.n do
    parts[i] = type(parts[i]) == "cdata" and show.value(parts[i]) or tostring(parts[i])
  end
  return table.concat(parts, "\t")
end

local function loads_stoppable(load_chunk)
  return function(...)
    local chunk, problem = load_chunk(...)
    if chunk then
      return stoppable(chunk)
    end
    return nil, problem
  end
end

--- The variables of a session: those of Lua, with output that goes to the session.
-- @tparam Session session
-- @treturn table
function evaluate.environment(session)
  local env = setmetatable({}, { __index = _G })
  env._G = env
  env.lunashard = require("lunashard")
  function env.print(...)
    session.out(text_of(...) .. "\n")
  end
  env.io = setmetatable({
    write = function(...)
      for i = 1, select("#", ...) do
        session.out((select(i, ...)))
      end
      return io.stdout
    end,
  }, { __index = io })
  env.load, env.loadstring, env.loadfile = loads_stoppable(load), loads_stoppable(loadstring), loads_stoppable(loadfile)
  function env.dofile(path)
    local chunk, problem = loadfile(path)
    if not chunk then
      error(problem, 2)
    end
    return setfenv(stoppable(chunk), env)()
  end
  function env.help(what)
    session:show(require("lunashard.repl.help").text(what) .. "\n")
  end
  return env
end

local function keep(session, results)
  local env = session.env
  for i = 1, math.max(session.n_results or 0, results.n) do
    env["_" .. i] = results[i]
  end
  env._, session.n_results = results[1], results.n
end

--- Remember a failure as `_err`, and how it came about for `\tb`.
-- @tparam Session session
-- @param err
-- @tparam ?string traceback
function evaluate.failed(session, err, traceback)
  session.env._err, session.traceback = err, traceback
end

local function print_results(session, results)
  if results.n == 0 then
    return true
  elseif results[1] == nil and results.n == 2 and errors.is(results[2]) then -- as our methods fail
    evaluate.failed(session, results[2], results[2].traceback)
    session.err(failure.text(results[2]) .. "\n")
    return false
  end
  for i = 1, results.n do
    show.print(session, results[i])
  end
  return true
end

--- Run a chunk. Yields.
-- @tparam Session session
-- @tparam table read from `classify.read`
-- @string text what it was made of
-- @treturn boolean false when it failed, which was said
function evaluate.run(session, read, text)
  if not read.chunk then
    evaluate.failed(session, read.problem or "the line is not complete")
    session.err("ERROR: " .. session.env._err .. "\n")
    local word = text:match("^%s*(%a+)%s")
    local near = word and not session.env[word] and errors.nearest(word, classify.words)
    if near then
      session.err(("HINT: did you mean %s?\n"):format(near))
    end
    return false
  end
  local traceback
  local results = pack(xpcall(stoppable(read.chunk), function(err)
    traceback = debug.traceback("", 2)
    return err
  end))
  if not results[1] then
    if errors.is(results[2], "CANCELED") then
      error(results[2], 0)
    end
    local raised = results[2]
    evaluate.failed(session, raised, traceback)
    local is_plain = type(raised) == "table" and not errors.is(raised) and debug.getmetatable(raised) == nil
    session.err(failure.raised(is_plain and show.value(raised) or raised, traceback) .. "\n")
    return false
  end
  for i = 1, results.n do -- holes are values here
    results[i] = results[i + 1]
  end
  results.n = results.n - 1
  if read.is_expression or results.n > 0 then
    keep(session, results)
    return print_results(session, results)
  end
  return true
end

return evaluate
