local budget = require("lunashard.plugin.budget")
local registry = require("lunashard.plugin.registry")
local selftest = require("lunashard.plugin.selftest")

-- The sum and the number of a column's values.
local function define(fields)
  local contract = {
    api = 1,
    kind = "aggregate",
    name = "selftest_spec",
    init = function() return { sum = 0, n = 0 } end,
    step = function(acc, row)
      acc.sum, acc.n = acc.sum + row.price, acc.n + 1
      return acc
    end,
    merge = function(a, b) return { sum = a.sum + b.sum, n = a.n + b.n } end,
    finish = function(acc) return { sum = acc.sum, n = acc.n } end,
  }
  for name, value in pairs(fields or {}) do
    contract[name] = value or nil
  end
  return contract
end

local function refused(text, fields)
  local ok, message = selftest.aggregate(define(fields))
  assert.is_nil(ok)
  assert.is_truthy(message:find(text, 1, true), message)
  assert.is_nil(message:find("\n"))
end

describe("the self-test of an aggregate", function()
  it("passes one whose result does not depend on how rows are dealt out", function()
    local ok, note = selftest.aggregate(define())
    assert.is_true(ok)
    assert.is_nil(note)
  end)

  it("passes each of ours, so far as it can be tried", function()
    for _, name in ipairs(registry.names("aggregate")) do
      local ok, message = selftest.aggregate(registry.get("aggregate", name).contract)
      assert.is_true(ok, name .. ": " .. tostring(message))
    end
  end)

  it("refuses functions that return nothing, or no rows", function()
    refused("step must return the accumulator, not nothing", { step = function(acc, row) acc.n = row.n end })
    refused("init must return an accumulator", { init = function() end })
    refused("merge must return the accumulator", { merge = function() end })
    refused("finish must return a row or a list of rows, not a number", { finish = function(acc) return acc.n end })
    refused("aggregate must return a row or a list of rows, not a number", { init = false, step = false, merge = false,
      finish = false, aggregate = function(_, results) return #results end })
  end)

  it("refuses a mean of means", function()
    refused("another result than taking them one by one", {
      merge = function(a, b) return { sum = (a.sum + b.sum) / 2, n = a.n + b.n } end,
    })
  end)

  it("refuses a merge that loses a side, or counts an empty one", function()
    refused("merging the shards' rows", { merge = function(a) return a end })
    refused("an empty accumulator changes the result: ", {
      init = function() return { sum = 0, n = 0, first = true } end,
      step = function(acc, row)
        acc.sum, acc.n, acc.first = acc.sum + row.price, acc.n + 1, false
        return acc
      end,
      merge = function(a, b)
        return { sum = a.sum + b.sum + ((a.first or b.first) and 1 or 0), n = a.n + b.n }
      end,
    })
  end)

  it("refuses one that is stopped by a limit", function()
    local ok, message = selftest.aggregate((budget.wrap(define({ merge = function() while true do end end }))))
    assert.is_nil(ok)
    assert.matches("merge: ran longer than", message)
  end)

  it("refuses one that yields", function()
    refused("it yields", { finish = function() return coroutine.yield() end })
  end)

  it("says so when the rows are not what it works on, and lets it pass", function()
    for _, fields in ipairs({
      { step = function() error("a column of type point is needed") end },
      { step = function() return nil, "a column of type point is needed" end },
    }) do
      local ok, note = selftest.aggregate(define(fields))
      assert.is_true(ok)
      assert.matches("it was not tried: .*a column of type point is needed", note)
    end
  end)
end)

describe("the self-test of an extractor", function()
  local function try(extract, new)
    return selftest.extractor({ api = 1, kind = "extractor", name = "selftest_spec", extract = extract, new = new })
  end

  it("passes one that gives a key, or says why there is none", function()
    assert.is_true(try(function(statement, params)
      if statement.sql:find("user_id") and params[1] then
        return params[1]
      end
      return nil, "no user_id"
    end))
    assert.is_true(try(function(_, params, n)
      if params[n] == nil then
        return nil, "there is no parameter " .. n
      end
      return params[n]
    end, function(n)
      return assert(tonumber(n), "which parameter?")
    end))
  end)

  it("refuses nil without a reason, and what is no key", function()
    local ok, message = try(function(_, params) return params[1] end)
    assert.is_nil(ok)
    assert.matches("return nil and the reason", message)
    ok, message = try(function() return print end)
    assert.is_nil(ok)
    assert.matches("returns a function, which is no key", message)
  end)

  it("refuses one that answers otherwise when asked again", function()
    local n = 0
    local ok, message = try(function()
      n = n + 1
      return n
    end)
    assert.is_nil(ok)
    assert.matches("the key is 1, and asked again 2", message)
  end)

  it("refuses one that is stopped by a limit", function()
    local ok, message = selftest.extractor((budget.wrap({ api = 1, kind = "extractor", name = "selftest_spec",
      extract = function() while true do end end })))
    assert.is_nil(ok)
    assert.matches("extract: ran longer than", message)
  end)

  it("shows it what the statement is: its kind, its tables, and PostgreSQL's parse tree", function()
    local seen = {}
    assert.is_true(try(function(statement)
      seen[statement.kind] = next(statement.ast)
      return nil, statement.tables[1]
    end))
    assert.same({ SELECT = "SelectStmt", INSERT = "InsertStmt", UPDATE = "UpdateStmt", DELETE = "DeleteStmt" }, seen)
  end)

  it("lets one pass that it cannot try, and says why", function()
    local ok, note = try(function(statement) return statement.ast.nothing.there end)
    assert.is_true(ok)
    assert.matches("it was not tried: ", note)
  end)
end)
