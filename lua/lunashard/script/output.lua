--- What a script has to say on stdout: tables for people, one object of JSON for programs, and never a lost byte
-- that nobody hears of.
-- @module lunashard.script.output

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local table_text = require("lunashard.table_text")

local output = {}

local EPIPE = 32

--- Hand bytes over to stdout, all of which is written with the last ones.
-- @string text
-- @tparam[opt] boolean is_last
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`: the disk is full, nobody reads the pipe, ...; with the `exit_code` for that
function output.put(text, is_last)
  local ok, reason, number = io.stdout:write(text)
  if ok and is_last then
    ok, reason, number = io.stdout:flush()
  end
  if not ok and number == EPIPE then
    return nil, errors.new("INVALID", { message = "stdout was closed by its reader", exit_code = cli.exit.pipe })
  elseif not ok then
    return nil, errors.new("INVALID", { message = "cannot write to stdout: " .. tostring(reason), exit_code = cli.exit.failed })
  end
  return true
end

--- Write to stdout.
-- @string text
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function output.write(text)
  return output.put(text, true)
end

--- Write a table of rows for people.
-- @tparam {string,...} columns
-- @tparam {table,...} rows by column name
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function output.table(columns, rows)
  return output.write((table_text.render(columns, rows)))
end

--- A list that is a list in JSON also when it is empty.
-- @tparam table list
-- @treturn table the same
function output.list(list)
  return json_text.list(list)
end

--- Write one object of JSON, and a line's end.
-- @tparam table value
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function output.json(value)
  return output.write(json_text.encode(value) .. "\n")
end

return output
