--- Being told when files change.
-- @module lunashard.watch

local core = require("lunashard.core.watch")
local errors = require("lunashard.errors")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local watch = {}

local Watch = { __name = "lunashard.watch" }
Watch.__index = Watch

local wait = task.waits(function(handle)
  return handle:wait()
end)

local function traceback(err)
  return errors.is(err) and err or debug.traceback(tostring(err), 2)
end

local function tell(self, paths)
  local ok, err = xpcall(self.fn, traceback, paths)
  if ok then
    return
  elseif errors.is(err, "CANCELED") then
    error(err, 0)
  end
  warn.emit(("after a change in %s: %s"):format(self.path, tostring(err)))
end

local function run(self)
  while not self.closed do
    wait(self.handle)
    local paths = self.handle:take()
    if paths[1] and not self.closed then
      table.sort(paths)
      tell(self, paths)
    end
  end
end

--- Call a function whenever files in a folder, or in folders below it, have changed, come or gone.
-- Changes within 50 ms of each other are one. The folder may be missing, come later, vanish or be replaced.
-- @string path of the folder
-- @tparam function fn `fn(paths)` with the list of the files' paths, which begin with `path`; may yield, and
--   is not called again before it returns. What it raises is warned of
-- @tparam[opt] table opts `suffix`: only files whose names end so, by default `.lua`
-- @treturn lunashard.watch with `close`
function watch.folder(path, fn, opts)
  if type(path) ~= "string" or path == "" then
    error("watch.folder: expected the path of a folder, got " .. tostring(path), 2)
  elseif type(fn) ~= "function" then
    error("watch.folder: expected a function, got a " .. type(fn), 2)
  end
  local self = setmetatable({
    path = path,
    fn = fn,
    closed = false,
    handle = core.open(path, opts and opts.suffix or ".lua"),
  }, Watch)
  task.daemon(run, self)
  return self
end

--- Watch no longer. May be called again.
function Watch:close()
  self.closed = true
  self.handle:close()
end

return watch
