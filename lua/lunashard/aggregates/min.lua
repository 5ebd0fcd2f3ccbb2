--- Smallest value of a column: `min "price"`, `min({ first = "created_at" })`.
-- Text needs `min("name", { collate = "C" })`, for only the server knows its other collations.
-- @module lunashard.aggregates.min

local columns = require("lunashard.aggregate.columns")
local fold = require("lunashard.aggregate.fold")

return columns.simple_plugin("min", fold.min, { collate = "string", type = "string" })
