-- Does the checker of moves tell of errors? Each one of `spec.mutations.list` is built into a program of its own, which must
-- turn its run red in the columns named there; the run of the program as it is must be green.
--   lunashard run spec/mutations/main.lua [all | N | NAME...]
-- N: that many by turns, by the hour. Ends with 1 when a mutation survives, a run is red by itself, or something breaks.
package.path = "./?.lua;" .. package.path -- from the root of the project
local json = require("cjson.safe")
local lunashard = require("lunashard")
local mutations = require("spec.mutations.list")
local mutants = require("spec.mutations.mutant")
local process = require("lunashard.process")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")

local PROGRAM = system.realpath("/proc/self/exe")
local FOLDER = "build/mutants"

-- Some of them, others each hour.
local function by_turns(n)
  local first, short, chosen = math.floor(os.time() / 3600) * n, {}, {}
  for _, mutation in ipairs(mutations) do
    short[#short + 1] = not mutation.long and mutation or nil
  end
  for i = 1, math.min(n, #short) do
    chosen[i] = short[(first + i - 1) % #short + 1]
  end
  return chosen
end

local function choose(given)
  if not given[1] or given[1] == "all" then
    return mutations
  elseif tonumber(given[1]) then
    return by_turns(tonumber(given[1]))
  end
  local chosen = {}
  for i, name in ipairs(given) do
    for _, mutation in ipairs(mutations) do
      if mutation.name == name then
        chosen[i] = mutation
      end
    end
    assert(chosen[i], "no such mutation: " .. name)
  end
  return chosen
end

local function folder_of(name)
  local path = ("%s/%s"):format(FOLDER, (name:gsub("[^%w]+", "_")))
  assert(process.run({ argv = { "mkdir", "-p", path } }))
  return path
end

-- The verdict of a run by some program; or nil and what went wrong.
local function run(program, name, folder, cluster_file)
  local result, err = process.run({ argv = { program, "run", "spec/mutations/run.lua", name, cluster_file, folder },
    timeout = 120 })
  if not result then
    return nil, tostring(err)
  end
  local verdict = json.decode(result.stdout)
  if result.code ~= 0 or not verdict then
    return nil, ("exit code %s: %s%s"):format(tostring(result.code or result.signal), result.stdout, result.stderr)
  end
  return verdict
end

-- Columns that are not 0.
local function red_ones(verdict)
  local list = {}
  for column, n in pairs(verdict.counts) do
    list[#list + 1] = n > 0 and column or nil
  end
  table.sort(list)
  return list
end

local failed = 0

local function say(what, name, text, details)
  print(("%-7s %-55s %s"):format(what, name, text))
  for _, line in ipairs(details or {}) do
    print("        " .. line)
  end
end

local function fail(name, text, details)
  failed = failed + 1
  say("FAILED", name, text, details)
end

local green = {}

-- The program as it is, once for each run.
local function check_run(name, cluster_file)
  if green[name] == nil then
    local verdict, err = run(PROGRAM, name, folder_of(name), cluster_file)
    local red = verdict and red_ones(verdict)
    green[name] = verdict ~= nil and not red[1]
    if not verdict then
      fail(name, err)
    elseif red[1] then
      fail(name, "red without a mutation: " .. table.concat(red, ", "), verdict.told)
    else
      say("green", name, ("%d writes, %d reads, %.1f s"):format(verdict.acknowledged, verdict.reads, verdict.seconds))
    end
  end
end

local function check_mutation(mutation, cluster_file)
  local folder = folder_of(mutation.name)
  local ok, program = pcall(mutants.build, mutation, folder)
  if not ok then
    return fail(mutation.name, program)
  end
  local verdict, err = run(program, mutation.run, folder, cluster_file)
  if not verdict then
    return fail(mutation.name, "broke the run instead of turning it red: " .. err)
  end
  for _, column in ipairs(mutation.red) do
    if verdict.counts[column] == 0 then
      return fail(mutation.name, ("survives in %s; the move: %s"):format(column, verdict.why or "done"), verdict.told)
    end
  end
  local because
  for _, line in ipairs(verdict.told) do
    because = because or line:find(mutation.red[1], 1, true) == 1 and line or nil
  end
  say("red", mutation.name, table.concat(red_ones(verdict), ", "), { because })
end

local function work(given)
  io.stdout:setvbuf("line")
  local began, chosen, own = lunashard.now(), choose(given), nil
  local dir = os.getenv("LUNASHARD_TEST_SANDBOX")
  if not dir then
    own = sandbox.start({ shards = 3 })
    dir = own.dir
  end
  local cluster_file = dir .. "/cluster.lua"
  local ok, err = xpcall(function()
    for _, mutation in ipairs(chosen) do
      check_run(mutation.run, cluster_file)
      check_mutation(mutation, cluster_file)
    end
  end, debug.traceback)
  if own then
    own:destroy()
  end
  assert(ok, err)
  print(("%d of %d mutations turn the checker red, %d failures, %.0f s"):format(#chosen - failed, #chosen, failed,
    lunashard.now() - began))
  return failed == 0
end

return work({ ... })
