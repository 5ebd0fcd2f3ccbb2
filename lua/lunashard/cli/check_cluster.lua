--- `lunashard check` without a file: a check-up of the cluster, each finding with what to do.
-- @module lunashard.cli.check_cluster

local checkup = require("lunashard.checkup")
local cli = require("lunashard.cli")
local cluster_file = require("lunashard.cluster")
local json_text = require("lunashard.json_text")
local opening = require("lunashard.cli.opening")
local output = require("lunashard.cli.output")

local check_cluster = {}

local function print_findings(list)
  for _, one in ipairs(list) do
    local where = #one.shards > 0 and table.concat(one.shards, ", ") .. ": " or ""
    output.write(("%-8s %-8s %s%s\n%s -> %s\n"):format(one.level, one.area, where, one.what, (" "):rep(17), one.remedy))
  end
end

local function report(found, args)
  local list = found:sorted()
  local n_errors, n_warnings = found:count("error"), found:count("warning")
  if args.json then
    for _, one in ipairs(list) do
      json_text.lists(one, "shards")
    end
    output.json({ ok = n_errors == 0, errors = n_errors, warnings = n_warnings, findings = json_text.list(list) })
  else
    print_findings(list)
  end
  output.flush()
  cli.say("check: %d error%s, %d warning%s", n_errors, n_errors == 1 and "" or "s", n_warnings, n_warnings == 1 and "" or "s")
  if n_errors > 0 then
    return cli.exit.failed
  end
  return args.exit_code and n_warnings > 0 and cli.exit.differences or cli.exit.ok
end

--- Check a cluster. Yields.
-- @tparam table args `cluster`, `json`, `exit_code`
-- @treturn number exit code: 1 when there are errors, 3 with `--exit-code` when there are warnings
function check_cluster.run(args)
  local found = checkup.findings.new()
  local path = cli.cluster_path(args)
  local given, err = cluster_file.load(path)
  if not given then
    return output.failure("check", err, args)
  end
  checkup.file(path, given, found)
  local router, manager = opening.router(args)
  if not router then
    return output.failure("check", manager, args)
  end
  local ok, problem = pcall(checkup.run, router, found)
  manager:shutdown()
  if not ok then
    error(problem, 0)
  end
  return report(found, args)
end

return check_cluster
