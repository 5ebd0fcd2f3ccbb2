local cli = require("spec.support.cli")
local plugins = require("spec.support.plugins")

-- Places by the order in which `pairs` finds the names of its tiers, as an honest author may write it.
local STRATEGY = [[
local weights = { bronze = 1, silver = 2, gold = 3, platinum = 4, diamond = 5, ruby = 6, opal = 7 }
return {
  api = 1, kind = "strategy", name = "tiers",
  new = function(options, shards)
    local names = {}
    for name in pairs(weights) do
      names[#names + 1] = name
    end
    return names
  end,
  bucket = function(state, key)
    return state[lunashard.hash(key, #state) + 1]
  end,
  place = function(state, bucket, shards)
    return shards[weights[bucket] % #shards + 1].shard_id
  end,
}
]]

local SCRIPT = [[
  local lunashard = require("lunashard")
  local shards = {}
  for i = 1, 5 do
    shards[i] = { shard_id = "s" .. i, host = "h", database = "d" }
  end
  local manager = lunashard.manager { shards = shards, plugins = "plugins",
    strategy = { "tiers", shard_key = "id", key_type = "int8" } }
  for key = 1, 40 do
    io.write(manager:get_shard_for_write(key).shard_id, " ")
  end
]]

describe("a strategy of the user's", function()
  after_each(function()
    plugins.clean()
  end)

  it("places keys alike in every process, also when it goes through tables", function()
    local folder = plugins.folder({ ["strategies/tiers.lua"] = STRATEGY })
    cli.write(folder.dir, "script.lua", SCRIPT)
    local first
    for _ = 1, 4 do
      local result = cli.run({ "run", "script.lua" }, { cwd = folder.dir })
      assert.equal(0, result.code, result.stderr)
      first = first or result.stdout
      assert.equal(first, result.stdout)
    end
    assert.is_true(#first > 100)
  end)
end)
