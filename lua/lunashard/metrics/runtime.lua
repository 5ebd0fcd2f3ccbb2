--- What is measured of the process and of the runtime.
-- @module lunashard.metrics.runtime

local core = require("lunashard.core.task")
local ffi = require("ffi")
local lunashard_version = require("lunashard").version
local stats = require("lunashard.stats")
local system = require("lunashard.core.system")
local text = require("lunashard.metrics.text")

ffi.cdef("long sysconf(int name);")

local runtime = {}

local TICKS, PAGE = tonumber(ffi.C.sysconf(2)), tonumber(ffi.C.sysconf(30)) -- _SC_CLK_TCK, _SC_PAGESIZE on Linux

local function read(path)
  local file = io.open(path, "rb")
  local content = file and file:read("*a")
  if file then
    file:close()
  end
  return content
end

-- The fields of /proc/self/stat that follow the name of the program, which may hold anything.
local function read_stat()
  local rest, fields = (read("/proc/self/stat") or ""):match(".*%)%s(.*)"), {}
  for field in (rest or ""):gmatch("%S+") do
    fields[#fields + 1] = field
  end
  return fields
end

local started_at -- seconds since 1970

local function start_time(fields)
  if not started_at then
    local boot = tonumber((read("/proc/stat") or ""):match("btime (%d+)"))
    started_at = boot and fields[20] and boot + tonumber(fields[20]) / TICKS
  end
  return started_at
end

local function write_process(out)
  local fields = read_stat()
  local limit = (read("/proc/self/limits") or ""):match("Max open files%s+(%d+)")
  local descriptors = system.listdir("/proc/self/fd")
  local function one(name, kind, help, value)
    if value then
      out:family("process_" .. name, kind, help)
      out:sample("", value)
    end
  end
  one("cpu_seconds_total", "counter", "User and system CPU time, in seconds.",
    fields[13] and (tonumber(fields[12]) + tonumber(fields[13])) / TICKS)
  one("start_time_seconds", "gauge", "When the process began, in seconds since 1970.", start_time(fields))
  one("virtual_memory_bytes", "gauge", "Address space in use.", tonumber(fields[21]))
  one("resident_memory_bytes", "gauge", "Memory in use.", fields[22] and tonumber(fields[22]) * PAGE)
  one("open_fds", "gauge", "Open file descriptors.", descriptors and #descriptors)
  one("max_fds", "gauge", "File descriptors that may be open.", tonumber(limit))
end

--- Write them.
-- @tparam Writer out
function runtime.write(out)
  local counted, loop = core.counts(), stats.read()
  out:family("lunashard_build_info", "gauge", "The release that runs; always 1.")
  out:sample(text.labels("version", lunashard_version), 1)
  for _, one in ipairs({
    { "lunashard_lua_memory_bytes", "gauge", "Memory of Lua's objects.", collectgarbage("count") * 1024 },
    { "lunashard_tasks", "gauge", "Tasks that run or wait.", counted.tasks },
    { "lunashard_operations", "gauge", "Operations that the loop waits for.", counted.ops },
    { "lunashard_failed_tasks_total", "counter", "Tasks that ended with an error nobody took.", counted.failed },
    { "lunashard_loop_stalls_total", "counter", "Turns of the loop that took more than 100 ms.", loop.stalls },
    { "lunashard_loop_stalled_seconds_total", "counter", "Time in such turns.", loop.stalled_seconds },
    { "lunashard_loop_longest_stall_seconds", "gauge", "The longest such turn so far.", loop.longest_stall },
  }) do
    out:family(one[1], one[2], one[3])
    out:sample("", one[4])
  end
  write_process(out)
end

return runtime
