--- Runs the examples, or the files that are named, and checks what they print:
-- `lunashard run -c <cluster.lua> scripts/dev/check_examples.lua [FILE...]`. The cluster must have three shards.
-- What an example must do stands in comments at its end:
--
--     -- expect: <Lua pattern>      found in stdout, after what the previous line found; \n is a line's end
--     -- run: <arguments>           begins another run, for the lines that follow
--     -- exit: <code>               the run's exit code, if not 0
--     -- runs without a cluster
--
-- Every run is made twice, since examples must not depend on a fresh sandbox, and may not write to stderr.

local process = require("lunashard.process")
local system = require("lunashard.core.system")
local task = require("lunashard.task")

local TIMEOUT = 120 -- seconds for one run
local BINARY = assert(system.realpath("/proc/self/exe"))

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function words(text)
  local list = {}
  for word in text:gmatch("%S+") do
    list[#list + 1] = word
  end
  return list
end

-- What an example says of itself, or nil and what is missing.
local function parse(text)
  local spec = { with_cluster = true, runs = {} }
  local run
  local function begin(arguments)
    run = { arguments = words(arguments), patterns = {}, code = 0 }
    table.insert(spec.runs, run)
  end
  local expectations = 0
  for line in text:gmatch("[^\n]+") do
    local name, value = line:match("^%-%- (%l+): ?(.*)$")
    if line == "-- runs without a cluster" then
      spec.with_cluster = false
    elseif name == "run" then
      begin(value)
    elseif name == "expect" or name == "exit" then
      if not run then
        begin("")
      end
      expectations = expectations + 1
      if name == "exit" then
        run.code = assert(tonumber(value), line)
      else
        table.insert(run.patterns, (value:gsub("\\n", "\n")))
      end
    end
  end
  if not text:find("^%-%- %S") then
    return nil, "its first line must be a comment that says what it shows"
  elseif expectations == 0 then
    return nil, "it has no line `-- expect: <pattern>`"
  end
  return spec
end

local function execute(path, spec, run)
  local argv = { BINARY, "run", path }
  for _, argument in ipairs(run.arguments) do
    argv[#argv + 1] = argument
  end
  return process.run({
    argv = argv,
    env = { LUNASHARD_CLUSTER = spec.with_cluster and cluster.path },
    timeout = TIMEOUT,
  })
end

-- Everything on stderr but which cluster it acts on, and that the machine was busy with something else.
local function complaints(stderr)
  local list = {}
  for line in stderr:gmatch("[^\n]+") do
    if not line:find("^lunashard: cluster ") and not line:find("^lunashard: everything stood still for ") then
      list[#list + 1] = "stderr: " .. line
    end
  end
  return #list > 0 and table.concat(list, "\n") or nil
end

local function check(run, result)
  local complaint = complaints(result.stderr)
  if result.code ~= run.code then
    return nil, ("%s instead of exit code %d\n%s"):format(
      result.signal and "killed by signal " .. result.signal or "exit code " .. result.code, run.code,
      complaint or result.stdout)
  elseif complaint and run.code == 0 then
    return nil, "it wrote to stderr\n" .. complaint
  end
  local at = 1
  for _, pattern in ipairs(run.patterns) do
    local _, last = result.stdout:find(pattern, at)
    if not last then
      return nil, ("expected %q in\n%s"):format(pattern, result.stdout:sub(at))
    end
    at = last + 1
  end
  return true
end

local function check_example(path)
  local spec, problem = parse(read(path))
  if not spec then
    return nil, problem
  elseif spec.with_cluster and not cluster then
    return nil, "it needs a cluster: give a cluster file with -c"
  end
  for round = 1, 2 do
    for _, run in ipairs(spec.runs) do
      local result, err = execute(path, spec, run)
      local ok = false
      if result then
        ok, err = check(run, result)
      end
      if not ok then
        local what = #run.arguments > 0 and "with " .. table.concat(run.arguments, " ") .. ": " or ""
        return nil, (round == 2 and "the second time: " or "") .. what .. tostring(err)
      end
    end
  end
  return true
end

-- The files that were named, or all examples.
local function chosen()
  if #arg > 0 then
    return arg
  end
  local paths = {}
  for _, file in ipairs(assert(system.listdir("examples"))) do
    paths[#paths + 1] = file:find("%.lua$") and "examples/" .. file or nil
  end
  table.sort(paths)
  return paths
end

io.stdout:setvbuf("line")
local passed, failed = 0, 0
for _, path in ipairs(chosen()) do
  local started = task.now()
  local ok, problem = check_example(path)
  passed, failed = passed + (ok and 1 or 0), failed + (ok and 0 or 1)
  print(("%-4s %-42s %5.1f s"):format(ok and "ok" or "FAIL", path, task.now() - started))
  if not ok then
    print("     " .. problem:gsub("%s+$", ""):gsub("\n", "\n     "))
  end
end
print(("%d passed, %d failed"):format(passed, failed))
os.exit(failed == 0 and 0 or 1)
