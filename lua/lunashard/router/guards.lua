--- What goes before a statement while rows may move: calls of the shards' own functions.
-- A guard has `text` and `params`, the statement for `Pool:execute`, its `sql`, `replica`, the one for a standby, and that of a
-- bucket has `whole`, the guard for the whole shard that does as well. It holds for what the map said when it was made; the
-- server refuses it (`LS001`) when that is not so any more.
--
-- A bucket's guard is for statements that touch rows of that bucket alone. What may touch others is guarded for the
-- whole shard, and so are long lists: every bucket's guard is a lock in the server's table of locks.
-- @module lunashard.router.guards

local core = require("lunashard.core.pool")
local errors = require("lunashard.errors")
local extraction = require("lunashard.extraction")
local target = require("lunashard.router.target")

local guards = {}

--- So many buckets are guarded one by one, more of them as a whole shard.
guards.MAX_BUCKETS = 64

local BUCKET = "SELECT lunashard.guard($1::text, $2::text, $3::int8)"
local BUCKETS = "SELECT lunashard.guard($1::text, u.b, u.v) FROM unnest($2::text[], $3::int8[]) AS u(b, v)"
local SHARD = "SELECT lunashard.guard_shard($1::int8)"

-- What guards of a kind have in common, which need not be written into each: every statement has one.
local function kind(sql, replica)
  return { __index = { sql = sql, text = core.text(sql), replica = replica } }
end

local OF_BUCKET = kind(BUCKET, "SELECT lunashard.guard_replica($1::text, $2::text, $3::int8)")
local OF_BUCKETS = kind(BUCKETS,
  "SELECT lunashard.guard_replica($1::text, u.b, u.v) FROM unnest($2::text[], $3::int8[]) AS u(b, v)")
local OF_SHARD = kind(SHARD, "SELECT lunashard.guard_replica_shard($1::int8)")

local function new(of, params, whole)
  return setmetatable({ params = params, whole = whole }, of)
end

local function stale(format, ...)
  return nil, errors.new("STALE_MAP", { message = format:format(...) })
end

-- A bucket as SQL has it.
local function text_of(bucket)
  return type(bucket) == "number" and ("%.0f"):format(bucket) or bucket
end

local groups = setmetatable({}, { __mode = "k" }) -- strategy -> name

-- The name of the group whose strategy this is.
local function group_of(manager, strategy)
  local known = groups[strategy]
  if not known then
    for name, bound in pairs(manager.strategies.by_type) do
      groups[bound] = name
    end
    known = groups[strategy]
  end
  return known
end

local UNKNOWN = 0 -- no shard has this version: it refuses, and then the map is read with those of all shards

--- A guard for everything on a shard. Does not yield.
-- @tparam Manager manager
-- @tparam table member
-- @treturn table guard
function guards.shard(manager, member)
  local catalog = manager.catalog
  local version = catalog:shard_version(member.shard_id)
  catalog.wants_versions = catalog.wants_versions or not version
  return new(OF_SHARD, { version or UNKNOWN })
end

-- A shard that has removed rows has another version, though nothing else in the map has changed. (By itself: what makes a
-- function is not compiled.)
local function new_whole(catalog, version)
  local guard = new(OF_SHARD, { version })
  guard.refused = function()
    catalog:refresh_soon()
  end
  return guard
end

-- The same, where the map knows the shard's version.
local function whole_of(manager, member)
  local catalog, shard_id = manager.catalog, member.shard_id
  local version, known = catalog:shard_version(shard_id), catalog.shard_guards[shard_id]
  if not version then
    catalog.wants_versions = true
    return nil
  elseif not known or known.params[1] ~= version then
    known = new_whole(catalog, version)
    catalog.shard_guards[shard_id] = known
  end
  return known
end

-- The shard says what it owns is what the map says, and the map that all keys are there. Its version is taken first: those
-- who tell whose they are may have to be waited for.
local function many(manager, member, strategy, keys)
  local guard = guards.shard(manager, member)
  local shard_ids, err = strategy:route_many(keys)
  if not shard_ids then
    return nil, err
  end
  for _, shard_id in ipairs(shard_ids) do
    if shard_id ~= member.shard_id then
      return stale("a key that was on %s is on %s now", member.shard_id, shard_id)
    end
  end
  return guard
end

--- A guard for one bucket. Does not yield.
-- @tparam Manager manager
-- @tparam table member where it was found to be
-- @tparam table strategy of its group
-- @tparam number|string bucket
-- @tparam boolean is_present is the map still the one by which it was found?
-- @treturn table guard
function guards.bucket(manager, member, strategy, bucket, is_present)
  local group = group_of(manager, strategy)
  return new(OF_BUCKET, { group, bucket, manager.catalog:bucket_version(group, bucket) },
    is_present and whole_of(manager, member) or nil)
end

--- A guard for keys of one group that are all on one shard. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam table member where they were found to be
-- @tparam ?string table_name whose keys they are
-- @tparam table keys list, not empty
-- @treturn[1] table guard
-- @treturn[2] nil
-- @treturn[2] lunashard.error `STALE_MAP`: they are there no more; `NULL_KEY`, `INVALID`, `NO_SHARD`
function guards.keys(manager, member, table_name, keys)
  local strategy, err = manager:strategy_for(table_name, keys[1])
  if not strategy then
    return nil, err
  elseif #keys > guards.MAX_BUCKETS then
    return many(manager, member, strategy, keys)
  end
  local group, map = group_of(manager, strategy), manager.catalog.map
  local buckets, versions, seen, n = {}, {}, {}, 0
  local shard_id, bucket
  for _, key in ipairs(keys) do
    shard_id, bucket = strategy:route(key)
    if not shard_id then
      return nil, bucket
    elseif shard_id ~= member.shard_id then
      return stale("a key that was on %s is on %s now", member.shard_id, shard_id)
    end
    if not seen[bucket] then
      n = n + 1
      buckets[n], versions[n] = text_of(bucket), manager.catalog:bucket_version(group, bucket)
      seen[bucket] = true
    end
  end
  if n == 1 then
    return guards.bucket(manager, member, strategy, bucket, map == manager.catalog.map)
  end
  return new(OF_BUCKETS, { group, buckets, versions })
end

--- What a guard stands for.
-- @tparam table guard
-- @treturn table|boolean a set of buckets, true for all of a shard
function guards.covered(guard)
  if guard.sql == SHARD then
    return true
  end
  local group, buckets, set = guard.params[1], guard.params[2], {}
  for _, bucket in ipairs(type(buckets) == "table" and buckets or { buckets }) do
    set[group .. "/" .. text_of(bucket)] = true
  end
  return set
end

--- Does what is guarded already make another guard superfluous?
-- @tparam table|boolean covered as of `guards.covered`
-- @tparam table|boolean more the same, of the other
-- @treturn boolean
function guards.cover(covered, more)
  if covered == true then
    return true
  elseif more == true then
    return false
  end
  for name in pairs(more) do
    if not covered[name] then
      return false
    end
  end
  return true
end

local KEYED = { key = true, keys = true, rows = true }

-- The keys of a found statement that lie on one of its shards.
local function keys_of(found, params, i)
  local all, n = extraction.keys(found.plan, params)
  local keys = {}
  if not all then
    return nil, n
  elseif found.groups then
    for _, index in ipairs(found.groups[i or 1].indexes) do
      keys[#keys + 1] = all[index]
    end
  else
    for index = 1, n do
      keys[#keys + 1] = not target.is_null(all[index]) and all[index] or nil
    end
  end
  return keys
end

--- Do several shards all get the whole of a statement? Then each of them may see what has left it.
-- @tparam table found from `lunashard.router.target`
-- @tparam ?table params
-- @treturn boolean
function guards.is_whole(found, params)
  local plan = found.plan
  local is_list = plan.array_param and type(params[plan.array_param]) == "table"
  return found.members ~= nil and not plan.split and not is_list -- as `splitting.part`
end

--- A guard for a statement, or its part for one shard, that says itself whose it is. Yields when a directory has to be
-- asked.
-- @tparam Manager manager
-- @tparam table found from `lunashard.router.target`
-- @tparam table member
-- @tparam ?table params of the whole statement
-- @int[opt] i the number of the shard's group
-- @treturn[1] table guard
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function guards.found(manager, found, member, params, i)
  local plan = found.plan
  if not KEYED[plan.kind] or found.anywhere or guards.is_whole(found, params) then
    return guards.shard(manager, member)
  end
  local keys, err = keys_of(found, params, i)
  if not keys then
    return nil, err
  elseif #keys == 0 then
    return guards.shard(manager, member)
  end
  return guards.keys(manager, member, plan.table, keys)
end

return guards
