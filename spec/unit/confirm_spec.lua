local confirm = require("lunashard.cli.confirm")
local errors = require("lunashard.errors")
local system = require("lunashard.core.system")

describe("confirm", function()
  local isatty = system.isatty

  before_each(function()
    system.isatty = function() -- whoever runs this may sit at a terminal
      return false
    end
  end)

  after_each(function()
    system.isatty = isatty
  end)

  local function manager(environment)
    return { name = "shop", options = { environment = environment } }
  end

  local function refusal(ok, err)
    assert.is_nil(ok)
    assert.is_true(errors.is(err, "INVALID"), tostring(err))
    assert.equal(2, errors.exit_code(err))
    return err.message
  end

  it("asks nothing on a cluster that is not for production, unless it is severe", function()
    assert.is_true(confirm.check(manager(), { what = "write" }))
    assert.is_true(confirm.check(manager("staging"), { what = "write" }))
    assert.matches("cluster \"shop\": say so with %-%-yes shop",
      refusal(confirm.check(manager(), { what = "write", severe = true })))
  end)

  it("refuses on production without a terminal, and takes the cluster's name alone", function()
    assert.matches('^this would drop it on the production cluster "shop": say so with %-%-yes shop$',
      refusal(confirm.check(manager("production"), { what = "drop it" })))
    assert.is_true(confirm.check(manager("production"), { what = "drop it", yes = "shop" }))
    assert.matches('%-%-yes names "yes"', refusal(confirm.check(manager("production"), { what = "drop it", yes = "yes" })))
  end)

  it("refuses a name that is another cluster's, also where none is needed", function()
    assert.matches('%-%-yes names "shop2", but this is the cluster "shop"',
      refusal(confirm.check(manager(), { what = "write", yes = "shop2" })))
  end)

  it("takes what was typed only when it is the name", function()
    local asked
    local function answers(text)
      return function(question)
        asked = question
        return text
      end
    end
    local production = manager("production")
    assert.is_true(confirm.check(production, { what = "drop it", ask = answers("shop") }))
    assert.matches('will drop it on the production cluster "shop"', asked)
    assert.matches('"y" was typed', refusal(confirm.check(production, { what = "drop it", ask = answers("y") })))
    assert.matches("the input ended", refusal(confirm.check(production, { what = "drop it", ask = answers(nil) })))
  end)
end)
