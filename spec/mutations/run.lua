-- One run, by the program that runs it: lunashard run spec/mutations/run.lua NAME CLUSTER FOLDER
-- The verdict goes to stdout as JSON. Histories are kept in the folder.
package.path = "./?.lua;" .. package.path -- from the root of the project
local json = require("cjson")
local lunashard = require("lunashard")
local runs = require("spec.mutations.runs")
local sandbox = require("spec.support.sandbox")
local stages = require("spec.mutations.stage")

local name, cluster_file, folder = ...
local servers = runs.SERVERS[name] and sandbox.start(runs.SERVERS[name])
local ok, err = xpcall(function()
  local stage = stages.open(servers and servers.cluster_file or cluster_file, folder)
  stage.servers = servers
  local began = lunashard.now()
  local moved, why = assert(runs[name], "no such run")(stage)
  local found = stage:judge()
  print(json.encode({ counts = found.counts, told = found.told, acknowledged = found.acknowledged, reads = found.reads,
    moved = moved and true or false, why = why and tostring(why), seconds = lunashard.now() - began }))
end, debug.traceback)
if servers then
  servers:destroy()
end
assert(ok, err)
