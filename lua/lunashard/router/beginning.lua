--- How a transaction begins: its options, the BEGIN they make, and what its results are given.
-- @module lunashard.router.beginning

local errors = require("lunashard.errors")
local lsn = require("lunashard.lsn")
local options = require("lunashard.options")
local raise = require("lunashard.misuse").raise
local reads = require("lunashard.router.reads")
local replay = require("lunashard.manager.replay")
local routing = require("lunashard.router.routing")

local beginning = {}

--- Options of `transaction` and `begin`.
-- @table OPTIONS
beginning.OPTIONS = options.known(routing.OPTIONS, reads.OPTIONS, {
  isolation = "string",
  deferrable = "boolean",
  timeout = "seconds",
  retries = "count",
})

local ISOLATION = {
  ["read committed"] = "READ COMMITTED",
  ["repeatable read"] = "REPEATABLE READ",
  ["serializable"] = "SERIALIZABLE",
}

--- The statement. Raises, at the place that called our caller, for options that are wrong.
-- @tparam table opts
-- @string what function name
-- @treturn string
function beginning.sql(opts, what)
  local sql = "BEGIN"
  reads.check(opts, what, 4)
  if opts.isolation then
    local level = ISOLATION[opts.isolation:lower()]
    if not level then
      local near = errors.nearest(opts.isolation, ISOLATION)
      raise(("%s: option isolation: expected read committed, repeatable read or serializable, got %s%s"):format(what,
        options.describe(opts.isolation), near and (", did you mean %q?"):format(near) or ""), 3)
    end
    sql = sql .. " ISOLATION LEVEL " .. level
  end
  if opts.read_only ~= nil then
    sql = sql .. (opts.read_only and " READ ONLY" or " READ WRITE")
  end
  if opts.deferrable ~= nil then
    sql = sql .. (opts.deferrable and " DEFERRABLE" or " NOT DEFERRABLE")
  end
  return sql
end

--- The metatable for results of a transaction: their `lsn` is that of the COMMIT, so it is not there before.
-- @tparam Tx tx
-- @treturn table
function beginning.written(tx)
  return lsn.lazily(function()
    if not tx.closed then
      return nil, errors.new("INVALID", { message = "lsn: the transaction has not ended; look at it after COMMIT" })
    end
    return replay.written(tx.member, tx.router.query_timeout)
  end)
end

return beginning
