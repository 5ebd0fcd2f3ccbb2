--- What commands write: data on stdout, which may be closed or full, and failures.
-- @module lunashard.cli.output

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local system = require("lunashard.core.system")

local output = {}

local STDOUT = 1

-- A statement longer than this is not shown again with its error.
local SHOWN_LINE = 200

--- Write data on stdout. Ends the command when nobody can take it.
-- @string ...
function output.write(...)
  local ok, reason, number = io.stdout:write(...)
  if not ok then
    cli.stop_output(reason, number)
  end
end

--- Hand over what was written, for a reader who waits for it.
function output.flush()
  local ok, reason, number = io.stdout:flush()
  if not ok then
    cli.stop_output(reason, number)
  end
end

--- Write a value as one line of JSON.
-- @param value in which lists that may be empty are marked, see `lunashard.json_text`
function output.json(value)
  output.write(json_text.encode(value), "\n")
end

--- Does a person read stdout?
-- @treturn boolean
function output.is_terminal()
  return system.isatty(STDOUT)
end

--- How wide the terminal is that stdout is.
-- @treturn ?number columns; nil when it is none, or does not know
function output.width()
  return output.is_terminal() and (require("lunashard.core.terminal").size(STDOUT)) or nil
end

-- The line of a statement where the server's error is, and a caret under the place.
local function pointed(sql, position)
  local characters, at = 1, #sql + 1
  for start in sql:gmatch("()[%z\1-\127\194-\244]") do
    if characters == position then
      at = start
      break
    end
    characters = characters + 1
  end
  local first = #sql:sub(1, at - 1):match("^(.-)[^\n]*$") + 1
  local line = sql:sub(first):match("^[^\n]*")
  if #line > SHOWN_LINE then
    return nil
  end
  local text = require("lunashard.core.text")
  return ("  %s\n  %s^"):format(text.safe(line), (" "):rep(text.width(text.safe(sql:sub(first, at - 1)))))
end

--- Say on stderr what each shard failed with.
-- @string name of the command
-- @tparam lunashard.error err with `failed`, or any other, of which nothing is said
function output.failed_shards(name, err)
  for _, failure in ipairs(type(err.failed) == "table" and err.failed or {}) do
    local one = failure.error
    cli.say("%s: %s: %s", name, failure.shard_id, errors.is(one) and one.code .. ": " .. one.message or tostring(one))
  end
end

--- Say why a command failed: on stderr, and with `--json` on stdout too.
-- @string name of the command
-- @tparam lunashard.error err
-- @tparam table args `json`
-- @tparam[opt] string sql the statement, for its place of error
-- @treturn number exit code
function output.failure(name, err, args, sql)
  local plain = errors.to_table(err)
  if err.code == "SHARDS_FAILED" then
    cli.say("%s: %s: %s", name, err.code, plain.message)
    output.failed_shards(name, err)
  else
    cli.say("%s: %s", name, tostring(err))
  end
  local shown = sql and err.position and err.code == "SQL" and pointed(sql, err.position)
  if shown then
    io.stderr:write(shown, "\n")
  end
  if plain.hint then
    io.stderr:write("  ", plain.hint, "\n")
  end
  if args.json then
    output.json({ error = plain })
  end
  return errors.exit_code(err)
end

return output
