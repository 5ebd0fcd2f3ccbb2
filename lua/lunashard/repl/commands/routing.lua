--- Where keys and statements go: \use \route \explain.
-- @module lunashard.repl.commands.routing

local errors = require("lunashard.errors")
local explained = require("lunashard.router.explained")
local show = require("lunashard.repl.show")
local typed = require("lunashard.cli.typed")
local without_semicolon = require("lunashard.repl.classify").without_semicolon

local routing = {}

local function invalid(fmt, ...)
  return nil, errors.new("INVALID", { message = fmt:format(...) })
end

local function no_cluster()
  return invalid("there is no cluster: start with -c FILE, or try the sandbox")
end

local function words_of(text)
  local words = {}
  for word in text:gmatch("%S+") do
    words[#words + 1] = word
  end
  return words
end

-- The first word may name a declared table when others follow.
local function table_and_keys(session, words)
  local name
  if #words > 1 and session.manager.tables[words[1]] then
    name = table.remove(words, 1)
  end
  return name, words
end

--- \use
-- @tparam Session session
-- @string text
-- @treturn boolean
function routing.use(session, text)
  if not session.manager then
    return no_cluster()
  elseif session.tx then
    return invalid("\\use: a transaction is open, and it stays where it is: COMMIT or ROLLBACK first")
  end
  local words = words_of(text)
  if #words == 0 then
    session.pin = nil
    session.err("statements go wherever their keys say\n")
    return true
  elseif words[1] == "key" and words[2] then
    table.remove(words, 1)
    local name, keys = table_and_keys(session, words)
    local key = typed.key(keys)
    local found, err = session.router:explain(nil, nil, { routing_key = key, table = name })
    if not found then
      return nil, err
    end
    session.pin = { shard_id = found.shard_id, key = explained.key_text(key) }
  else
    local member, err = session.manager:member(text)
    if not member then
      return nil, err
    end
    session.pin = { shard_id = member.shard_id }
  end
  session.err(("statements go to %s; \\use alone undoes that\n"):format(session.pin.shard_id))
  return true
end

--- \route
-- @tparam Session session
-- @string text
-- @treturn boolean
function routing.route(session, text)
  if not session.manager then
    return no_cluster()
  end
  local name, keys = table_and_keys(session, words_of(text))
  if #keys == 0 then
    return invalid("\\route: give keys, such as \\route 42 43")
  end
  local rows = {}
  for i, word in ipairs(keys) do
    local key = typed.value(word)
    local found, err = session.router:explain(nil, nil, { routing_key = key, table = name })
    if not found then
      return nil, err
    end
    rows[i] = { key = explained.key_text(key), shard = found.shard_id, bucket = tostring(found.bucket),
      strategy = found.strategy, endpoint = found.endpoints[found.shard_id] }
  end
  show.result(session, { rows = rows, columns = { "key", "shard", "bucket", "strategy", "endpoint" } })
  return true
end

--- \explain
-- @tparam Session session
-- @string sql
-- @treturn boolean
function routing.explain(session, sql)
  if not session.manager then
    return no_cluster()
  elseif sql == "" then
    return invalid("\\explain: give a statement")
  end
  local found, err = session.router:explain(without_semicolon(sql), nil, {
    shard_id = session.pin and session.pin.shard_id or nil,
  })
  if not found then
    return nil, err
  end
  session.out(tostring(found) .. "\n")
  return true
end

return routing
