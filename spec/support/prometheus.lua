--- What Prometheus says of what we say.
-- Its programs come with `make deps-dev`. Where they are missing specs are pending, but not in CI.
local process = require("lunashard.process")

local prometheus = {}

local function is_there(program)
  local result = process.run({ argv = { program, "--version" }, timeout = 20 })
  return result ~= nil and result.code == 0
end

--- Are the programs there? Raises in CI when they are not.
-- @treturn boolean
function prometheus.is_there()
  local there = is_there("promtool") and is_there("prometheus")
  if not there and os.getenv("LUNASHARD_CI") then
    error("prometheus and promtool are missing: make deps-dev")
  end
  return there
end

--- Run promtool.
-- @tparam {string,...} arguments
-- @string[opt] stdin
-- @treturn int exit code
-- @treturn string what it said
function prometheus.promtool(arguments, stdin)
  local result = assert(process.run({ argv = { "promtool", unpack(arguments) }, stdin = stdin, timeout = 30 }))
  return result.code, result.stdout .. result.stderr
end

--- The samples of a text, for the looks of specs.
-- @string text
-- @treturn table "name" or "name{labels}" -> number
function prometheus.samples(text)
  local samples = {}
  for line in text:gmatch("[^\n]+") do
    local name, value = line:match("^([^#].*) (%S+)$")
    if name then
      assert(samples[name] == nil, "twice: " .. name)
      samples[name] = assert(tonumber(value), line)
    end
  end
  return samples
end

return prometheus
