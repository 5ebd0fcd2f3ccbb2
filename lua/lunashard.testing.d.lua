---@meta lunashard.testing
-- For editors: the API as the Lua language server reads it. Made by `make annotations`; do not edit it.

---@class lunashard.testing
local testing = {}

--- Load a plug-in's file as a cluster would: in an environment of its own, by its contract. Raises when it is refused, and
--- says why. Scripts then know it by its name, such as `lunashard.strategy.tenant_tier`.
---@param path string
---@return table # the contract, whose functions may be called
function testing.load(path) end

--- Try a strategy as a cluster does before it uses it: on hundreds of keys, on the edges of their type, in all spellings,
--- twice, and made anew. Yields.
---@param bound lunashard.Strategy # such as `lunashard.strategy.tenant_tier { shards = ..., key_type = "int8" }`
---@return boolean|nil # true
---@return string|nil # what is wrong
function testing.try(bound) end

--- A cluster of throw-away PostgreSQL servers. Yields.
--- They are started when a run first asks for them, shared by its specs and removed at its end; what a spec makes in
--- them it should remove. One that was opened in a test is closed after it, another one with its file.
---@param options? table # those of a cluster file, beside what the sandbox gives (`strategy`, `tables`, `plugins`, ...), and `shards`: how many [3]
---@return table # `manager`, `router`, `shards` and `close()`
function testing.cluster(options) end

return testing
