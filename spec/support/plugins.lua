--- Plug-in folders for specs: made of texts, thrown away after each.
local system = require("lunashard.core.system")

local plugins = {}

local Folder = {}
Folder.__index = Folder

local made = {}

local function parent(path)
  return path:match("^(.*)/[^/]*$")
end

local function make_dirs(path)
  if not system.stat(path) then
    make_dirs(parent(path))
    assert(system.mkdir(path, 493))
  end
end

local function remove(path)
  local info = system.stat(path)
  if info and info.type == "directory" then
    for _, name in ipairs(system.listdir(path)) do
      remove(path .. "/" .. name)
    end
    system.rmdir(path)
  elseif info then
    system.unlink(path)
  end
end

--- A folder with these files.
-- @tparam[opt] table files relative path -> text
function plugins.folder(files)
  local dir = os.tmpname()
  os.remove(dir)
  local self = setmetatable({ dir = dir, path = dir .. "/plugins" }, Folder)
  make_dirs(self.path)
  made[#made + 1] = self
  for name, text in pairs(files or {}) do
    make_dirs(parent(self.path .. "/" .. name))
    local file = assert(io.open(self.path .. "/" .. name, "wb"))
    file:write(text)
    file:close()
  end
  return self
end

--- Write a file, at once as editors do that rename over the old one.
function Folder:write(name, text, mode)
  local path = self.path .. "/" .. name
  make_dirs(parent(path))
  assert(system.write_file(path, text, mode or 420))
  return path
end

--- Remove a file or directory.
function Folder:remove(name)
  remove(self.path .. "/" .. name)
end

--- Remove all folders that were made; for `after_each`.
function plugins.clean()
  for _, folder in ipairs(made) do
    remove(folder.dir)
  end
  made = {}
end

--- The text of a strategy.
-- @tparam[opt] table parts `name`, `bucket` and `place` (bodies), `head` (before the table), `more` (fields)
function plugins.strategy(parts)
  parts = parts or {}
  return ([[
%s
return {
  api = 1, kind = "strategy", name = "%s",
  new = function(options, shards) %s end,
  bucket = function(state, key) %s end,
  place = function(state, bucket, shards) %s end,
  %s
}
]]):format(parts.head or "", parts.name or "tier", parts.new or "return { n = #shards }",
    parts.bucket or "return lunashard.hash(key, 64)", parts.place or "return shards[bucket % #shards + 1].shard_id",
    parts.more or "")
end

return plugins
