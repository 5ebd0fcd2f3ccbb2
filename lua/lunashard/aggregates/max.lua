--- Largest value of a column: `max "price"`, `max({ last = "created_at" })`.
-- Text needs `max("name", { collate = "C" })`, for only the server knows its other collations.
-- @module lunashard.aggregates.max

local columns = require("lunashard.aggregate.columns")
local fold = require("lunashard.aggregate.fold")

return columns.simple_plugin("max", fold.max, { collate = "string", type = "string" })
