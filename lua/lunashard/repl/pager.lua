--- Text that is longer than the terminal, through the user's pager.
-- @module lunashard.repl.pager

local cells = require("lunashard.core.text")
local process = require("lunashard.process")
local system = require("lunashard.core.system")
local terminal = require("lunashard.core.terminal")

local pager = {}

-- What nobody has chosen may be missing, without a word.
local DEFAULT = "command -v less >/dev/null || exit 127; exec less"

local function command()
  local given = os.getenv("LUNASHARD_PAGER") or os.getenv("PAGER") or DEFAULT
  return given:find("%S") and given ~= "cat" and given or nil
end

-- More rows than the terminal has, or longer ones?
local function is_long(text, columns, rows)
  if #text > columns * rows * 8 then -- however wide its characters are
    return true
  end
  local count = 0
  for row in text:gmatch("([^\n]*)\n?") do
    count = count + math.max(1, math.ceil(cells.width(row) / columns))
    if count > rows then
      return true
    end
  end
  return false
end

--- Show a text through the pager when it does not fit on the terminal. Yields until the pager is left.
-- @number fd the terminal
-- @string text
-- @treturn boolean false when it fits, or there is no pager: nothing was shown
function pager.show(fd, text)
  local argv = command()
  local columns, rows = terminal.size(fd)
  if not argv or not columns or not system.isatty(1) or not is_long(text, columns, rows - 1) then
    return false
  end
  io.stdout:flush()
  local result = process.run({
    argv = { "sh", "-c", argv },
    env = { LESS = os.getenv("LESS") or "-FRSX", LESSCHARSET = "utf-8" },
    stdin = text,
    stdout = "inherit",
    stderr = "inherit",
    foreground = true,
  })
  return result ~= nil and result.code ~= 127 and result.code ~= 126
end

return pager
