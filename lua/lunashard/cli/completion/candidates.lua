--- What may stand where a command line is being typed. Looks at the cluster file that the line names, and connects nowhere.
-- @module lunashard.cli.completion.candidates
-- @local

local cluster_file = require("lunashard.cluster")
local sandbox = require("lunashard.sandbox")
local tree = require("lunashard.cli.tree")

local candidates = {}

--- What stands for names of files.
candidates.FILES = ":files"

-- What an option's value is, where the option does not say it itself.
local OPTIONS = {
  ["--against"] = "file", ["--attach"] = "file", ["--canary"] = "shard", ["--cluster"] = "file", ["--dir"] = "file",
  ["--drain"] = "shard", ["--even"] = "measure", ["--http-auth"] = "file", ["--keys"] = "file", ["--moves"] = "file",
  ["--shard"] = "shard", ["--socket"] = "file", ["--table"] = "table", ["--to"] = "shard",
}

-- What an argument is, by its command; and what follows those that are declared.
local ARGUMENTS = {
  ["check file"] = "file", ["help words"] = "command", ["new kind"] = "kind", ["run script"] = "file", ["run"] = "file",
  ["sandbox demote server"] = "server", ["sandbox kill server"] = "server", ["sandbox promote server"] = "server",
  ["sandbox rejoin server"] = "server", ["schema apply file"] = "file", ["schema diff --against"] = "shard", ["test"] = "file",
}

local ROLES = { measure = { "rows", "bytes", "buckets" }, kind = { "strategy", "aggregate", "extractor", "policy",
  "planner" } }

local roles = {}

-- As the shell has it: with quotes and backslashes.
local function unquoted(word)
  return (word:gsub("[\"'\\]", ""):gsub("^~/", (os.getenv("HOME") or "~") .. "/"))
end

local function cluster(line)
  local path = line.values["--cluster"] or os.getenv("LUNASHARD_CLUSTER")
  local given = path and path ~= "" and cluster_file.load(unquoted(path))
  return given or {}
end

function roles.shard(line, add)
  for _, shard in ipairs(cluster(line).shards or {}) do
    if type(shard) == "table" and type(shard.shard_id) == "string" then
      add(shard.shard_id, ("%s:%s"):format(tostring(shard.host or "localhost"), tostring(shard.port or 5432)))
    end
  end
end

roles["table"] = function(line, add)
  for name, options in pairs(cluster(line).tables or {}) do
    if type(name) == "string" and type(options) == "table" then
      local key = type(options.shard_key) == "table" and table.concat(options.shard_key, ", ") or options.shard_key
      add(name, options.reference and "a reference table" or key and "by " .. tostring(key) or "a table")
    end
  end
end

function roles.server(line, add)
  local status = sandbox.status({ name = line.values["--name"], dir = line.values["--dir"] })
  for _, server in ipairs(status and status.servers or {}) do
    add(server.name, server.role)
  end
end

local function command_of(parser, word)
  for _, command in ipairs(parser._commands) do
    if command._name == word then
      return command
    end
  end
end

function roles.command(line, add)
  local parser = tree.root()
  for _, word in ipairs(line.arguments) do
    parser = command_of(parser, word) or { _commands = {} }
  end
  for _, command in ipairs(parser._commands) do
    add(command._name, command._description)
  end
end

-- ---- the line ------------------------------------------------------------------------------

local function option_of(parser, word)
  for _, option in ipairs(parser._options) do
    for _, alias in ipairs(option._aliases) do
      if alias == word then
        return option
      end
    end
  end
end

local function long_name(option)
  for _, alias in ipairs(option._aliases) do
    if alias:sub(1, 2) == "--" then
      return alias
    end
  end
end

local function takes_value(option)
  return option ~= nil and option._maxargs > 0
end

-- Read all words but the last, which is being typed.
local function read(words)
  local line = { parser = tree.root(), names = {}, arguments = {}, values = {} }
  for i = 1, #words - 1 do
    local word = words[i]
    local name, value = word:match("^(%-%-[%w-]+)=(.*)$")
    local option = option_of(line.parser, name or word)
    local is_value = word ~= "=" and line.wanted
    if is_value then
      line.values[long_name(line.wanted)] = word
      line.wanted = nil
    elseif name and option then
      line.values[long_name(option)] = value
    elseif takes_value(option) then
      line.wanted = option
    elseif word ~= "=" and word:sub(1, 1) ~= "-" then
      local command = command_of(line.parser, word)
      if command then
        line.parser, line.names[#line.names + 1] = command, word
      else
        table.insert(line.arguments, word)
      end
    end
  end
  return line
end

-- The next argument, which the last of several is over and over.
local function next_argument(line)
  local n = #line.arguments
  for _, argument in ipairs(line.parser._arguments) do
    n = n - argument._maxargs
    if n < 0 then
      return argument
    end
  end
end

local function add_role(line, role, choices, add)
  for _, choice in ipairs(choices or ROLES[role] or {}) do
    add(choice)
  end
  if role == "file" then
    add(candidates.FILES)
  elseif roles[role] then
    roles[role](line, add)
  end
end

local function add_values(line, option, add)
  local name = long_name(option)
  local role = ARGUMENTS[table.concat(line.names, " ") .. " " .. name] or OPTIONS[name]
  add_role(line, role, option._choices, add)
end

local function add_options(line, add)
  for _, option in ipairs(line.parser._options) do
    add(long_name(option) or option._aliases[1], option._description)
  end
end

local function add_words(line, add)
  local own = table.concat(line.names, " ")
  for _, command in ipairs(line.parser._commands) do
    add(command._name, command._description)
  end
  local argument = next_argument(line)
  if argument then
    add_role(line, ARGUMENTS[own .. " " .. argument._name], argument._choices, add)
  elseif ARGUMENTS[own] then
    add_role(line, ARGUMENTS[own], nil, add)
  elseif #line.parser._commands == 0 then
    add_options(line, add)
  end
end

--- What may stand at the end of a line.
-- @tparam {string,...} words without the program; the last one is being typed, and may be empty
-- @treturn {table,...} each a word and what it means; sorted
function candidates.of(words)
  local line = read(words)
  local word = words[#words] or ""
  local found, seen = {}, {}
  local before = ""
  local function add(text, meaning)
    if text == candidates.FILES or text:sub(1, #word) == word and not seen[text] then
      seen[text] = true
      found[#found + 1] = { text == candidates.FILES and text or before .. text,
        meaning and meaning:gsub("[;\n].*", ""):gsub("%s+", " ") or nil }
    end
  end
  local name, value = word:match("^(%-%-[%w-]+)=(.*)$")
  local option = name and option_of(line.parser, name)
  if line.wanted then
    word = word == "=" and "" or word
    add_values(line, line.wanted, add)
  elseif takes_value(option) then
    word, before = value, name .. "="
    add_values(line, option, add)
  elseif word:sub(1, 1) == "-" then
    add_options(line, add)
  else
    add_words(line, add)
  end
  table.sort(found, function(a, b)
    return a[1] < b[1]
  end)
  return found
end

return candidates
