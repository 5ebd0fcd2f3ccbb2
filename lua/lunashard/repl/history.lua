--- What was entered before, kept in a file that all sessions of a user add to.
-- One line of the file is one entry, with `\n` for its newlines. Whatever looks like a secret is kept nowhere.
-- @module lunashard.repl.history

local core = require("lunashard.core.history")

local history = {}

local KEPT = 2 ^ 20 -- bytes of the file that are read
local MAX_ENTRY = 2 ^ 16

-- In small letters. Better one line too few than one too many.
local SECRETS = { "passw", "pwd%s*=", "secret", "credential", "api_?key", "private key", "%l+://[^/%s:@]*:[^@%s]+@",
  "md5%x%x%x%x%x%x%x%x", "scram%-sha%-256%$" }

local History = {}
History.__index = History

--- Does a text look as if it held a password or the like?
-- @string text
-- @treturn boolean
function history.is_secret(text)
  local lower = text:lower()
  for _, pattern in ipairs(SECRETS) do
    if lower:find(pattern) then
      return true
    end
  end
  return false
end

local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n" }
local PLAIN = { ["\\\\"] = "\\", ["\\n"] = "\n" }

local function decode(text)
  local entries = {}
  for stored in text:gmatch("([^\n]+)\n") do
    local entry = stored:gsub("\\[\\n]", PLAIN)
    if entry ~= entries[#entries] then
      entries[#entries + 1] = entry
    end
  end
  return entries
end

--- Where the history is: LUNASHARD_HISTORY, or `.lunashard_history` in the home directory.
-- @treturn ?string nil for none, as when LUNASHARD_HISTORY is empty
function history.path()
  local given = os.getenv("LUNASHARD_HISTORY")
  if given then
    return given ~= "" and given or nil
  end
  local home = os.getenv("HOME")
  return home and home ~= "" and home .. "/.lunashard_history" or nil
end

--- Read the history. A file that cannot be used is no reason not to begin: it is then kept for this session alone.
-- @tparam ?string path nil for none
-- @treturn History with `entries`, a list, the latest last
-- @treturn ?string what is wrong with the file
function history.open(path)
  local self = setmetatable({ entries = {} }, History)
  if not path then
    return self
  end
  local text, reason = core.read(path, KEPT)
  if not text then
    return self, reason
  end
  self.path, self.entries = path, decode(text)
  return self
end

--- Add an entry, here and in the file. Secrets, blanks and what was entered just before are left out.
-- @string text
-- @treturn ?string what is wrong with the file, once
function History:add(text)
  if not text:find("%S") or #text > MAX_ENTRY or text == self.entries[#self.entries] or history.is_secret(text) then
    return nil
  end
  self.entries[#self.entries + 1] = text
  if not self.path then
    return nil
  end
  local ok, reason = core.append(self.path, (text:gsub("[\\\n]", ESCAPES)))
  if not ok then
    self.path = nil
    return reason
  end
end

return history
