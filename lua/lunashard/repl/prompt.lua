--- The prompt: cluster, health, pin and transaction; of a production cluster that it is one, and whether it may be written.
-- @module lunashard.repl.prompt

local budget = require("lunashard.plugin.budget")
local transactions = require("lunashard.repl.transactions")

local prompt = {}

local MARKS = { open = "*", failed = "!", pending = "*?" }

--- What a prompt can tell, for functions of users.
-- @tparam Session session
-- @tparam[opt] boolean continuation
-- @treturn table `cluster`, `shard_id` and `key` of the pin, `transaction` (`open`, `failed`, `pending`), `healthy` and
--   `total` shards, `production`, `read_only`, `continuation`
function prompt.state(session, continuation)
  local manager = session.manager
  local state = { transaction = transactions.state(session), continuation = continuation or false,
    read_only = session.read_only, production = false }
  if manager then
    local now = manager:get_cluster_status()
    state.cluster = manager.name or session.cluster.path and session.cluster.path:match("([^/]*)$")
    state.healthy, state.total = now.healthy_shards, now.total_shards
    state.production = manager.options.environment == "production"
  end
  if session.pin then
    state.shard_id, state.key = session.pin.shard_id, session.pin.key
  end
  if session.tx then
    state.shard_id = session.tx.shard_id
  end
  return state
end

local function default(state)
  local parts = {}
  if state.production then
    parts[1] = "PROD " .. (state.read_only and "RO" or "RW")
  elseif state.read_only then
    parts[1] = "RO"
  end
  parts[#parts + 1] = state.cluster or "lunashard"
  if state.total then
    parts[#parts + 1] = ("%d/%d"):format(state.healthy, state.total)
  end
  local pin = state.shard_id and "@" .. state.shard_id .. (state.key ~= nil and " key " .. tostring(state.key) or "") or ""
  if pin ~= "" or state.transaction then
    parts[#parts + 1] = pin .. (MARKS[state.transaction] or "")
  end
  local text = table.concat(parts, " ")
  return state.continuation and ("."):rep(math.max(#text - 1, 2)) .. "> " or text .. "> "
end

--- The prompt as text. A function `prompt` among the session's variables is asked first; what it raises is said once.
-- @tparam Session session
-- @tparam[opt] boolean continuation
-- @treturn string
function prompt.text(session, continuation)
  local state = prompt.state(session, continuation)
  local own = rawget(session.env, "prompt")
  if type(own) == "function" and own ~= session.broken_prompt then
    -- One that computes for ever would hold up what could stop it.
    local ok, text = budget.call("the function prompt", nil, own, state)
    if ok and type(text) == "string" then
      return text
    end
    session.broken_prompt = own
    session.err((ok and "the function prompt gave no text" or text.message) .. "; the usual one is back\n")
  end
  return default(state)
end

return prompt
