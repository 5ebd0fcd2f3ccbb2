--- From a file to what it returns: read, compile, run in an environment of its own, with the files that it requires.
-- `require "tiers"` finds `tiers.lua` beside the file, or else in the plug-in folder; `a.b` is `a/b.lua`. Each load has
-- its own instances of them, so that a version of a plug-in never changes, and they are found only while it loads.
-- @module lunashard.loader.compile

local budget = require("lunashard.plugin.budget")
local environment = require("lunashard.plugin.environment")
local errors = require("lunashard.errors")
local source = require("lunashard.plugin.source")
local system = require("lunashard.core.system")

local compile = {}

local MAX_FILES = 100 -- that one plug-in is made of
local MAX_BYTES = 4 * 1024 * 1024 -- of all of them

-- What is wrong, in words that need nothing more.
local function say(text)
  error(errors.new("PLUGIN_FAILED", { message = text, is_complete = true }), 0)
end

local function fail(text, ...)
  say(text:format(...))
end

-- A message that names its place; `problem` may begin with a line.
local function at(shown, problem)
  return shown .. (problem:find("^%d+: ") and ":" or ": ") .. problem
end

local function one_line(text)
  return (text:gsub("%s*[\r\n]+%s*", " "))
end

local Load = {}
Load.__index = Load

-- How a path is shown: from the plug-in folder on, with the folder's own name.
function Load:show(path)
  local root = self.how.root
  if root and path:sub(1, #root + 1) == root .. "/" then
    return (root:match("([^/]+)$") or root) .. path:sub(#root + 1)
  end
  return path
end

-- The text of a file, which is noted with what it held, or why it could not be read.
function Load:read(path)
  local text, problem, code = self.how.read(path)
  if self.files[path] == nil then
    self.files[path] = text or "\0" .. problem
    self.n_files, self.n_bytes = self.n_files + (text and 1 or 0), self.n_bytes + #(text or "")
    if self.n_files > MAX_FILES then
      fail("%s: is made of more than %d files", self.shown, MAX_FILES)
    elseif self.n_bytes > MAX_BYTES then
      fail("%s: is made of more than %d bytes", self.shown, MAX_BYTES)
    end
  end
  return text, problem, code
end

-- Is a file in the folder that require keeps to, whatever links lead there?
function Load:is_inside(path)
  local real, root = system.realpath(path), system.realpath(self.how.root)
  return real and root and real:sub(1, #root + 1) == root .. "/"
end

function Load:find(name, dir)
  if type(name) ~= "string" or not (name .. "."):find("^[%w_][%w_%-]*%.[%w_%-%.]*$") or name:find("..", 1, true) then
    fail("expected the name of a file of the plug-in folder, such as \"tiers\" or \"lib.tiers\", got %s",
      type(name) == "string" and ("%q"):format(name) or "a " .. type(name))
  end
  local relative = name:gsub("%.", "/") .. ".lua"
  for _, folder in ipairs({ dir, self.how.root }) do
    local path = folder .. "/" .. relative
    local text, problem, code = self:read(path)
    if text and not self:is_inside(path) then
      fail("%s: leads out of the plug-in folder", self:show(path))
    elseif text then
      return path, text
    elseif code ~= "ENOENT" and code ~= "ENOTDIR" then
      fail("%s", at(self:show(path), problem))
    end
  end
  fail("there is no file %s beside it or in the plug-in folder", relative)
end

-- What a plug-in's require does, called in a file of this directory.
function Load:require(name, dir)
  if self.finished then
    if self.by_name[dir .. "\0" .. tostring(name)] ~= nil then
      return self.by_name[dir .. "\0" .. name]
    end
    fail("require works while the plug-in loads, not later")
  end
  local path, text = self:find(name, dir)
  if self.running[path] then
    fail("%s requires itself%s", self:show(path), self.stack[#self.stack] == path and ""
      or ", by way of " .. self:show(self.stack[#self.stack]))
  elseif self.values[path] == nil then
    local value = self:run(path, text)
    self.values[path] = value == nil and true or value
  end
  self.by_name[dir .. "\0" .. name] = self.values[path]
  return self.values[path]
end

function Load:environment_for(dir)
  local env = self.environments[dir]
  if not env then
    local how = self.how
    env = environment.new({
      kind = how.kind,
      trusted = how.trusted,
      shown = self.shown,
      require = function(name)
        local ok, value = pcall(self.require, self, name, dir)
        if ok then
          return value
        elseif not errors.is(value) or not value.is_complete then
          error(value, 0)
        end
        -- By a tail call the caller's frame is gone: then the line is not known, but the file is.
        local shown, info = self:show(self.stack[#self.stack] or dir), debug.getinfo(2, "Sl")
        local line = info and info.source == "@" .. shown and ":" .. info.currentline or ""
        error(("%s%s: require: %s"):format(shown, line, value.message), 0)
      end,
    })
    self.environments[dir] = env
  end
  return env
end

function Load:run(path, text)
  local shown, env = self:show(path), self:environment_for(path:match("^(.*)/[^/]*$") or ".")
  -- A first line `#!...` becomes a comment, so that line numbers stay right.
  local chunk, problem = load((text:gsub("^#", "--#")), "@" .. shown, "t", env)
  if not chunk then
    say(problem)
  elseif not environment.is_open(self.how) then
    local ok, found = environment.check(chunk, env)
    if not ok then
      say(at(shown, found))
    end
  end
  if not self.how.trusted then
    budget.confine(chunk)
  end
  self.running[path] = true
  self.stack[#self.stack + 1] = path
  local value = chunk()
  self.running[path] = nil
  self.stack[#self.stack] = nil
  return value
end

local function protected(self, path)
  local text, problem = self:read(path)
  if not text then
    fail("%s", at(self.shown, problem))
  end
  self.text = text
  return self:run(path, text)
end

-- One line for what was raised, with the file that it happened in.
local function describe(self, err)
  if errors.is(err) and err.is_complete then
    return one_line(err.message)
  end
  local text = one_line(tostring(err))
  local root = self.how.root and self.how.root:match("([^/]+)$")
  if text:sub(1, #self.shown) == self.shown or root and text:sub(1, #root + 1) == root .. "/" or text:find("^%.%.%.") then
    return text
  end
  return ("%s: %s"):format(self.shown, text)
end

--- Read, compile and run a file.
-- @string path
-- @tparam table how `root`: the plug-in folder, which `require` keeps to; `kind`: what may be seen there (see
--   `lunashard.plugin.environment`); `trusted`: without limits; `time`, `memory`: these, see `lunashard.plugin.budget`;
--   `read`: in place of `source.read`
-- @treturn[1] table `value`, `text`, `shown`, `files`
-- @treturn[2] nil
-- @treturn[2] string what is wrong: one line with file and line
-- @treturn[2] table `files`: path -> what it held, of all that were read or looked for
function compile.run(path, how)
  local self = setmetatable({
    how = { root = how.root or path:match("^(.*)/[^/]*$") or ".", kind = how.kind, trusted = how.trusted,
      read = how.read or source.read },
    files = {}, -- path -> text, or "\0" and why there is none
    n_files = 0,
    n_bytes = 0,
    values = {}, -- what the required files returned, by path
    by_name = {}, -- the same by directory and name, for when all has loaded
    environments = {}, -- by directory, for that is where their require looks first
    running = {},
    stack = {},
  }, Load)
  self.shown = how.shown or self:show(path)
  local ok, value
  if how.trusted then
    ok, value = pcall(protected, self, path)
  else
    ok, value = budget.call(self.shown, how, protected, self, path)
    if not ok then
      local cause = value.cause
      value = errors.is(cause) and cause.is_complete and cause or value.message:sub(#self.shown + #": " + 1)
    end
  end
  self.finished = true
  if not ok then
    return nil, describe(self, value), self.files
  end
  return { value = value, text = self.text, shown = self.shown, files = self.files }
end

return compile
