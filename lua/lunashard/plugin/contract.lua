--- Contracts of plug-ins, as declarative templates.
-- A plug-in is a Lua file that returns a table; what must be in it depends on its `kind`. Built-in plug-ins keep the
-- same contracts. A violation is one line that names file, line, plug-in and field, what was expected and what came.
-- @module lunashard.plugin.contract

local errors = require("lunashard.errors")
local options = require("lunashard.options")

local contract = {}

local function fn(doc, more)
  local field = { type = "function", doc = doc }
  for name, value in pairs(more or {}) do
    field[name] = value
  end
  return field
end

local BUILT_IN = { built_in = true }

--- What is in a plug-in of each kind.
-- `fields`: name -> `type`, `or_type`, `doc` (what it is, functions with arguments and results), `required`, `built_in`
-- (only for the ones that we ship); `one_of`: sets of fields of which one has to be there.
-- @table templates
contract.templates = {
  strategy = {
    article = "a",
    fields = {
      new = fn("new(options, shards) -> state", { required = true }),
      bucket = fn("bucket(state, key) -> integer or short text, never another one for the same key"),
      place = fn("place(state, bucket, shards) -> shard_id"),
      route = fn("route(state, key) -> shard_id"),
      upgrade = fn("upgrade(old_state, new_state) -> state, when the file is loaded anew"),
      options = { type = "list", doc = "the names of its options; without it any are taken" },
      has_members = { type = "boolean", doc = "its options list other strategies", built_in = true },
      attach = fn("attach(state, execute)", BUILT_IN),
      inherit = fn("inherit(state, old_state)", BUILT_IN),
      invalidate = fn("invalidate(state, key)", BUILT_IN),
      region = fn("region(state, bucket) -> region, and whether its rows may live nowhere else", BUILT_IN),
      shards_for_range = fn("shards_for_range(state, low, high) -> set of shard_ids", BUILT_IN),
    },
    one_of = { { "bucket", "place" }, { "route" } },
  },
  aggregate = {
    article = "an",
    fields = {
      new = fn("new(...) -> options"),
      init = fn("init(options) -> acc"),
      step = fn("step(acc, row, shard_id, types) -> acc"),
      merge = fn("merge(acc, acc) -> acc"),
      finish = fn("finish(acc) -> row or list of rows"),
      aggregate = fn("aggregate(options, results) -> row or list of rows"),
      returns = { type = "string", or_type = "function", doc = '"row" or "rows": what it gives' },
      types = fn("types(acc) -> column name -> SQL type"),
      push_down = fn("push_down(options) -> what shards may be asked for instead of everything", BUILT_IN),
      keeps = fn("keeps(options) -> does it take all rows of a shard at once", BUILT_IN),
      keep = fn("keep(acc, rows) -> acc", BUILT_IN),
    },
    one_of = { { "init", "step", "merge", "finish" }, { "aggregate" } },
  },
  extractor = {
    article = "an",
    fields = {
      new = fn("new(...) -> options"),
      extract = fn("extract(statement, params, options) -> key, or nil and the reason", { required = true }),
      plan = fn("plan(options, statement, manager) -> plan, see lunashard.extraction", BUILT_IN),
    },
  },
  policy = {
    article = "a",
    fields = {
      new = fn("new(options) -> options"),
      options = { type = "list", doc = "the names of its options; without it any are taken" },
      plan = fn("plan(state, options) -> list of moves"),
      cost = fn("cost(bucket, options) -> number: what a bucket weighs"),
      capacity = fn("capacity(shard, options) -> number: how much a shard can take"),
      allowed = fn("allowed(bucket, shard, options) -> boolean: may it live there"),
      measures_load = { type = "boolean", doc = "its plans go by the load of shards, which takes seconds to measure" },
      throttle = fn("throttle(stats, options) -> seconds to pause after each batch"),
      on_health = fn("on_health(event, options)"),
      choose_primary = fn("choose_primary(candidates, shard, options) -> false, or the endpoint of a candidate"),
    },
    one_of = { { "plan" }, { "on_health" }, { "choose_primary" }, { "cost" }, { "capacity" }, { "allowed" }, { "throttle" } },
  },
}

local COMMON = { api = true, kind = true, name = true }

--- The kinds of plug-ins, sorted.
-- @table kinds
contract.kinds = { "aggregate", "extractor", "policy", "strategy" }

--- Is this text a plug-in's name?
-- @param name
-- @treturn boolean
function contract.is_name(name)
  return type(name) == "string" and #name <= 63 and name:find("^[%a_][%w_]*$") ~= nil
end

-- The line that sets a field, as far as the text tells; else that of the last `return` at the left margin.
local function line_of(text, field)
  local pattern = field and "%f[%w_]" .. field:gsub("%W", "%%%0") .. "%f[^%w_]%s*[=(]"
  local line, returned = 0, 1
  for content in (text .. "\n"):gmatch("(.-)\r?\n") do
    line = line + 1
    if pattern and content:gsub("%-%-.*$", ""):find(pattern) and not content:find("==", 1, true) then
      return line
    elseif content:find("^return%f[^%w_]") then
      returned = line
    end
  end
  return returned
end

-- Where in its file a plug-in has its first function: better than nothing when there is no text to look at.
local function first_function(value, path)
  local first
  for _, member in pairs(type(value) == "table" and value or {}) do
    local info = type(member) == "function" and debug.getinfo(member, "S")
    if info and info.source == "@" .. path and (not first or info.linedefined < first) then
      first = info.linedefined
    end
  end
  return first
end

local function located(message, value, source, field)
  if source == nil then
    return message
  elseif type(source) == "string" then
    source = { path = source }
  end
  local line = source.text and line_of(source.text, type(field) == "string" and field) or first_function(value, source.path)
  return line and ("%s:%d: %s"):format(source.path, line, message) or ("%s: %s"):format(source.path, message)
end

local function is_list_of_strings(value)
  if type(value) ~= "table" or not options.is_list(value) then
    return false
  end
  for _, item in ipairs(value) do
    if type(item) ~= "string" then
      return false
    end
  end
  return true
end

local function fits(field, value)
  if field.type == "list" then
    return is_list_of_strings(value)
  end
  return type(value) == field.type or type(value) == field.or_type
end

local function expected(field)
  if field.type == "list" then
    return ("a list of texts (%s)"):format(field.doc)
  end
  return ("a %s%s (%s)"):format(field.type, field.or_type and " or a " .. field.or_type or "", field.doc)
end

local function got(value)
  return value == nil and "nothing" or options.describe(value)
end

-- Which set of fields it seems to want: the one of which it has most; by default the first.
local function check_one_of(template, value)
  local best, best_count
  for _, set in ipairs(template.one_of or {}) do
    local count = 0
    for _, name in ipairs(set) do
      count = count + (value[name] ~= nil and 1 or 0)
    end
    if count == #set then
      return nil
    elseif not best or count > best_count then
      best, best_count = set, count
    end
  end
  return best
end

local function alternatives(template)
  local texts = {}
  for i, set in ipairs(template.one_of) do
    texts[i] = #set > 1 and table.concat(set, ", ", 1, #set - 1) .. " and " .. set[#set] or set[1]
  end
  return table.concat(texts, ", or ")
end

-- The first violation: what is wrong, and with which field.
local function check_fields(template, value, shipped)
  local names = {}
  for name, field in pairs(template.fields) do
    names[#names + 1] = (shipped or not field.built_in) and name or nil
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local field = template.fields[name]
    if value[name] == nil and field.required or value[name] ~= nil and not fits(field, value[name]) then
      return ("%s: expected %s, got %s"):format(name, expected(field), got(value[name])), name
    end
  end
  local wanted = check_one_of(template, value)
  if wanted then
    for _, name in ipairs(wanted) do
      if value[name] == nil then
        return ("%s: expected %s, got nothing; it needs the functions %s"):format(name, expected(template.fields[name]),
          alternatives(template)), name
      end
    end
  end
  for name in pairs(value) do
    local field = template.fields[name]
    if not COMMON[name] and (not field or field.built_in and not shipped) then
      local near = errors.nearest(name, names)
      return ("%s: no such field%s"):format(type(name) == "string" and name or got(name),
        near and ("; did you mean %q?"):format(near) or "; there are api, kind, name, " .. table.concat(names, ", ")), name
    end
  end
end

local function kinds_text()
  return "one of " .. table.concat(contract.kinds, ", ")
end

-- What every plug-in says of itself.
local function check_head(kind, value)
  if type(value) ~= "table" then
    return ("expected the file to return a table with api = 1, kind and name, got %s"):format(got(value))
  elseif getmetatable(value) ~= nil then
    return "expected a plain table, got one with a metatable"
  elseif value.api ~= 1 then
    return ("api: expected 1 (as in api = 1), got %s"):format(got(value.api)), "api"
  elseif contract.templates[value.kind] == nil then
    local near = errors.nearest(value.kind, contract.kinds)
    return ("kind: expected %s, got %s%s"):format(kind and ("%q"):format(kind) or kinds_text(), got(value.kind),
      near and ("; did you mean %q?"):format(near) or ""), "kind"
  elseif kind and value.kind ~= kind then
    return ("kind: expected %q, got %q"):format(kind, value.kind), "kind"
  elseif not contract.is_name(value.name) then
    return ("name: expected an identifier (letters, digits and _, at most 63), got %s"):format(got(value.name)), "name"
  end
end

--- Check that a value keeps the contract of a plug-in.
-- @tparam ?string kind the kind that it must be of; nil for any
-- @param value what the file returned
-- @tparam[opt] string|table source the file's path, or `{ path = , text = }`, for messages
-- @tparam[opt] boolean shipped it is one of ours
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string what is wrong, one line
function contract.check(kind, value, source, shipped)
  local message, field = check_head(kind, value)
  if not message then
    message, field = check_fields(contract.templates[value.kind], value, shipped)
    message = message and ("%s %s: %s"):format(value.kind, value.name, message)
  elseif kind then
    message = ("%s plug-in: %s"):format(kind, message)
  end
  if message then
    return nil, located(message, value, source, field)
  end
  return true
end

return contract
