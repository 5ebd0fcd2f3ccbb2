local mutant = require("spec.mutations.mutant")
local mutations = require("spec.mutations.list")
local runs = require("spec.mutations.runs")
local verdict = require("spec.chaos.verdict")

describe("the list of mutations", function()
  it("fits the code as it is", function()
    for _, mutation in ipairs(mutations) do
      for path, text in pairs(mutant.texts(mutation)) do
        assert(not path:find("%.lua$") or loadstring(text, "@" .. path))
      end
    end
  end)

  it("names runs and columns that there are", function()
    local names, columns = {}, { refused = true }
    for _, column in ipairs(verdict.COLUMNS) do
      columns[column] = true
    end
    for _, mutation in ipairs(mutations) do
      assert.is_nil(names[mutation.name])
      names[mutation.name] = true
      assert.is_function(runs[mutation.run])
      assert.is_true(#mutation.red > 0)
      for _, column in ipairs(mutation.red) do
        assert.is_true(columns[column], column)
      end
    end
  end)

  it("refuses a patch whose place is gone, or not the only one", function()
    local file = "spec/mutations/list.lua"
    for from, message in pairs({ ["no such" .. " text"] = "is not there", ["local "] = "is there more than once" }) do
      local ok, err = pcall(mutant.texts, { name = "m", patches = { { file = file, from = from, to = "" } } })
      assert.is_false(ok)
      assert.is_truthy(err:find(message, 1, true))
    end
  end)
end)
