--- Makes lua/lunashard.d.lua, by which the Lua language server completes and checks scripts and plug-ins, and
-- lua/lunashard.testing.d.lua for their specs: `lunashard run scripts/dev/annotations.lua [--check]`. From the LDoc
-- comments come functions with their parameters, from the code the names of options, from annotations/classes.lua what
-- neither says. With --check nothing is written: it fails when a file is not what would be written.

local classes = require("annotations.classes")
local ldoc = require("annotations.ldoc")
local sorted = require("lunashard.sorted")
local system = require("lunashard.core.system")

-- Types of LDoc comments that are called otherwise here.
local TYPES = {
  bool = "boolean", func = "function", int = "integer", int64 = "integer", file = "file*", list = "table",
  ["lunashard.error"] = "lunashard.Error", ["lunashard.strategy.bound"] = "lunashard.Strategy",
  ["lunashard.cluster"] = "lunashard.Cluster", ["lunashard.ids"] = "lunashard.IdGenerator",
  Tx = "lunashard.Transaction", Event = "lunashard.TaskEvent", Generator = "lunashard.IdGenerator",
}
for _, class in ipairs(classes) do
  TYPES[class.name] = TYPES[class.name] or "lunashard." .. class.name
end
for _, name in ipairs({ "any", "boolean", "function", "integer", "nil", "number", "string", "table" }) do
  TYPES[name] = name
end

local SHIPPED = {
  strategy = { folder = "strategies", signature = "fun(options?: table): lunashard.Strategy" },
  aggregate = { folder = "aggregates", signature = "fun(...: any): lunashard.Aggregate" },
  extractor = { folder = "extractors", signature = "fun(...: any): table" },
  policy = { folder = "policies", signature = "fun(options?: table): table" },
}

local OPTION_TYPES = { seconds = "number seconds", count = "integer", any = "any" }
local KINDS = { seconds = true, count = true, any = true, boolean = true, number = true, string = true, table = true,
  ["function"] = true }

local lines = {}

local function put(format, ...)
  lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
end

local function path_of(module)
  local base = "lua/lunashard/" .. module
  return system.stat(base .. ".lua") and base .. ".lua" or base .. "/init.lua"
end

local function type_of(text)
  local names = {}
  for name in text:gsub("^%?", ""):gmatch("[^|]+") do
    local item = name:match("^{(.-),%.%.%.}$")
    local known = TYPES[item or name] or "table"
    names[#names + 1] = item and known .. "[]" or known
  end
  return table.concat(names, "|") .. (text:sub(1, 1) == "?" and "|nil" or "")
end

-- ---- options ------------------------------------------------------------------------

local function is_option_set(value)
  if type(value) ~= "table" or next(value) == nil then
    return false
  end
  for name, kind in pairs(value) do
    if type(name) ~= "string" or not KINDS[kind] then
      return false
    end
  end
  return true
end

local function upvalue(fn, name)
  for i = 1, 255 do
    local found, value = debug.getupvalue(fn, i)
    if not found then
      return nil
    elseif found == name then
      return value
    end
  end
end

-- The options that a function checks: a local of its file, or OPTIONS of a part that it uses.
local function options_of(fn)
  local of_part
  for i = 1, 255 do
    local name, value = debug.getupvalue(fn, i)
    if not name then
      return of_part
    elseif is_option_set(value) then
      return value
    elseif type(value) == "table" and is_option_set(rawget(value, "OPTIONS")) then
      of_part = of_part or value.OPTIONS
    end
  end
end

local function put_options(name, set)
  put("---@class lunashard.%s", name)
  for _, option in ipairs(sorted.keys(set)) do
    put("---@field %s? %s", option, OPTION_TYPES[set[option]] or set[option])
  end
  put("")
end

local function template_type(field)
  if field.list_of then
    return "table[]"
  elseif field.list_of_strings then
    return "string[]"
  elseif field.map_of then
    return "table<string, lunashard.TableOptions>"
  elseif field.one_of then
    return '"' .. table.concat(field.one_of, '"|"') .. '"'
  end
  return (TYPES[field.type] or "any") .. (field.or_type and "|" .. TYPES[field.or_type] or "")
end

-- A template of lunashard.config.
local function put_template(name, template, types)
  put("---@class lunashard.%s", name)
  for _, option in ipairs(sorted.keys(template)) do
    local field = template[option]
    local default = field.default
    put("---@field %s%s %s%s", option, field.required and "" or "?", types[option] or template_type(field),
      default ~= nil and (" [%s]"):format(tostring(default)) or "")
  end
  put("")
end

local function templates()
  local config = require("lunashard.config")
  local manager, router = upvalue(config.manager, "MANAGER"), upvalue(config.router, "ROUTER")
  local shard = manager.shards.list_of
  put_template("ReplicaOptions", shard.replicas.list_of, {})
  put_template("ShardOptions", shard, { replicas = "lunashard.ReplicaOptions[]" })
  put_template("TableOptions", manager.tables.map_of, {})
  put("--- What a cluster file returns, and lunashard.manager takes.")
  put_template("ClusterOptions", manager, {
    shards = "lunashard.ShardOptions[]",
    strategy = "string|table|lunashard.Strategy",
    on_health = "fun(event: lunashard.Event)",
    choose_primary = "fun(candidates: table[], shard: lunashard.Shard): string|table|false|nil",
  })
  put_template("RouterOptions", router, { shard_manager = "lunashard.Manager" })
end

-- ---- functions ------------------------------------------------------------------------

local function without_links(text)
  return (text:gsub("@{([^}]*)}", "`%1`"))
end

local function one_line(text)
  return (without_links(text):gsub("%s+", " "):gsub("^ ", ""):gsub(" $", ""))
end

local function put_text(text)
  for line in (text .. "\n"):gmatch("(.-)\n") do
    put("--- %s", without_links(line))
  end
end

-- Ways to return as one: `---@return T? name` for each position.
local function put_returns(documented, gives)
  local positions = {}
  for _, way in pairs(documented.returns) do
    for i, value in ipairs(way) do
      positions[i] = positions[i] or { types = {}, seen = {}, text = "", count = 0 }
      local at = positions[i]
      local name = value.type == "table" and i == 1 and gives and "lunashard." .. gives or type_of(value.type)
      at.count = at.count + 1
      if name == "nil" then
        at.is_optional = true
      elseif not at.seen[name] then
        at.seen[name] = true
        table.insert(at.types, name)
      end
      at.text = at.text == "" and value.type ~= "nil" and one_line(value.text) or at.text
    end
  end
  local ways = 0
  for _ in pairs(documented.returns) do
    ways = ways + 1
  end
  for _, at in ipairs(positions) do
    table.sort(at.types)
    local optional = (at.is_optional or at.count < ways) and "|nil" or ""
    put("---@return %s%s%s", #at.types > 0 and table.concat(at.types, "|") or "nil", #at.types > 0 and optional or "",
      at.text ~= "" and " # " .. at.text or "")
  end
end

local classes_of_sets = {} -- a set of options -> the class that was written for it

-- The class of a function's table of options, written out if need be.
local function option_class(class, documented, argument, fn, written)
  local takes = class.takes and class.takes[documented.name]
  if takes and takes[argument] then
    return "lunashard." .. takes[argument]
  end
  local set = fn and options_of(fn)
  if not set then
    return nil
  elseif not classes_of_sets[set] then
    local words = (documented.name:gsub("^%l", string.upper):gsub("_(%l)", string.upper))
    classes_of_sets[set] = class.name:gsub("^%l", string.upper) .. words .. "Options"
    written[#written + 1] = { name = classes_of_sets[set], set = set }
  end
  return "lunashard." .. classes_of_sets[set]
end

local IS_OPTIONS = { opts = true, options = true, given = true }

local function describe(class, documented, fn, written)
  local made = { documented = documented, params = {} }
  for i, argument in ipairs(documented.arguments) do
    local param = documented.params[argument]
    if not param then
      error(("%s.%s: parameter %s is not documented"):format(class.name, documented.name, argument), 0)
    end
    local name = type_of(param.type)
    if name == "table" and IS_OPTIONS[argument] then
      name = option_class(class, documented, argument, fn, written) or name
    end
    made.params[i] = { name = argument, type = name, is_optional = param.is_optional, text = one_line(param.text) }
  end
  return made
end

local function put_function(made, holder, class)
  local documented = made.documented
  put_text(documented.text)
  local names = {}
  for i, param in ipairs(made.params) do
    names[i] = param.name
    put("---@param %s%s %s%s", param.name, param.is_optional and param.name ~= "..." and "?" or "", param.type,
      param.text ~= "" and " # " .. param.text or "")
  end
  put_returns(documented, class.gives and class.gives[documented.name])
  put("function %s%s%s(%s) end\n", holder, documented.is_method and ":" or ".", documented.name, table.concat(names, ", "))
end

-- The table that is called so in a module's file, by what the functions of the module know of it.
local function find_table(module, name, seen)
  seen = seen or {}
  for _, fn in pairs(module) do
    for i = 1, type(fn) == "function" and 255 or 0 do
      local found, value = debug.getupvalue(fn, i)
      if not found then
        break
      elseif found == name and type(value) == "table" then
        return value
      elseif type(value) == "function" and not seen[value] then
        seen[value] = true
        local inner = find_table({ value }, name, seen)
        if inner then
          return inner
        end
      end
    end
  end
end

local function functions_of(class)
  local list, written = {}, {}
  for _, holder in ipairs(class.holders or {}) do
    local module = require("lunashard." .. holder.file:gsub("/", "."))
    local is_methods = holder.name:sub(1, 1) == "%"
    local methods = is_methods and module.methods or find_table(module, holder.name)
    for _, documented in ipairs(ldoc.functions(path_of(holder.file))) do
      local is_ours = is_methods and documented.holder:find(holder.name) or documented.holder == holder.name
      if is_ours and not documented.is_internal and documented.name:sub(1, 2) ~= "__" then
        local fn = methods and methods[documented.name]
        list[#list + 1] = describe(class, documented, fn, written)
      end
    end
  end
  return list, written
end

local function put_class(class)
  local list, written = functions_of(class)
  for _, set in ipairs(written) do
    put_options(set.name, set.set)
  end
  if class.text then
    put_text(class.text)
  end
  put("---@class lunashard.%s", class.name)
  for _, field in ipairs(class.fields or {}) do
    put("---@field %s", field)
  end
  if class.name == "Aggregate" then
    put("---@overload fun(results: table[]): table|nil, lunashard.Error|nil")
  elseif class.name == "Stream" then
    put("---@overload fun(): table|nil, string|nil")
  end
  if class.holders then
    put("local %s = {}", class.name)
  end
  put("")
  for _, made in ipairs(list) do
    put_function(made, class.name, class)
  end
end

local function put_codes()
  local codes = {}
  for code in pairs(require("lunashard.errors").codes) do
    codes[#codes + 1] = '"' .. code .. '"'
  end
  table.sort(codes)
  put("---@alias lunashard.ErrorCode %s\n", table.concat(codes, "|"))
end

local function documented_in(module, name)
  for _, documented in ipairs(ldoc.functions(path_of(module))) do
    if documented.name == name and not documented.is_method then
      return documented
    end
  end
end

local function put_module(name)
  local class = { name = name, takes = {} }
  local module, written, list = require("lunashard." .. name), {}, {}
  for _, documented in ipairs(ldoc.functions(path_of(name))) do
    if documented.holder == name and not documented.is_internal then
      list[#list + 1] = describe(class, documented, rawget(module, documented.name), written)
    end
  end
  for _, set in ipairs(written) do
    put_options(set.name, set.set)
  end
  put("---@class lunashard.%s", name)
  local shipped = SHIPPED[name]
  if shipped then
    local names = {}
    for _, file in ipairs(system.listdir("lua/lunashard/" .. shipped.folder) or {}) do
      names[#names + 1] = file:match("^(.*)%.lua$")
    end
    table.sort(names)
    for _, one in ipairs(names) do
      put("---@field %s %s", one, shipped.signature)
    end
  elseif name == "errors" then
    put("---@field codes table<lunashard.ErrorCode, table>")
  end
  put("local %s = {}\n", name)
  for _, made in ipairs(list) do
    put_function(made, name, class)
  end
end

-- What `require("lunashard")` gives. Values and modules are fields, all else functions.
local TAKEN = { manager = { options = "ClusterOptions" }, router = { given = "RouterOptions" } }
local GIVEN = { null = "any SQL's NULL, where a Lua nil cannot stand" }

local function put_lunashard(exports)
  local lunashard = require("lunashard")
  local fields, list, written = {}, {}, {}
  for _, name in ipairs(sorted.keys(exports)) do
    local module, member = exports[name][1]:gsub("^lunashard%.", ""):gsub("%.", "/"), exports[name][2]
    if not member then
      fields[#fields + 1] = ("%s lunashard.%s"):format(name, name)
    elseif GIVEN[name] then
      fields[#fields + 1] = name .. " " .. GIVEN[name]
    else
      local documented = documented_in(module, member)
      if not documented then
        error(("lunashard.%s: %s of %s is not documented"):format(name, member, module), 0)
      end
      documented.name = name
      local class = { name = "", takes = { [name] = TAKEN[name] } }
      list[#list + 1] = describe(class, documented, lunashard[name], written)
    end
  end
  for _, set in ipairs(written) do
    put_options(set.name, set.set)
  end
  put("---@class lunashard")
  put("---@field version string")
  for _, field in ipairs(fields) do
    put("---@field %s", field)
  end
  put("local lunashard = {}\n")
  for _, made in ipairs(list) do
    put_function(made, "lunashard", {})
  end
end

local function put_head(name)
  put("---@meta %s", name)
  put("-- For editors: the API as the Lua language server reads it. Made by `make annotations`; do not edit it.\n")
end

local function main()
  put_head("lunashard")
  put_codes()
  templates()
  for _, class in ipairs(classes) do
    put_class(class)
  end
  local exports = upvalue(getmetatable(require("lunashard")).__index, "EXPORTS")
  for _, name in ipairs(sorted.keys(exports)) do
    if not exports[name][2] then
      put_module(name)
    end
  end
  put_lunashard(exports)
  put("--- What a plug-in finds under this name.")
  put("---@class lunashard.PluginLibrary")
  put("---@field hash fun(key: any, n: integer, key_type?: string|string[]): integer PostgreSQL's hash of a key, 0 to n - 1")
  put("---@type lunashard.PluginLibrary\n_G.lunashard = nil\n")
  put("--- What `lunashard run -c` and the cluster file set for scripts.")
  put("---@type lunashard.Cluster\ncluster = nil")
  put("---@type lunashard.Manager\nmanager = nil")
  put("---@type lunashard.Router\nrouter = nil\n")
  put("return lunashard")
end

local function testing()
  put_head("lunashard.testing")
  put_module("testing")
  put("return testing")
end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  return text
end

local is_current = true
for _, output in ipairs({ { "lua/lunashard.d.lua", main }, { "lua/lunashard.testing.d.lua", testing } }) do
  lines = {}
  output[2]()
  local path, made = output[1], table.concat(lines, "\n") .. "\n"
  if arg[1] ~= "--check" then
    assert(system.write_file(path, made, 420))
  elseif read(path) ~= made then
    io.stderr:write(path, " is not what the code and its comments say: run `make annotations`\n")
    is_current = false
  end
end
return is_current
