-- luacheck: read_globals manager
-- A mover as a program of its own, that ends itself with SIGKILL at a point:
--     lunashard run -c CLUSTER spec/support/mover.lua JOB SEQ POINT
local ffi = require("ffi")
local lock = require("lunashard.rebalancer.lock")
local move = require("lunashard.rebalancer.move")
local task = require("lunashard.task")

ffi.cdef("int kill(int pid, int sig); int getpid(void);")

local job, seq, point = tonumber(arg[1]), tonumber(arg[2]), arg[3]

local held = assert(lock.acquire(manager.catalog, job, task.now() + 10))
local done, err = move.run({
  manager = manager, catalog = manager.catalog, token = held.token, options = { batch_size = 50, max_cutover = 60 },
  at = function(at)
    if at == point then
      ffi.C.kill(ffi.C.getpid(), 9)
    elseif point == "STOP " .. at then
      ffi.C.kill(ffi.C.getpid(), 19)
    end
  end,
}, { job = job, seq = seq })
held:release()
assert(done, tostring(err))
