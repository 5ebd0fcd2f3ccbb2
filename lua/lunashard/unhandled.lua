--- Errors that a script received and never looked at.
-- A router method returns `nil, err`; a script that drops both goes on as if all were well. While a
-- router is watched, the error it hands out is an empty table until somebody looks into it: the first
-- look fills it, and counts it as seen.
-- @module lunashard.unhandled

local errors = require("lunashard.errors")
local misuse = require("lunashard.misuse")

local unhandled = {}

local handed, seen, first = 0, 0, nil
local hidden = setmetatable({}, { __mode = "k" }) -- err -> its fields, until it is looked at

local Error -- the metatable of all errors
local Unseen = { stands_for_error = true } -- for errors.is

local function look(err)
  local fields = hidden[err]
  hidden[err] = nil
  for name, value in pairs(fields) do
    rawset(err, name, value)
  end
  setmetatable(err, Error)
  seen = seen + 1
  if first and first.err == err then
    first = nil
  end
end

function Unseen.__index(err, name)
  look(err)
  return err[name]
end

function Unseen.__newindex(err, name, value)
  look(err)
  err[name] = value
end

function Unseen.__tostring(err)
  look(err)
  return tostring(err)
end

local function hide(err)
  if hidden[err] then -- passed on from one method to another: the same hand-out
    return
  end
  Error = Error or getmetatable(err)
  local fields = {}
  for name, value in pairs(err) do
    fields[name] = value
  end
  for name in pairs(fields) do
    err[name] = nil
  end
  hidden[err] = fields
  setmetatable(err, Unseen)
  handed = handed + 1
  if not first then
    local info = debug.getinfo(4, "Sl")
    first = {
      err = err,
      where = info and info.currentline > 0 and ("%s:%d"):format(info.short_src, info.currentline) or nil,
      text = ("%s: %s"):format(fields.code, fields.message),
    }
  end
end

local function note(result, err)
  if result == nil and type(err) == "table" and (hidden[err] or errors.is(err)) then
    hide(err)
  end
end

local METHODS = {
  "execute", "scatter_gather", "execute_on_all_shards", "transaction", "execute_many", "copy_in", "copy_out", "begin",
}

-- Without `...`, from which compiled code cannot return; none of the methods takes or gives more than this.
local function watched(method)
  return misuse.wrapper(function(self, a, b, c, d)
    local result, err = method(self, a, b, c, d)
    note(result, err)
    return result, err
  end)
end

local function pass(...)
  note(...)
  return ...
end

--- Watch the errors that a router returns.
-- @tparam Router router
function unhandled.watch(router)
  for _, name in ipairs(METHODS) do
    router[name] = watched(router[name])
  end
  local transaction = router.transaction -- gives what the caller's function gave, however many
  router.transaction = misuse.wrapper(function(...)
    return pass(transaction(...))
  end)
end

--- What was not looked at so far.
-- @treturn number how many
-- @treturn ?string the first of them, as far as it is still known: where, and what it said
function unhandled.count()
  local text = first and (first.where and first.where .. ": " or "") .. first.text or nil
  return handed - seen, text
end

return unhandled
