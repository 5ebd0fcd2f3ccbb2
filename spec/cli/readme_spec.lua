local cli = require("spec.support.cli")
local process = require("lunashard.process")
local registry = require("lunashard.plugin.registry")
local sandbox = require("spec.support.sandbox")
local system = require("lunashard.core.system")

local TIMEOUT = 60
local dir

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- The fenced blocks of a chapter: `language`, `text`, and of a file its `path`, which the first line says.
local function blocks(chapter)
  local text = assert(read("README.md"):match("\n## " .. chapter .. "\n(.-)\n## "), "there is no such chapter")
  local list = {}
  for language, content in text:gmatch("\n```(%l+)\n(.-)\n```") do
    list[#list + 1] = { language = language, text = content, path = content:match("^%-%- ([%w_/]+%.lua)\n") }
  end
  return list
end

local function quoted(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- A shell script that runs the commands of a block and waits for what is said to come of each. `...` is anything.
local function script_of(text)
  local lines = {}
  for line in text:gmatch("[^\n]+") do
    local command = line:match("^%$ (.*)$")
    if command then
      lines[#lines + 1] = ("echo %s"):format(quoted("$ " .. command))
      lines[#lines + 1] = command
    else
      local parts = {}
      for part in (line .. "..."):gmatch("(.-)%.%.%.") do
        parts[#parts + 1] = part ~= "" and quoted(part) or nil
      end
      lines[#lines + 1] = "see " .. table.concat(parts, " ")
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

local HEAD = [[
PATH=%s:$PATH
exec >log 2>&1
trap 'kill $! 2>/dev/null; lunashard sandbox destroy --name tour >/dev/null 2>&1' EXIT
see() {
  for part; do
    n=0
    until grep -qF -e "$part" log; do
      n=$((n + 1))
      [ $n -le 400 ] || { echo "README promises: $part"; exit 1; }
      sleep 0.05
    done
  done
}
]]

local function run(script, env)
  local path = cli.write(dir, "script.sh", HEAD:format(quoted(cli.binary:match("^(.*)/"))) .. script)
  local result = assert(process.run({ argv = { "/bin/sh", path }, cwd = dir, timeout = TIMEOUT, env = env }))
  return result.code, read(dir .. "/log")
end

local function without_comments(text)
  return (("\n" .. text):gsub("\n%s*%-%-[^\n]*", ""):gsub("\n%s*\n", "\n"):gsub("^\n+", ""):gsub("\n+$", ""))
end

describe("README", function()
  before_each(function()
    dir = cli.directory(493)
  end)

  after_each(cli.remove_all)
  teardown(sandbox.release)

  it("tells how to write a routing script, with commands that do what it says", function()
    local script, specs = {}, {}
    for _, block in ipairs(blocks("Write a routing script")) do
      if block.language == "console" then
        script[#script + 1] = script_of(block.text)
      elseif block.path and block.path:find("^plugins/") then
        script[#script + 1] = ("cp %s shown.lua\n"):format(block.path)
        specs.plugin = block.text
      elseif block.path and block.path:find("^spec/") then
        specs.rows = block
      elseif block.path then
        script[#script + 1] = ("cat >%s <<'END'\n%s\nEND\n"):format(block.path, block.text)
      end
    end
    assert.equal(5, #script) -- two times commands, and three files
    local code, log = run(table.concat(script), { LUNASHARD_CLUSTER = false, TMPDIR = dir })
    assert.equal(0, code, log)
    assert.equal(without_comments(specs.plugin), without_comments(read(dir .. "/shown.lua")))

    cli.write(dir, specs.rows.path, specs.rows.text .. "\n")
    local shared = sandbox.shared().dir
    code, log = run("lunashard test " .. specs.rows.path .. "\n", { LUNASHARD_TEST_SANDBOX = shared })
    assert.equal(0, code, log)
    assert.matches("1 successes / 0 failures / 0 errors / 0 pending", log, 1, true)
  end)

  it("names every command, and none that there is not", function()
    local listed = {}
    for name in assert(read("README.md"):match("\n## The command line\n(.-)\n## ")):gmatch("\n    lunashard (%l+)") do
      listed[name] = true
    end
    for name in cli.run({ "--help" }).stdout:match("\nCommands:(\n.-)\n\n"):gmatch("\n  (%l+) ") do
      assert.is_true(listed[name] == true, name .. " is missing")
      listed[name] = nil
    end
    assert.same({}, listed)
  end)

  it("lists the functions of every kind of plug-in", function()
    local text = read("README.md"):match("\n### What a plug%-in is\n(.-)\n##")
    for kind, template in pairs(require("lunashard.plugin.contract").templates) do
      local row = assert(text:match("\n| `" .. kind .. "` |([^\n]*)"), kind)
      for name, field in pairs(template.fields) do
        local is_mentioned = row:find("`" .. name .. "[( ]") or row:find(" " .. name .. "%(")
        assert(field.built_in or field.type ~= "function" or is_mentioned or name == "types",
          ("%s: %s is not mentioned"):format(kind, name))
      end
    end
    assert(system.stat("lua/lunashard.d.lua"))
  end)

  it("names every aggregate, extractor and policy in the page of the API, and every strategy in its table", function()
    local page = read("README.md"):match("\n## The API in one page\n(.-)\n### ")
    for _, kind in ipairs({ "aggregate", "extractor", "policy" }) do
      local line = assert(page:match("lunashard%." .. kind .. "%.[^\n]*"), kind)
      for _, name in ipairs(registry.names(kind)) do
        assert(line:find("%f[%w_]" .. name .. "%f[^%w_]"), ("%s %s is not named"):format(kind, name))
      end
    end
    local strategies = read("README.md"):match("\n## Which strategy\n(.-)\n## ")
    for _, name in ipairs(registry.names("strategy")) do
      assert(strategies:find("%f[%w_]" .. name .. "%f[^%w_]"), ("strategy %s is not named"):format(name))
    end
  end)
end)
