-- Our side of one measurement, in a process of its own as the peers are: prints its figures as JSON.
--   lunashard run scripts/dev/bench/ours.lua NAME OPTIONS-AS-JSON
local cjson = require("cjson")

local name, options = ...
print(cjson.encode(require("ours." .. name)(cjson.decode(options))))
