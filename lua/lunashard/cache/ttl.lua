--- A bounded cache whose entries expire; the one used longest ago makes room.
-- @classmod lunashard.cache.ttl

local ttl_cache = {}
local Cache = {}
Cache.__index = Cache

local function unlink(entry)
  entry.before.after, entry.after.before = entry.after, entry.before
end

-- The ring's head stands before the most recent entry and after the oldest.
local function link(head, entry)
  entry.before, entry.after = head, head.after
  head.after.before, head.after = entry, entry
end

--- Make a cache.
-- @number max_entries 1 or more
-- @tparam function now the clock, in seconds
-- @tparam[opt] function on_remove called with the value of every entry that goes, except by `clear`
-- @treturn lunashard.cache.ttl
function ttl_cache.new(max_entries, now, on_remove)
  local self = setmetatable({ max_entries = max_entries, now = now, on_remove = on_remove }, Cache)
  self:clear()
  return self
end

--- Look a key up.
-- @param key
-- @treturn bool whether it is there and has not expired
-- @return its value, which may be nil
function Cache:get(key)
  local entry = self.entries[key]
  if not entry then
    return false
  elseif entry.expires <= self.now() then
    self:remove(key)
    return false
  end
  unlink(entry)
  link(self.head, entry)
  return true, entry.value
end

--- Store a value.
-- @param key
-- @param value may be nil
-- @number ttl seconds
function Cache:set(key, value, ttl)
  self:remove(key)
  if self.size >= self.max_entries then
    self:evict()
  end
  local entry = { key = key, value = value, expires = self.now() + ttl }
  self.entries[key], self.size = entry, self.size + 1
  link(self.head, entry)
end

--- Forget a key.
-- @param key
function Cache:remove(key)
  local entry = self.entries[key]
  if entry then
    unlink(entry)
    self.entries[key], self.size = nil, self.size - 1
    if self.on_remove then
      self.on_remove(entry.value)
    end
  end
end

--- Forget the entry used longest ago.
function Cache:evict()
  if self.size > 0 then
    self:remove(self.head.before.key)
  end
end

--- Forget everything.
function Cache:clear()
  self.entries, self.size, self.head = {}, 0, {}
  self.head.before, self.head.after = self.head, self.head
end

return ttl_cache
