--- Files that an argument names, `-` for stdin.
-- @module lunashard.cli.input
-- @local

local input = {}

--- Read one whole.
-- @string path
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] string why not; it names the file
function input.read(path)
  local name, file, text, reason = path, io.stdin, nil, nil
  if path == "-" then
    name = "stdin"
  else
    file, reason = io.open(path, "rb")
  end
  if file then
    text, reason = file:read("*a") -- a directory opens, and fails here
  end
  if file and file ~= io.stdin then
    file:close()
  end
  if not text then
    reason = tostring(reason or "closed")
    return nil, reason:find(name, 1, true) and reason or name .. ": " .. reason
  end
  return text
end

return input
