local cli = require("spec.support.cli")
local sandbox = require("spec.support.sandbox")
local scripts = require("spec.support.scripts")
local system = require("lunashard.core.system")

describe("scripts/README.md", function()
  local text
  local helps = {}

  local function help_of(name)
    if not helps[name] then
      local result = cli.run({ "run", "scripts/" .. name .. ".lua", "--help" })
      assert.equal(0, result.code, result.stderr)
      helps[name] = result.stdout
    end
    return helps[name]
  end

  setup(function()
    local file = assert(io.open("scripts/README.md"))
    text = file:read("*a")
    file:close()
  end)

  teardown(scripts.release)

  it("lists every script, which can be run by its name, and tells of an example and of what it changes", function()
    local listed = {}
    for name, _, writes in text:match("\n| script |.-\n\n"):gmatch("\n| `([%w_]+)` | ([^|]+) | ([^|]*)|") do
      listed[name] = { writes = writes:find("%a") ~= nil and writes or false }
    end
    for _, file in ipairs(assert(system.listdir("scripts"))) do
      local name = file:match("^([%w_]+)%.lua$")
      if name then
        assert(listed[name], name .. " is not listed")
        assert.equal(73, require("bit").band(system.stat("scripts/" .. file).mode, 73), name .. " is not executable") -- 0111
        local help = help_of(name)
        assert.matches("\nExample:\n  lunashard run %-c cluster%.lua scripts/" .. name .. "%.lua", help)
        assert.equal(listed[name].writes ~= false, help:find("--dry-run", 1, true) ~= nil, name)
        listed[name] = nil
      end
    end
    assert.same({}, listed)
  end)

  it("names in its runbook only scripts, options and commands that there are", function()
    for name, rest in text:gmatch("`([%w_]+)%.lua([^`]*)`") do
      assert(system.stat("scripts/" .. name .. ".lua") or name == "rows", name)
      for option in rest:gmatch("%-%-[%w-]+") do
        assert(help_of(name):find(option, 1, true), ("%s has no %s"):format(name, option))
      end
    end
    local commands = cli.run({ "--help" }).stdout
    for name in text:gmatch("`lunashard (%l+)[^`]*`") do
      assert(commands:find("\n  " .. name .. " ", 1, true), name)
    end
  end)

  it("has an example of one's own that runs as it stands", function()
    local own = cli.write(cli.directory(), "rows.lua", assert(text:match("\n```lua\n(%-%- rows%.lua\n.-)\n```")))
    local router = scripts.connect()
    assert(router:execute_on_all_shards("CREATE TABLE IF NOT EXISTS ops_rows AS SELECT 1 AS user_id"))
    local result = scripts.run(own, { "ops_rows", "--json" })
    local misspelt = scripts.run(own, { "ops_row" })
    assert(router:execute_on_all_shards("DROP TABLE ops_rows"))
    assert.equal(0, result.code, result.stderr)
    assert.same({ 3, 1 }, { #result.json.result.rows, result.json.result.rows[1].rows })
    assert.equal(2, misspelt.code)
    assert.matches("did you mean ops_rows", misspelt.stderr)
    assert(sandbox.shared())
  end)
end)
