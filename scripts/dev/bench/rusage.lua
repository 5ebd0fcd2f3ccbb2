--- CPU time and memory of this process, and CPU time of the children it has waited for.
local ffi = require("ffi")

ffi.cdef([[
  struct bench_rusage { long utime_s, utime_us, stime_s, stime_us, others[14]; };
  int getrusage(int who, struct bench_rusage *usage);
]])

local rusage = {}

local usage = ffi.new("struct bench_rusage")

local function cpu(who)
  assert(ffi.C.getrusage(who, usage) == 0)
  return tonumber(usage.utime_s + usage.stime_s) + tonumber(usage.utime_us + usage.stime_us) * 1e-6
end

--- Seconds of CPU, user and system, of this process.
function rusage.own_cpu()
  return cpu(0)
end

--- Seconds of CPU of the children that have ended.
function rusage.children_cpu()
  return cpu(-1)
end

--- A figure of /proc/self/status in bytes, such as `VmRSS` or `VmHWM`.
-- @string name
function rusage.memory(name)
  for line in io.lines("/proc/self/status") do
    local kib = line:match("^" .. name .. ":%s+(%d+) kB")
    if kib then
      return tonumber(kib) * 1024
    end
  end
  error("no " .. name .. " in /proc/self/status")
end

return rusage
