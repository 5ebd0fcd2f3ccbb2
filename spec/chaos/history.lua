--- What the processes of a run did, as they saw it: a file of JSON lines each.
-- A line is written before an operation is sent and another one when it has ended, so that one whose process was
-- killed counts as begun and of unknown outcome. Times are those of the monotonic clock, which all processes of a
-- machine share.
-- @module spec.chaos.history

local json = require("cjson")
local task = require("lunashard.task")

local history = {}

local Writer = {}
Writer.__index = Writer

--- A history to write.
-- @string path
-- @string process whose; no two of a run have the same
-- @treturn Writer
function history.open(path, process)
  local file = assert(io.open(path, "w"))
  file:setvbuf("line") -- what was written survives kill -9
  return setmetatable({ file = file, process = process, n = 0 }, Writer)
end

--- An operation is about to be sent.
-- @string kind
-- @tparam table what more fields
-- @treturn int its number
function Writer:begin(kind, what)
  self.n = self.n + 1
  what.id, what.kind, what.began = self.n, kind, task.now()
  self.file:write(json.encode(what), "\n")
  return self.n
end

--- It has ended.
-- @int id
-- @tparam table outcome `ok`, or `code` of the error; more fields
function Writer:finish(id, outcome)
  outcome.id, outcome.ended = id, task.now()
  self.file:write(json.encode(outcome), "\n")
end

function Writer:close()
  self.file:close()
end

-- What happened of an operation: "ok", "no" (certainly without effect), or "unknown".
local NO_EFFECT_UNLESS = { UNKNOWN_OUTCOME = true, CANCELED = true }

local function outcome_of(op)
  if op.ok then
    return "ok"
  elseif op.ended == nil or NO_EFFECT_UNLESS[op.code] then
    return "unknown"
  end
  return "no"
end

-- The SQLSTATEs of an error and of the shards that failed, without those of its causes: of these the program has made
-- something else.
local function add_states(list, err)
  list[#list + 1] = err.sqlstate
  for _, one in ipairs(type(err.failed) == "table" and err.failed or {}) do
    add_states(list, one.error)
  end
  return list
end

--- How an operation ended that failed.
-- @tparam lunashard.error err
-- @treturn table for `Writer:finish`
function history.failure(err)
  local states = add_states({}, err)
  return { code = err.code, message = tostring(err), states = states[1] and states or nil }
end

--- Read one. Raises for what is no history: a broken line is a failure of the run, unless it is the last one of a process
-- that was killed.
-- @string path
-- @string process
-- @treturn {table,...} operations in the order in which they began, each with `process`, `outcome`; `ended` is
--   infinite for one that never did
function history.read(path, process)
  local ops, number = {}, 0
  local file = assert(io.open(path))
  local text = file:read("*a")
  file:close()
  for line, ending in text:gmatch("([^\n]*)(\n?)") do
    if ending == "" then
      break -- cut off in the middle
    end
    number = number + 1
    local ok, record = pcall(json.decode, line)
    if not ok or type(record) ~= "table" or type(record.id) ~= "number" then
      error(("%s:%d: no line of a history: %s"):format(path, number, line), 0)
    end
    local op = ops[record.id]
    if record.began then
      assert(not op and record.id == #ops + 1, "the operations of a history are numbered")
      ops[record.id] = record
    else
      assert(op and not op.ended, "what has ended has begun before, and once")
      for name, value in pairs(record) do
        op[name] = value
      end
    end
  end
  for _, op in ipairs(ops) do
    op.process = process
    op.outcome = outcome_of(op)
    op.ended = op.ended or math.huge
  end
  return ops
end

return history
