--- The key, or the shard, by a comment: `/* shard_key: 42 */`, `/* shard: s1 */`, or after `--` to the end of a line.
-- Comments are told from the scanner's tokens, so that no literal passes for one. A value may be quoted, '42'; of a key
-- of several columns the values stand with commas between.
-- @module lunashard.extractors.by_comment

local assertion = require("lunashard.extraction.assertion")
local core = require("lunashard.core.placement")
local scan = require("lunashard.sql.scan")

local plugin = { api = 1, kind = "extractor", name = "by_comment" }

local NAME = "by_comment"

-- What a comment says: `shard_key` or `shard`, and the value.
local function hint_of(comment)
  local inner = comment.text:match("^/%*(.*)%*/$") or comment.text:match("^%-%-(.*)$")
  local word, value = (inner or ""):match("^%s*([%a_]+)%s*:%s*(.-)%s*$")
  word = word and word:lower()
  if (word == "shard_key" or word == "shard") and value ~= "" then
    return word, value
  end
end

-- The one hint of a text. Or why there is none, and then perhaps why it may not be sent.
local function find_hint(sql)
  if not sql:lower():find("shard", 1, true) then
    return nil, "no comment names a shard key"
  end
  local found, value
  for _, comment in ipairs(scan.comments(sql)) do
    local word, said = hint_of(comment)
    if word and found and (word ~= found or said ~= value) then
      return nil, ("two comments differ: %s: %s, and %s: %s"):format(found, value, word, said), true
    elseif word then
      found, value = word, said
    end
  end
  if not found then
    return nil, "no comment names a shard key"
  end
  return found, value
end

-- One value as it stands: in quotes a text; digits are a number where the type of the key is not known. Or why it is none.
local function read_value(text, key_type)
  local quoted = text:match("^'(.*)'$")
  local value = quoted and quoted:gsub("''", "'") or text
  if key_type and key_type ~= "any" then
    return core.canonical(key_type, value)
  elseif not quoted and text:find("^-?%d+$") then
    return core.canonical("int8", text)
  end
  return value
end

-- Several columns, at commas that are not in quotes.
local function split_values(text)
  local list, pos = {}, 1
  while pos <= #text + 1 do
    local first = text:match("^%s*()", pos)
    local after = text:sub(first, first) == "'" and scan.after_quoted(text, first + 1, "'") or first
    local stop = text:find(",", after, true) or #text + 1
    list[#list + 1] = text:sub(first, stop - 1):match("^(.-)%s*$")
    pos = stop + 1
  end
  return list
end

local function read_key(text, entry)
  if not entry or #entry.columns == 1 then
    return read_value(text, entry and entry.types[1])
  end
  local key = {}
  for i, one in ipairs(split_values(text)) do
    local value, err = read_value(one, entry.types[i])
    if value == nil then
      return nil, err
    end
    key[i] = value
  end
  return key
end

function plugin.plan(_, statement, manager)
  local word, value, conflict = find_hint(statement.sql)
  if not word then
    local plan = assertion.none(statement, NAME, value)
    if conflict then
      plan.kind, plan.code = "refused", "KEY_MISMATCH"
    end
    return plan
  end
  local against = assertion.by_columns(statement)
  if word == "shard_key" and against and against.kind == "reference" and against.table then
    return against -- what no key has
  end
  local plan = assertion.none(statement, NAME, ("a comment says %s: %s"):format(word, value))
  local entry
  plan.code = nil
  plan.table, entry = assertion.table_of(statement, against)
  if word == "shard" then
    plan.kind, plan.shard_id = "shard", value
  else
    local key, err = read_key(value, entry)
    if key == nil then
      plan.kind, plan.code, plan.reason = "refused", "INVALID", plan.reason .. ": " .. err.message
      return plan
    end
    plan.kind, plan.value = "key", key
  end
  return assertion.checked(plan, against, manager)
end

function plugin.extract(statement)
  local word, value = find_hint(statement.sql)
  if word == "shard_key" then
    local key, err = read_key(value)
    return key, err and err.message
  end
  return nil, word and "the comment names a shard, not a key" or value
end

return plugin
