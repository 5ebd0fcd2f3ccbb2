local cluster = require("spec.support.cluster")
local contract = require("lunashard.plugin.contract")

local function read(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- The fields of a class: name -> is it always there?
local function fields_of(class)
  local block = assert(read("lua/lunashard.d.lua"):match("\n%-%-%-@class lunashard%." .. class .. "\n(.-)\n\n"), class)
  local fields = {}
  for name, mark in block:gmatch("%-%-%-@field ([%w_]+)(%??) ") do
    fields[name] = mark == ""
  end
  return fields
end

-- A table has the fields of a class, and no others.
local function check(class, value)
  local fields = fields_of(class)
  for name in pairs(value) do
    assert(fields[name] ~= nil, ("%s has %s, of which the annotations know nothing"):format(class, tostring(name)))
  end
  for name, is_certain in pairs(fields) do
    assert(not is_certain or value[name] ~= nil, ("%s has no %s, as the annotations promise"):format(class, name))
  end
end

describe("the annotations for the language server", function()
  local router, manager

  setup(function()
    router, manager = cluster.connect({ tables = { annotated = { shard_key = "user_id", type = "int8" } } })
    assert(router:execute_on_all_shards("DROP TABLE IF EXISTS annotated; CREATE TABLE annotated (user_id int8)"))
  end)

  teardown(function()
    assert(router:execute_on_all_shards("DROP TABLE annotated"))
    cluster.release()
  end)

  it("tell what statements give", function()
    check("Result", assert(router:execute("SELECT 1 AS n", nil, { routing_key = 1 })))
    check("Result", assert(router:scatter_gather("SELECT 1 AS n")))
    local split = assert(router:execute("INSERT INTO annotated (user_id) VALUES (1), (2), (3), (4), (5), (6)"))
    assert.truthy(split.split)
    check("Result", split)
    check("Result", assert(router:execute("SELECT * FROM annotated WHERE user_id IN (1, 2, 3)")))
    check("Result", assert(router:execute("SELECT count(*) FROM annotated")))
    check("BroadcastResult", assert(router:execute_on_all_shards("SELECT 1")))
  end)

  it("tell what explain gives", function()
    for _, sql in ipairs({ "SELECT * FROM annotated WHERE user_id = 1", "SELECT count(*) FROM annotated",
      "INSERT INTO annotated (user_id) VALUES (1), (2), (3)" }) do
      check("Plan", assert(router:explain(sql)))
    end
    check("Plan", assert(router:explain(nil, nil, { routing_key = 1 })))
  end)

  it("tell what errors are made of", function()
    local _, err = router:execute("SELECT 1 +", nil, { routing_key = 1 })
    check("Error", err)
    _, err = router:scatter_gather("SELECT nothing")
    check("Error", err)
    check("Failure", err.failed[1])
  end)

  it("tell what a shard is described by, and the cluster's state", function()
    check("Shard", manager:get_shard_for_write(1))
    check("ClusterStatus", manager:get_cluster_status())
  end)

  it("have every field of a plug-in's contract, and no other", function()
    for kind, template in pairs(contract.templates) do
      local fields = fields_of(kind:gsub("^%l", string.upper) .. "Plugin")
      for name, field in pairs(template.fields) do
        assert(field.built_in or fields[name] ~= nil, ("%s: %s is missing"):format(kind, name))
      end
      for name in pairs(fields) do
        assert(template.fields[name] or name == "api" or name == "kind" or name == "name", ("%s: %s"):format(kind, name))
      end
    end
  end)
end)
