--- A check-up of a cluster: what is wrong with its file, servers, rights, schema, shard keys and plug-ins, and what to do.
-- It only reads.
-- @module lunashard.checkup

local bit = require("bit")

local diff = require("lunashard.schema.diff")
local findings = require("lunashard.checkup.findings")
local keys = require("lunashard.checkup.keys")
local servers = require("lunashard.checkup.servers")
local system = require("lunashard.core.system")

local checkup = {}

local READABLE_BY_OTHERS = 36 -- 0044
local SHOWN = 3

--- Look at a cluster file. Connects nowhere.
-- @string path
-- @tparam table given its options, as read
-- @tparam Findings found
function checkup.file(path, given, found)
  local info = system.stat(path)
  local has_password = false
  for _, shard in ipairs(type(given.shards) == "table" and given.shards or {}) do
    has_password = has_password or type(shard) == "table" and shard.password ~= nil
  end
  if has_password and info and bit.band(info.mode, READABLE_BY_OTHERS) ~= 0 then
    found:add("warning", "file", nil, ("%s gives passwords, and others may read it"):format(path),
      ("chmod 600 %s; or put them into a passfile"):format(path))
  end
  if type(given.tables) ~= "table" or next(given.tables) == nil then
    found:add("warning", "file", nil, "no tables are declared: keys that statements name are not compared with anything",
      "tables = { users = { shard_key = \"user_id\", type = \"int8\" } } in the cluster file")
  end
end

local function check_schema(router, shard_ids, found)
  if #shard_ids < 2 then
    return
  end
  local report = diff.run(router, { shard_ids = shard_ids, against = shard_ids[1] })
  for _, shard in ipairs(report and report.shards or {}) do
    local differences, names = shard.differences or {}, {}
    for i = 1, math.min(#differences, SHOWN) do
      names[i] = ("%s %s %s"):format(differences[i].what, differences[i].kind, differences[i].name)
    end
    if #differences > 0 then
      found:add("warning", "schema", shard.shard_id, ("its schema differs from %s's in %d place%s: %s%s"):format(report.against,
        #differences, #differences == 1 and "" or "s", table.concat(names, ", "), #differences > SHOWN and ", ..." or ""),
        "lunashard schema diff --sql shows what would mend it")
    end
  end
end

local function check_plugins(manager, found)
  for _, plugin in ipairs(manager:get_cluster_status().plugins) do
    if plugin.problem then
      found:add("error", "plugins", nil, plugin.problem, "lunashard check " .. tostring(plugin.path))
    end
  end
end

--- Look at a cluster that is connected. Yields.
-- @tparam Router router
-- @tparam[opt] Findings found to be added to
-- @treturn Findings
function checkup.run(router, found)
  found = found or findings.new()
  local answered = servers.check(router, found)
  keys.check(router, answered, found)
  check_schema(router, answered, found)
  check_plugins(router.manager, found)
  return found
end

checkup.findings = findings

return checkup
