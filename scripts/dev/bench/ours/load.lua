--- Bulk load by copy_in of rows that are made meanwhile.
local harness = require("ours.harness")
local lunashard = require("lunashard")

local COLUMNS = { "user_id", "name", "email", "is_active" }

return function(options)
  local router, manager = harness.open(options)
  local key = 0
  local function next_row()
    if key < options.rows then
      key = key + 1
      return { key, "user " .. key, "user" .. key .. "@example.com", key % 3 ~= 0 }
    end
  end
  local started = lunashard.now()
  local answer = assert(router:copy_in("loads", COLUMNS, next_row))
  local seconds = lunashard.now() - started
  assert(answer.row_count == options.rows)
  manager:shutdown()
  return { rate = options.rows / seconds, seconds = seconds }
end
