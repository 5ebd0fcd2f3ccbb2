--- What a session says of a failure: the server's message with its SQLSTATE, a caret under the place, the hint; of an
-- error in Lua the frames that are the user's.
-- @module lunashard.repl.failure

local errors = require("lunashard.errors")
local scan = require("lunashard.sql.scan")
local text = require("lunashard.core.text")

local failure = {}

local safe, width_of = text.safe, text.width

-- Where the general advice says more than the message does.
local ADVISED = { SHARD_DOWN = "\\health shows every server.",
  TIMEOUT = "router.query_timeout = 600 gives the session's statements ten minutes." }
for _, code in ipairs({ "RESULT_TOO_LARGE", "UNKNOWN_OUTCOME", "POOL_EXHAUSTED", "AUTH" }) do
  ADVISED[code] = errors.codes[code].advice
end

local MARGIN = 60 -- cells of a line that are shown before its caret

-- The byte at which a character begins.
local function byte_of(sql, position)
  local at = 1
  for _ = 2, position do
    at = at + 1
    while at <= #sql and sql:byte(at) >= 128 and sql:byte(at) < 192 do
      at = at + 1
    end
  end
  return at
end

-- What was sent may not be what was typed: then the position says nothing, but the message mostly names the word.
local function find_named(sql, message)
  local name = message:match('"([^"]+)"')
  for _, token in ipairs(name and scan.tokens(sql) or {}) do
    if token.name == name or token.text == name then
      return token.first
    end
  end
end

local function caret(sql, at)
  local first = sql:sub(1, at - 1):match(".*\n()") or 1
  local number = select(2, sql:sub(1, first - 1):gsub("\n", "")) + 1
  local lead = safe(sql:sub(first, at - 1))
  local shown = lead .. safe(sql:match("^[^\n]*", at))
  local head, width = ("LINE %d: "):format(number), width_of(lead)
  if width > MARGIN then -- a long line is shown from near its fault
    local cut = text.fit(lead, width - MARGIN)
    shown = "..." .. shown:sub(#cut + 1)
    width = 3 + width - width_of(cut)
  end
  local rest = text.fit(shown, width + MARGIN)
  return head .. rest .. (#rest < #shown and "..." or "") .. "\n" .. (" "):rep(#head + width) .. "^"
end

local function add_place(lines, err, sql, is_rewritten)
  if not sql or not err.sqlstate then
    return
  end
  local at = not is_rewritten and err.position and err.position > 0 and byte_of(sql, err.position)
  if not at or at > #sql + 1 then
    at = find_named(sql, err.message)
  end
  if at then
    lines[#lines + 1] = caret(sql, at)
  end
end

local function add_one(lines, err, sql, is_rewritten, where)
  local place = where or err.shard_id
  lines[#lines + 1] = ("ERROR %s%s: %s"):format(err.sqlstate or err.code, place and " on " .. place or "",
    safe(errors.redact(tostring(err.message))))
  add_place(lines, err, sql, is_rewritten)
  if err.detail then
    lines[#lines + 1] = "DETAIL: " .. safe(err.detail, true)
  end
  if err.hint then
    lines[#lines + 1] = "HINT: " .. safe(err.hint, true)
  elseif ADVISED[err.code] then
    lines[#lines + 1] = "HINT: " .. ADVISED[err.code]
  end
end

-- Shards that failed in the same way are named together.
local function add_shards(lines, err, sql, is_rewritten)
  local by_text, order = {}, {}
  for _, failed in ipairs(err.failed) do
    local own = failed.error
    local key = errors.is(own) and own.code .. tostring(own.sqlstate) .. tostring(own.message) or tostring(own)
    if not by_text[key] then
      by_text[key] = { error = own, shards = {} }
      order[#order + 1] = by_text[key]
    end
    table.insert(by_text[key].shards, failed.shard_id)
  end
  for _, one in ipairs(order) do
    local where = table.concat(one.shards, ", ")
    if errors.is(one.error) then
      add_one(lines, one.error, sql, is_rewritten, where)
    else
      lines[#lines + 1] = ("ERROR on %s: %s"):format(where, safe(tostring(one.error), true))
    end
  end
end

--- An error of ours as text.
-- @tparam lunashard.error err
-- @string[opt] sql what was typed, when it was SQL
-- @tparam[opt] boolean is_rewritten something else was sent, so that its positions say nothing of it
-- @treturn string lines, without a line end after the last
function failure.text(err, sql, is_rewritten)
  local lines = {}
  if type(err.failed) == "table" and #err.failed > 0 then
    add_shards(lines, err, sql, is_rewritten)
    if err.done and #err.done > 0 then
      lines[#lines + 1] = "done on " .. table.concat(err.done, ", ")
    end
    if err.skipped and #err.skipped > 0 then
      lines[#lines + 1] = "not run on " .. table.concat(err.skipped, ", ")
    end
  else
    add_one(lines, err, sql, is_rewritten)
  end
  return table.concat(lines, "\n")
end

-- ---- Lua ----------------------------------------------------------------------

local OWN = { "^%s*%[builtin", "^%s*%[C%]", "lua/lunashard/" }

local function is_users(frame)
  for _, pattern in ipairs(OWN) do
    if frame:find(pattern) then
      return false
    end
  end
  return true
end

--- Only the frames of a traceback that are the user's.
-- @string traceback as `debug.traceback` gives it
-- @treturn {string,...} frames
function failure.frames(traceback)
  local frames = {}
  for line in traceback:gmatch("\n\t([^\n]+)") do
    if is_users(line) then
      frames[#frames + 1] = line
    end
  end
  return frames
end

--- What Lua raised, as text.
-- @param value
-- @tparam ?string traceback
-- @treturn string
function failure.raised(value, traceback)
  if errors.is(value) then
    return failure.text(value)
  end
  local lines = { "ERROR: " .. safe((tostring(value):gsub("\t", "    ")), true) }
  local frames = traceback and failure.frames(traceback) or {}
  -- The line itself says where it failed.
  if #frames > 1 then
    for _, frame in ipairs(frames) do
      lines[#lines + 1] = "  " .. safe(frame)
    end
  end
  return table.concat(lines, "\n")
end

return failure
