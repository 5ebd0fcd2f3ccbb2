--- `lunashard new KIND NAME`: a commented plug-in that works, and a spec for it that passes.
-- stdout is data: the paths of the files, or JSON.
-- @module lunashard.cli.new

local cjson = require("cjson.safe")
local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

local command = {}

command.examples = {
  "lunashard new strategy tenant_tier",
  "lunashard new aggregate median --dir plugins",
  "lunashard new planner by_contract",
}

local KINDS = { "strategy", "aggregate", "extractor", "policy", "planner" }
local FOLDERS = { strategy = "strategies", aggregate = "aggregates", extractor = "extractors", policy = "policies",
  planner = "policies" }

local EVERYBODY_READS, EVERYBODY_ENTERS = 420, 493 -- 0644, 0755

-- Names of the language: they are no field after a dot.
local RESERVED = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat return then true "
  .. "until while"):gmatch("%l+") do
  RESERVED[word] = true
end

local function kind_of(text)
  if FOLDERS[text] then
    return text
  end
  local near = errors.nearest(text, KINDS)
  return nil, ("there is no kind of plug-in %q%s"):format(text, near and ("; did you mean %q?"):format(near)
    or "; kinds are: " .. table.concat(KINDS, ", "))
end

local function name_of(text)
  if not text:find("^[%a_][%w_]*$") or RESERVED[text] then
    return nil, ("%q cannot be a plug-in's name: letters, digits and _, beginning with a letter"):format(text)
  end
  return text
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("kind", "strategy, aggregate, extractor, policy, or planner: a policy that says which rows move where")
    :convert(kind_of)
  parser:argument("name", "what it is called in scripts and cluster files, such as tenant_tier"):convert(name_of)
  parser:option("--dir", "the folder of the plug-ins; the spec goes into the folder spec beside it", "plugins")
  parser:flag("--json", "JSON on stdout, also on failure")
end

local function is_shipped(kind, name)
  return (pcall(require, ("lunashard.%s.%s"):format(FOLDERS[kind], name)))
end

-- All folders of a path that are not there yet.
local function make_folder(path)
  if path == "" or system.stat(path) then
    return true
  end
  local parent = path:match("^(.*)/[^/]*$")
  if parent then
    local ok, reason = make_folder(parent)
    if not ok then
      return nil, reason
    end
  end
  local ok, reason = system.mkdir(path, EVERYBODY_ENTERS)
  return ok, ok and reason or ("%s: %s"):format(path, reason)
end

local function write(path, text)
  local ok, reason = make_folder(path:match("^(.*)/") or "")
  if not ok then
    return nil, reason
  end
  ok, reason = system.write_file(path, text, EVERYBODY_READS)
  return ok, not ok and ("%s: %s"):format(path, reason) or nil
end

-- Where plug-in and spec go.
local function places(args)
  local dir = #args.dir > 1 and args.dir:gsub("/+$", "") or args.dir
  local beside = dir:match("^(.*/)[^/]*$") or ""
  local path = ("%s/%s/%s.lua"):format(dir, FOLDERS[args.kind], args.name)
  return path, ("%sspec/%s_%s_spec.lua"):format(beside, args.name, args.kind)
end

local function create(args)
  if is_shipped(args.kind, args.name) then
    return nil, ("%s %q is a shipped one: choose another name"):format(args.kind, args.name)
  end
  local path, spec_path = places(args)
  for _, existing in ipairs({ path, spec_path }) do
    if system.stat(existing) then
      return nil, existing .. " exists already"
    end
  end
  local template = require("lunashard.cli.new." .. args.kind)
  local values = { NAME = args.name, PATH = ("%q"):format(path) }
  local ok, reason = write(path, (template.plugin:gsub("%$(%u+)", values)))
  if ok then
    ok, reason = write(spec_path, (template.spec:gsub("%$(%u+)", values)))
    if not ok then
      system.unlink(path)
    end
  end
  if not ok then
    return nil, reason
  end
  return { plugin = path, spec = spec_path }
end

--- Run it.
-- @tparam table args
-- @treturn number exit code: 1 when a file exists already or cannot be written, and nothing was changed then
function command.run(args)
  local made, problem = create(args)
  if not made then
    cli.say("new: %s", problem)
    if args.json then
      io.stdout:write(cjson.encode({ error = { code = "INVALID", message = problem } }), "\n")
    end
    return cli.exit.failed
  elseif args.json then
    io.stdout:write(cjson.encode(made), "\n")
    return cli.exit.ok
  end
  io.stdout:write(made.plugin, "\n", made.spec, "\n")
  cli.say("next: edit it, then\n  %s check %s\n  %s test %s", cli.program(), made.plugin, cli.program(), made.spec)
  return cli.exit.ok
end

return command
