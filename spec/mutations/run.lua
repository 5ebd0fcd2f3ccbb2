-- One run, by the program that runs it: lunashard run spec/mutations/run.lua NAME CLUSTER FOLDER
-- The verdict goes to stdout as JSON. Histories are kept in the folder.
package.path = "./?.lua;" .. package.path -- from the root of the project
local json = require("cjson")
local lunashard = require("lunashard")
local runs = require("spec.mutations.runs")
local stages = require("spec.mutations.stage")

local name, cluster_file, folder = ...
local stage = stages.open(cluster_file, folder)
local began = lunashard.now()
local moved, err = assert(runs[name], "no such run")(stage)
local found = stage:judge()
print(json.encode({ counts = found.counts, told = found.told, acknowledged = found.acknowledged, reads = found.reads,
  moved = moved and true or false, why = err and tostring(err), seconds = lunashard.now() - began }))
