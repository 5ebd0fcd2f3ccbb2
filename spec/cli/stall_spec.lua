local cli = require("spec.support.cli")

local function run(text)
  return cli.run({ "run", cli.write(cli.directory(), "script.lua", text) })
end

local HOGS = [[
  local lunashard = require("lunashard")
  local function burn(seconds)
    local ends = lunashard.now() + seconds
    while lunashard.now() < ends do
    end
  end
  local neighbour = lunashard.spawn(function() lunashard.sleep(60) end)
  for _ = 1, 3 do
    burn(0.15)
    lunashard.sleep(0)
  end
  neighbour:cancel()
  print(lunashard.stats().stalls)
]]

describe("a script that does not let others run", function()
  teardown(cli.remove_all)

  it("is told of on stderr, in one line for many times", function()
    local result = run(HOGS)
    assert.equal(0, result.code, result.stderr)
    assert.is_true(tonumber(result.stdout) >= 3)
    local _, lines = result.all_stderr:gsub("everything stood still", "")
    assert.equal(1, lines, result.all_stderr)
    assert.is_truthy(result.all_stderr:find("lunashard: everything stood still for %d+ ms: the main task, up to a wait at "
      .. "[^\n]+:%d+, %d+ ms\n"), result.all_stderr)
  end)

  it("is left in peace when there are no others", function()
    local result = run((HOGS:gsub("local neighbour[^\n]+\n", ""):gsub("neighbour:cancel%(%)", "")))
    assert.equal(0, result.code, result.all_stderr)
    assert.is_true(tonumber(result.stdout) >= 3)
    assert.is_nil(result.all_stderr:find("stood still", 1, true))
  end)
end)
