--- From the options of a call to the shard that is meant. Pure: needs no connection.
-- @module lunashard.router.routing

local adoption = require("lunashard.strategy.adoption")
local errors = require("lunashard.errors")
local raise = require("lunashard.misuse").raise
local statement = require("lunashard.router.statement")

-- Local functions are constants to the compiler; what is here runs for every statement.
local classify, type = statement.classify, type

local routing = {}

--- Options that say where a statement goes.
-- @table OPTIONS
routing.OPTIONS = { routing_key = "any", shard_id = "string", table = "string" }

local NO_KEY = "there is no routing_key (or it is nil): pass routing_key = value, or shard_id = name; "
  .. "scatter_gather asks all shards"

--- The error for a call that names no shard.
-- @treturn lunashard.error `NO_KEY`
function routing.no_key()
  return errors.new("NO_KEY", { message = NO_KEY })
end

--- The shard that owns a key. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam ?string table_name whose key it is
-- @param key
-- @treturn[1] table member
-- @treturn[1] number|string bucket
-- @treturn[1] table strategy
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NULL_KEY`, `INVALID`, `NO_SHARD`
function routing.owner(manager, table_name, key)
  local strategy, err = manager.strategy
  if table_name ~= nil or manager.strategies.mixed then
    strategy, err = manager:strategy_for(table_name, key)
    if not strategy then
      return nil, err
    end
  end
  local shard_id, bucket = strategy:route(key)
  if not shard_id then
    return nil, bucket
  end
  local member = manager.by_id[shard_id]
  if not member then
    return nil, manager.catalog and shard_id == adoption.UNKNOWN and manager.catalog:unknown_owner()
      or errors.new("NO_SHARD", {
        message = ("the strategy names the shard %s, which does not exist"):format(tostring(shard_id)),
      })
  end
  return member, bucket, strategy
end

local owner = routing.owner

--- The shard that the options name. Yields when a directory has to be asked.
-- @tparam Manager manager
-- @tparam table opts `routing_key`, `shard_id`, `table`
-- @treturn[1] table member
-- @treturn[1] ?number|string bucket, when a key was given
-- @treturn[1] ?table strategy
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NO_KEY`, `NULL_KEY`, `INVALID`, `NO_SHARD`, `KEY_MISMATCH`
function routing.resolve(manager, opts)
  local key, wanted = opts.routing_key, opts.shard_id
  if key == nil then
    if wanted == nil then
      return nil, routing.no_key()
    end
    return manager:member(wanted)
  end
  local member, bucket, strategy = owner(manager, opts.table, key)
  if member and wanted ~= nil and wanted ~= member.shard_id then
    local ok, err = manager:member(wanted)
    return nil, ok and errors.new("KEY_MISMATCH", {
      message = ("routing_key belongs to %s, but shard_id says %s"):format(member.shard_id, wanted),
    }) or err
  end
  return member, bucket, strategy
end

--- Is the option `table` the name of a reference table?
-- @tparam Manager manager
-- @tparam ?string table_name
-- @treturn boolean
function routing.is_reference(manager, table_name)
  local declared = table_name and manager.tables[table_name]
  return declared ~= nil and declared.reference == true
end

--- The error for a write to a reference table that would go to one shard only.
-- @string table_name
-- @treturn lunashard.error `INVALID`
function routing.reference_refusal(table_name)
  return errors.new("INVALID", {
    message = ("%s is a reference table: a write goes to every shard, not to one"):format(table_name),
  })
end

local REFUSED = {
  control = "transaction control is refused here, for the next statement may run on another connection; "
    .. "use router:transaction or router:begin",
  copy = "COPY from or to the client is refused here; use router:copy_in and router:copy_out",
  empty = "the statement is empty",
}

--- Refuse what may not run on a connection that is not the caller's own.
-- @string sql
-- @tparam ?boolean read_only the caller promises that it changes nothing: it may go to a replica, and
--   run again after a lost connection
-- @treturn[1] string `read` or `write`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function routing.check_statement(sql, read_only)
  local kind, word = classify(sql)
  if kind == "read" then
    return kind
  end
  local refusal = REFUSED[kind]
  if refusal then
    return nil, errors.new("INVALID", { message = word and word .. ": " .. refusal or refusal })
  elseif read_only and kind == "write" then
    return nil, errors.new("INVALID", { message = word .. ": the statement writes, but read_only = true says otherwise" })
  end
  return kind
end

--- Raise, at the place that called our caller, unless a statement and its parameters are of the right types.
-- @string what function name
-- @param sql
-- @param[opt] params
function routing.check_arguments(what, sql, params)
  if type(sql) ~= "string" then
    raise(("%s: expected SQL as a string, got a %s"):format(what, type(sql)), 3)
  elseif params ~= nil and type(params) ~= "table" then
    raise(("%s: expected parameters as a table, got a %s"):format(what, type(params)), 3)
  elseif classify(sql) == "nul" then
    raise(what .. ": SQL cannot hold a NUL byte", 3)
  end
end

return routing
