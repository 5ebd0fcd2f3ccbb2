--- The benchmarks: each figure beside its peer's, in the same run and in turn. `make bench` runs them by
-- scripts/dev/bench.sh, which cleans up when they are interrupted.
--   lunashard run scripts/dev/bench/main.lua [--help]
local argparse = require("argparse")
local cjson = require("cjson.safe")
local catalog = require("catalog")
local errors = require("lunashard.errors")
local machine = require("machine")
local peers = require("peers")
local report = require("report")
local rounds = require("rounds")
local server = require("lunashard.sandbox.server")
local servers = require("servers")
local system = require("lunashard.core.system")

local WARM_UP = 1.5 -- seconds: to connect costs each side 30 ms of computing a password proof

local function say(text)
  io.stderr:write("bench: ", text, "\n")
end

local function whole_number(least)
  return function(text)
    local number = tonumber(text)
    if not number or number % 1 ~= 0 or number < least then
      return nil, ("expected a whole number, %d or more, got %q"):format(least, text)
    end
    return number
  end
end

-- "reads32,count" -> { reads32 = true, count = true }
local function names(text)
  local known, asked = {}, {}
  for _, group in ipairs(catalog.groups) do
    known[group.name] = true
  end
  for _, name in ipairs(catalog.names()) do
    known[name] = true
  end
  for name in text:gmatch("[^,%s]+") do
    if not known[name] then
      local near = errors.nearest(name, known)
      return nil, ("there is no benchmark %q%s"):format(name, near and ("; did you mean %s?"):format(near) or "; see --list")
    end
    asked[name] = true
  end
  return asked
end

local parser = argparse("bench", "Each figure beside its peer's, in the same run.",
  "Rows: " .. table.concat(catalog.names(), " "))
parser:option("--only", "rows or groups, separated by commas"):convert(names)
parser:option("--rounds", "how often each is measured", "5"):convert(whole_number(1))
parser:option("--seconds", "length of a measurement where that is a matter of choice", "2"):convert(whole_number(1))
parser:option("--json", "where the figures go", "build/bench.json")
parser:option("--sandbox", "name of the sandbox that is made, and removed in the end", "bench")
parser:flag("--list", "only name the rows")
parser:flag("--show", "only print the table of the last run")
parser:flag("--markdown", "print the table in Markdown")

local function list()
  for _, group in ipairs(catalog.groups) do
    for _, row in ipairs(group.rows) do
      print(("%-16s %-10s %s%s"):format(row.name, group.name, row.work, row.against and "; against " .. row.against or ""))
    end
  end
end

local function show(args)
  local file, reason = io.open(args.json)
  if not file then
    return nil, reason
  end
  local run = cjson.decode(file:read("*a"))
  file:close()
  if not run then
    return nil, args.json .. ": not the figures of a run"
  end
  io.write(report.text(run, args.markdown))
  return true
end

local function save(path, run)
  local dir = path:match("^(.*)/")
  if dir and not system.stat(dir) then
    assert(system.mkdir(dir, 493))
  end
  local ok, reason = system.write_file(path, cjson.encode(run) .. "\n", 420)
  return ok, reason
end

local function start(args, groups)
  local bindir = assert(server.find_bindir())
  local ctx = {
    dir = arg[0]:match("^(.*)/[^/]*$") or ".",
    rounds = args.rounds,
    seconds = args.seconds,
    warm_up = WARM_UP,
    sandbox = args.sandbox,
    peers = peers.find(bindir),
  }
  for _, group in ipairs(groups) do
    if group.needs and not ctx.servers then
      say("starting servers")
      servers.start(ctx)
    end
  end
  return ctx
end

local function measure(args)
  local groups = catalog.select(args.only)
  local ctx = start(args, groups)
  local run = {
    date = os.date("!%Y-%m-%d"),
    machine = machine.describe(),
    versions = ctx.peers.versions,
    settings = servers.SETTINGS,
    rounds = args.rounds,
    seconds = args.seconds,
    rows = {},
    figures = {},
  }
  for _, group in ipairs(groups) do
    if group.prepare then
      group.prepare(ctx)
    end
    if group.needs and group.needs[1] then
      say("preparing " .. group.name)
      servers.provide(ctx, group.needs)
    end
    local rows, figures = rounds.run(ctx, group, say)
    for _, row in ipairs(rows) do
      table.insert(run.rows, row)
    end
    run.figures[group.name] = figures
  end
  if ctx.servers then
    servers.destroy(ctx)
  end
  return run
end

local ok, args = parser:pparse({ ... })
if not ok then
  say(args)
  os.exit(2)
elseif args.list then
  return list()
elseif args.show then
  return show(args)
end

local run = measure(args)
io.write(report.text(run, args.markdown))
local saved, reason = save(args.json, run)
if not saved then
  return nil, reason
end
say("the figures of all rounds are in " .. args.json)
for _, row in ipairs(run.rows) do
  if row.failed then
    return nil, row.name .. ": " .. row.failed
  end
end
return true
