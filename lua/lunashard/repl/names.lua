--- The tables of a cluster and their columns, as far as they are known: for completion, which never waits.
-- @module lunashard.repl.names

local task = require("lunashard.task")

local names = {}

local OLD = 60 -- seconds after which a look that asks for names has them read anew, meanwhile
local TIMEOUT = 5

local COLUMNS = [[
SELECT c.relname AS name, a.attname AS attribute
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\_%' AND pg_catalog.pg_table_is_visible(c.oid)
ORDER BY c.relname, a.attnum
LIMIT 20000]]

local Names = {}
Names.__index = Names

--- Those that the cluster file declares; the rest is read in the background.
-- @tparam table cluster
-- @treturn Names
function names.new(cluster)
  local self = setmetatable({ cluster = cluster, declared = {}, read = {}, at = -math.huge }, Names)
  for name, options in pairs(cluster.manager.options.tables or {}) do
    self.declared[name] = type(options.shard_key) == "string" and { options.shard_key } or {}
  end
  return self
end

local function read(self)
  for _, shard in ipairs(self.cluster.manager.shards) do
    local result = self.cluster.router:execute(COLUMNS, nil,
      { shard_id = shard.shard_id, read_only = true, timeout = TIMEOUT })
    if result then
      local found = {}
      for _, row in ipairs(result.rows) do
        found[row.name] = found[row.name] or {}
        table.insert(found[row.name], row.attribute)
      end
      self.read = found
      return
    end
  end
end

--- Read them in the background, when they are old.
-- @tparam[opt] boolean is_changed they are old: a statement may have changed them
function Names:refresh(is_changed)
  local now = task.now()
  if self.reading or (not is_changed and now - self.at < OLD) then
    return
  end
  self.at = now
  self.reading = task.daemon(function()
    pcall(read, self)
    self.reading = nil
  end)
end

--- What is known now.
-- @treturn table table -> list of columns
function Names:tables()
  self:refresh()
  local all = {}
  for name, columns in pairs(self.declared) do
    all[name] = columns
  end
  for name, columns in pairs(self.read) do
    all[name] = columns
  end
  return all
end

--- Read no more.
function Names:close()
  if self.reading then
    self.reading:cancel()
  end
end

return names
