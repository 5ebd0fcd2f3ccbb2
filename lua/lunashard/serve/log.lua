--- The log of `lunashard serve`: one line on stderr for each event, as text or as JSON.
-- @module lunashard.serve.log

local cjson = require("cjson.safe")
local core = require("lunashard.core.task")
local warn = require("lunashard.warn")

local log = {}

local NAMES = { ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Names come from files and servers: none of them begins a line of its own.
local function one_line(text)
  return (text:gsub("%c", function(char)
    return NAMES[char] or ("\\x%02x"):format(char:byte())
  end))
end

-- Bytes of no UTF-8 would make a line that nothing can read.
local function utf8_only(text)
  local kept, at = {}, 1
  while at <= #text do
    local from, to = text:find("^[%z\1-\127]+", at)
    if not from then
      from, to = text:find("^[\194-\223][\128-\191]", at)
    end
    if not from then
      from, to = text:find("^[\224-\239][\128-\191][\128-\191]", at)
    end
    if not from then
      from, to = text:find("^[\240-\244][\128-\191][\128-\191][\128-\191]", at)
    end
    kept[#kept + 1] = from and text:sub(from, to) or "?"
    at = (to or at) + 1
  end
  return table.concat(kept)
end

local function now()
  return os.date("!%Y-%m-%dT%H:%M:%SZ")
end

--- A line of text; with the time, unless systemd's journal, which has it, takes the line.
-- @string message
-- @treturn string
function log.text(message)
  local time = os.getenv("JOURNAL_STREAM") and "" or now() .. " "
  return ("%slunashard: %s\n"):format(time, one_line(message))
end

--- A line of JSON: `time`, `message`, and of an event `kind`, `shard_id`, `endpoint`, `from`, `to`.
-- @string message
-- @tparam ?table event
-- @treturn string
function log.json(message, event)
  local line = { time = now(), message = utf8_only(message) }
  for _, name in ipairs({ "kind", "shard_id", "endpoint", "from", "to" }) do
    local value = event and event[name]
    line[name] = value ~= nil and utf8_only(tostring(value)) or nil
  end
  return assert(cjson.encode(line)) .. "\n"
end

--- Write all warnings and events so from now on.
-- @string format `text` or `json`
-- @treturn function to be called to end that
function log.open(format)
  local line = log[format]
  local function write(message, event)
    io.stderr:write(line(message, event))
  end
  local before = warn.set(write)
  core.set_say(write)
  return function()
    warn.set(before)
    core.set_say(nil)
  end
end

return log
