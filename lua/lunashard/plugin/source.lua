--- Reading the text of a plug-in's file.
-- A plug-in is code: one that others may write is refused, as is a cluster file. What is no text in UTF-8 is refused as
-- well, compiled code above all, which could do anything.
-- @module lunashard.plugin.source

local bit = require("bit")

local system = require("lunashard.core.system")

local source = {}

--- The largest file that is read, in bytes.
source.MAX_BYTES = 1024 * 1024

local GROUP_OR_WORLD_WRITABLE = 18 -- 0022
local SPECIAL = { directory = "a directory" }

-- What may follow a byte of this range at the start of a character.
local SEQUENCES = {
  "^[\194-\223][\128-\191]",
  "^\224[\160-\191][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]",
  "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]",
  "^\244[\128-\143][\128-\191][\128-\191]",
}

local function sequence_end(text, at)
  for _, pattern in ipairs(SEQUENCES) do
    local _, last = text:find(pattern, at)
    if last then
      return last
    end
  end
end

-- The position of the first byte that is not UTF-8.
local function utf8_fault(text)
  local at = text:find("[\128-\255]")
  while at do
    local last = sequence_end(text, at)
    if not last then
      return at
    end
    at = text:find("[\128-\255]", last + 1)
  end
end

local function line_at(text, position)
  local _, breaks = text:sub(1, position):gsub("\n", "")
  return breaks + 1
end

-- The system's reasons begin with the path.
local function reason_of(message)
  return (tostring(message):gsub("^.*: ", ""))
end

--- Read a file.
-- @string path
-- @treturn[1] string text
-- @treturn[1] string its true path, without symbolic links
-- @treturn[2] nil
-- @treturn[2] string what is wrong, without the path; with the line in front where there is one (`7: ...`)
-- @treturn[2] ?string the system's name for it, such as `ENOENT`; none where something is there
function source.read(path)
  local real, why, code = system.realpath(path)
  if not real then
    local link = system.stat(path)
    if link and link.type == "link" then
      return nil, "a symbolic link that leads nowhere"
    end
    return nil, reason_of(why), code
  end
  local info
  info, why, code = system.stat(real)
  if not info then
    return nil, reason_of(why), code
  elseif info.type ~= "file" then
    return nil, ("is %s, not a file"):format(SPECIAL[info.type] or "something special")
  elseif info.size > source.MAX_BYTES then
    return nil, ("has %d bytes; a plug-in has at most %d"):format(info.size, source.MAX_BYTES)
  elseif bit.band(info.mode, GROUP_OR_WORLD_WRITABLE) ~= 0 then
    return nil, ("others may write it (mode %03o) and it is code that runs as you; chmod go-w it"):format(info.mode)
  end
  local file, reason = io.open(real, "rb")
  local text = file and file:read(source.MAX_BYTES + 1)
  if file then
    file:close()
  end
  if not file then
    return nil, reason_of(reason)
  end
  return source.check(text or "", real)
end

--- Check that a text may be compiled.
-- @string text
-- @param more returned behind it
-- @treturn[1] string text
-- @return[1] more
-- @treturn[2] nil
-- @treturn[2] string what is wrong, as from @{read}
function source.check(text, more)
  if #text > source.MAX_BYTES then
    return nil, ("has more than %d bytes"):format(source.MAX_BYTES)
  elseif text:byte(1) == 27 then
    return nil, "is compiled code; a plug-in is given as text"
  end
  local fault = utf8_fault(text)
  if fault then
    return nil, ("%d: the byte 0x%02x is not UTF-8"):format(line_at(text, fault), text:byte(fault))
  end
  return text, more
end

return source
