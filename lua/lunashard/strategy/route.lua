--- Routing a key over a bucket map without leaving compiled code.
-- A call through Lua's C API ends a LuaJIT trace; these functions of `src/base/route.h` are pure, and called by FFI
-- they cost a tenth of it. They answer for plain keys alone; for any other the map itself is asked, which has the
-- reasons of refusals. The map is passed as the userdata it is, so it cannot be collected under a call, and nothing
-- here remembers where its buckets are.
-- @module lunashard.strategy.route

local ffi = require("ffi")

-- No struct is defined: a second definition of one, by loading this anew, would be an error.
ffi.cdef([[
int32_t luna_route_number(const void *route, double key);
int32_t luna_route_int64(const void *route, int64_t key);
int32_t luna_route_text(const void *route, const char *key, size_t len);
]])

-- Functions as locals are constants to the compiler, which tables are not.
local route_number, route_int64, route_text = ffi.C.luna_route_number, ffi.C.luna_route_int64, ffi.C.luna_route_text
local band, rshift = bit.band, bit.rshift
local istype, type = ffi.istype, type
local int64 = ffi.typeof("int64_t")

local route = {}

--- Where a key lives.
-- @tparam bucket_map map
-- @tparam {string,...} ids of the map's shards, in their order
-- @param key
-- @treturn[1] string shard_id
-- @treturn[1] number bucket
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY` or `INVALID`
function route.find(map, ids, key)
  local kind, found = type(key), -1
  if kind == "number" then
    found = route_number(map, key)
  elseif kind == "string" then
    found = route_text(map, key, #key)
  elseif kind == "cdata" and istype(int64, key) then
    found = route_int64(map, key)
  end
  if found < 0 then
    return map:route(key)
  end
  return ids[rshift(found, 16) + 1], band(found, 0xffff)
end

return route
