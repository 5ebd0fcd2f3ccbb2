--- Sum of a column over all shards: `sum "count"`, `sum { "a", "b" }`, `sum { total = "count" }`.
-- Exact for int and numeric whatever the size; NULL (an absent field) over no values.
-- @module lunashard.aggregates.sum

local columns = require("lunashard.aggregate.columns")
local fold = require("lunashard.aggregate.fold")

return columns.simple_plugin("sum", fold.sum)
