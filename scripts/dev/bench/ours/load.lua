--- Bulk load by copy_in: of `file`, in COPY's text format, or of rows that are made meanwhile.
local harness = require("ours.harness")
local lunashard = require("lunashard")
local rusage = require("rusage")

local COLUMNS = { "user_id", "name", "email", "is_active" }

local function rows_up_to(last)
  local key = 0
  return function()
    if key < last then
      key = key + 1
      return { key, "user " .. key, "user" .. key .. "@example.com", key % 3 ~= 0 }
    end
  end
end

return function(options)
  local router, manager = harness.open(options)
  local rows, how = rows_up_to(options.rows), nil
  if options.file then
    rows, how = assert(io.open(options.file, "rb")), { format = "text" }
  end
  local started, cpu = lunashard.now(), rusage.own_cpu()
  local answer = assert(router:copy_in("loads", COLUMNS, rows, how))
  local seconds = lunashard.now() - started
  cpu = rusage.own_cpu() - cpu
  assert(answer.row_count == options.rows)
  manager:shutdown()
  return { rate = options.rows / seconds, seconds = seconds, cpu = cpu / options.rows }
end
