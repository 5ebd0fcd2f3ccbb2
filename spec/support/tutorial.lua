--- Tutorials that are run as they are written: files, commands with what comes of them, and sessions at the prompt.
-- @module spec.support.tutorial

local cli = require("spec.support.cli")
local process = require("lunashard.process")
local pty = require("spec.support.pty")

local tutorial = {}

local TIMEOUT = 120

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

--- The fenced blocks of a text.
-- @string text
-- @treturn {table,...} `language`, `text`, and of a file its `path`, which the first line says
function tutorial.blocks(text)
  local list = {}
  for language, content in text:gmatch("\n```(%l+)\n(.-)\n```") do
    list[#list + 1] = { language = language, text = content, path = content:match("^%-%- ([%w_/]+%.%l+)\n") }
  end
  return list
end

-- Commands, each with the lines that are shown after it.
local function commands_of(text)
  local list = {}
  for line in text:gmatch("[^\n]+") do
    local command = line:match("^%$ (.*)$")
    if command then
      list[#list + 1] = { command = command, lines = {} }
    else
      table.insert(list[#list].lines, line)
    end
  end
  return list
end

-- The lines must come in this order, without others in between but where a line is `...`; that within a line is anything too.
local function check_lines(expected, output, what)
  local pattern = ("\n" .. table.concat(expected, "\n") .. "\n"):gsub("[%^%$%(%)%%%[%]%*%+%-%?]", "%%%0")
  pattern = pattern:gsub("\n%.%.%.\n", "\n\1"):gsub("\n%.%.%.\n", "\n\1"):gsub("%.%.%.", "[^\n]*"):gsub("\1", ".-")
  local shown = ("\n" .. output .. "\n"):gsub("\nlunashard: everything stood still[^\n]*", "")
  if not shown:find(pattern) then
    error(("%s: expected\n%s\n-- and got\n%s"):format(what, table.concat(expected, "\n"), output), 0)
  end
end

-- A replica that has just begun to replay may be behind for a moment.
local ONCE = "(exit $code)\n{ %s\n} >out.%d 2>&1\ncode=$?\necho $code >code.%d"
local UNTIL_LEVEL = "for try in 1 2 3 4 5 6 7 8 9 10; do { %s\n} >out.%d 2>&1; code=$?; echo $code >code.%d\n"
  .. "grep -q '^alert: .* is behind by' out.%d || break; sleep 0.5; done"

-- One shell for the commands of a block; what it exports is there for the next.
local function run_commands(dir, commands, env)
  local lines = { "[ -f exports ] && . ./exports", "code=0" }
  for i, one in ipairs(commands) do
    local is_status = one.command:find("^lunashard status")
    lines[#lines + 1] = (is_status and UNTIL_LEVEL or ONCE):format(one.command, i, i, i)
  end
  lines[#lines + 1] = "export -p >exports"
  local script = cli.write(dir, "script.sh", table.concat(lines, "\n") .. "\n")
  assert(process.run({ argv = { "bash", script }, cwd = dir, timeout = TIMEOUT, env = env }))
  for i, one in ipairs(commands) do
    local output = read(("%s/out.%d"):format(dir, i)):gsub("\n$", "")
    local code = tonumber(read(("%s/code.%d"):format(dir, i)))
    local following = commands[i + 1]
    local may_fail = following and following.command == "echo $?" or table.concat(one.lines):find("lunashard: %l+: %u+")
      or table.concat(one.lines):find("SHARD_DOWN", 1, true)
    assert(code == 0 or may_fail, ("$ %s ended with %d:\n%s"):format(one.command, code, output))
    if #one.lines > 0 then
      check_lines(one.lines, output, "$ " .. one.command)
    end
  end
end

local function exported(dir)
  local result = assert(process.run({ argv = { "bash", "-c", ". ./exports; env -0" }, cwd = dir, timeout = TIMEOUT }))
  local env = {}
  for name, value in result.stdout:gmatch("([%w_]+)=(%Z*)%z") do
    env[name] = value
  end
  return env
end

-- What is typed after a prompt such as `shop 3/3> `; everything else is to be read.
local function run_session(dir, text)
  local env = exported(dir)
  env.HOME, env.LUNASHARD_HISTORY, env.TERM = dir, "", "xterm-256color"
  local terminal, mark
  for line in text:gmatch("[^\n]+") do
    local command = line:match("^%$ (.*)$")
    local prompt, typed = line:match("^(%S+ %d/%d.-> )(.*)$")
    local function await(part)
      local stop = terminal:wait_until(("%q was written"):format(part), function()
        return select(2, terminal:text():find(part, mark, true))
      end)
      mark = stop + 1
    end
    if command then
      terminal, mark = pty.spawn({ "bash", "-c", "exec " .. command }, { env = env, cwd = dir, columns = 120 }), 1
    elseif prompt then
      await(prompt)
      terminal:type(typed .. "\r")
      await(typed)
    else
      for part in (line .. "..."):gmatch("(.-)%.%.%.") do
        if part ~= "" then
          await(part)
        end
      end
    end
  end
  terminal:type("\4")
  assert(terminal:wait() == 0, "the prompt was left with an error")
  terminal:close()
end

--- Run a tutorial. Yields. Raises with the first command that does not do what it says.
-- @string text
-- @string dir an empty directory
-- @tparam table env of the commands; the program is put on the PATH
function tutorial.run(text, dir, env)
  env.PATH = cli.binary:match("^(.*)/") .. ":" .. os.getenv("PATH")
  for _, block in ipairs(tutorial.blocks(text)) do
    if block.language == "console" then
      run_commands(dir, commands_of(block.text), env)
    elseif block.language == "repl" then
      run_session(dir, block.text)
    elseif block.path then
      cli.write(dir, block.path, block.text .. "\n")
    end
  end
end

tutorial.read = read

return tutorial
