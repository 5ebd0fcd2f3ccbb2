--- A session without anybody at the terminal: runs what comes from a pipe or a file, statement by statement.
-- @module lunashard.repl.batch

local descriptor = require("lunashard.core.descriptor")
local task = require("lunashard.task")

local batch = {}

local wait_input = task.waits(function(input)
  return input:wait()
end)

-- Gives line after line, without the newline. Yields.
local function lines(input)
  local rest, at, is_over = "", 1, false
  return function()
    while true do
      local stop = rest:find("\n", at, true)
      if stop then
        local text = rest:sub(at, stop - 1)
        at = stop + 1
        return text
      elseif is_over then
        local text = rest:sub(at)
        rest, at = "", 1
        return text ~= "" and text or nil
      end
      wait_input(input)
      local bytes, reason = input:read()
      if not bytes and reason then
        return nil, reason
      end
      is_over = not bytes
      rest, at = rest:sub(at) .. (bytes or ""), 1
    end
  end
end

local function say(format, ...)
  io.stderr:write("lunashard: repl: ", format:format(...), "\n")
end

-- Run one; the exit code when it is the last.
local function run(session, text, number)
  local ok, code = session:run(text)
  local written, reason, number_of_error = io.stdout:flush()
  if not written then
    return require("lunashard.cli").output_failed("repl", reason, number_of_error)
  elseif not ok then
    say("stopped at line %d of the input", number)
    return type(code) == "number" and code or 1
  end
end

--- Run all that stdin has, up to the first that fails. Yields.
-- @tparam table session see `lunashard.repl.session`
-- @treturn number exit code
function batch.run(session)
  local input = descriptor.stdin()
  local text, first, number
  number = 0
  local next_line = lines(input)
  while not session.is_done do
    local line, reason = next_line()
    if not line then
      if reason then
        say("cannot read: %s", reason)
        return 1
      end
      break
    end
    number = number + 1
    first = text and first or number
    text = text and text .. "\n" .. line or line
    if not text:find("%S") then
      text = nil
    elseif session:feed(text) == "done" then
      local code = run(session, text, first)
      if code then
        return code
      end
      text = nil
    end
  end
  return text and run(session, text, first) or 0
end

return batch
