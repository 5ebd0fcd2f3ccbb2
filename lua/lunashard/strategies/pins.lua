--- Pins: single keys with a shard of their own, for use in `first_of`.
-- `pins { [42] = "shard2", acme = "shard3" }`; keys that read like an option (`shards`, `entries`, ...) go into
-- `pins { entries = { ... } }`. Keys without a pin are `NO_SHARD`, which passes them on.
-- @module lunashard.strategies.pins

local directory = require("lunashard.strategies.directory")

local RESERVED = { shard_key = true, key_type = true, shards = true, entries = true }

local pins = { api = 1, kind = "strategy", name = "pins" }

--- Collect the pins.
-- @tparam table options
-- @tparam {table,...} shards
-- @treturn table state of a directory without lookups
function pins.new(options, shards)
  local entries = {}
  for key, shard_id in pairs(options) do
    if not RESERVED[key] then
      entries[key] = shard_id
    end
  end
  for key, shard_id in pairs(options.entries or {}) do
    entries[key] = shard_id
  end
  return directory.new({ entries = entries, key_type = options.key_type }, shards)
end

pins.bucket = directory.bucket
pins.place = directory.place
pins.route = directory.route

return pins
