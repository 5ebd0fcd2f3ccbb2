--- What the figures were measured on.
local machine = {}

local function find(path, pattern)
  local file = io.open(path)
  if not file then
    return nil
  end
  local text = file:read("*a")
  file:close()
  return text:match(pattern), text
end

--- Look at it.
-- @treturn table `cpu`, `cores`, `memory_mib`, `system`
function machine.describe()
  local cpu, all = find("/proc/cpuinfo", "model name%s*:%s*([^\n]+)")
  local _, cores = (all or ""):gsub("processor%s*:", "")
  local kib = find("/proc/meminfo", "MemTotal:%s*(%d+)")
  local name = find("/etc/os-release", 'PRETTY_NAME="([^"]+)"') or "Linux"
  return {
    cpu = cpu or "unknown processor",
    cores = cores,
    memory_mib = math.floor(tonumber(kib or 0) / 1024),
    system = name,
  }
end

return machine
