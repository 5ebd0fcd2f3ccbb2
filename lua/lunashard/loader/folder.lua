--- Which files of a plug-in folder may be plug-ins.
-- Those in `strategies`, `aggregates`, `extractors` and `policies`, and those beside these sub-folders, which may be of
-- any kind. What editors leave behind, hidden files and specs are none.
-- @module lunashard.loader.folder

local system = require("lunashard.core.system")

local folder = {}

local MAX_FILES = 1000

local KIND_OF = { strategies = "strategy", aggregates = "aggregate", extractors = "extractor", policies = "policy" }

--- Could a file of this name be a plug-in?
-- @string name without directories
-- @treturn boolean
function folder.is_candidate(name)
  return name:find("^[%w_][%w_%-]*%.lua$") ~= nil and not name:find("_spec%.lua$")
end

--- The kind of plug-in that a file of the folder is to be.
-- @string path
-- @treturn ?string
function folder.kind_of(path)
  return KIND_OF[path:match("([^/]+)/[^/]+$")]
end

local function add(list, dir, kind)
  local names, why, code = system.listdir(dir)
  if not names then
    return code == "ENOENT" or code == "ENOTDIR", why
  end
  table.sort(names)
  for _, name in ipairs(names) do
    if folder.is_candidate(name) then
      list[#list + 1] = { path = dir .. "/" .. name, kind = kind }
    end
  end
  return true
end

--- The candidates, in a fixed order.
-- @string root
-- @treturn[1] {table,...} each `path`, and `kind` where the sub-folder says it
-- @treturn[2] nil
-- @treturn[2] string why the folder cannot be read
function folder.list(root)
  local real, why = system.realpath(root)
  local info = real and system.stat(real)
  if not info then
    return nil, ("%s: %s"):format(root, (tostring(why):gsub("^.*: ", "")))
  elseif info.type ~= "directory" then
    return nil, root .. ": is no folder"
  end
  local list = {}
  for _, dir in ipairs({ "strategies", "aggregates", "extractors", "policies", "" }) do
    local ok, problem = add(list, dir == "" and root or root .. "/" .. dir, KIND_OF[dir])
    if not ok then
      return nil, problem
    end
  end
  if #list > MAX_FILES then
    return nil, ("%s: has %d files, more than the %d that are looked at"):format(root, #list, MAX_FILES)
  end
  return list
end

--- The directories to be watched.
-- @string root
-- @treturn {string,...} the folder and its sub-folders, whether they exist or not
function folder.directories(root)
  return { root, root .. "/strategies", root .. "/aggregates", root .. "/extractors", root .. "/policies" }
end

return folder
