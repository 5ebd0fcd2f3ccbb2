--- The key is always the parameter of a certain number: `by_param(1)` for `$1`.
-- @module lunashard.extractors.by_param

local assertion = require("lunashard.extraction.assertion")

local plugin = { api = 1, kind = "extractor", name = "by_param" }

function plugin.new(n)
  if type(n) ~= "number" or n < 1 or n % 1 ~= 0 or n > 65535 then
    error(("by_param: expected the number of a parameter, 1 or more, got %s"):format(tostring(n)), 3)
  end
  return { n = n }
end

function plugin.plan(options, statement, manager)
  local parsed, n = statement.parsed, options.n
  local against = assertion.by_columns(statement)
  if against and against.kind == "reference" and against.table then
    return against
  elseif parsed and parsed.parameters < n then
    return assertion.none(statement, "by_param", ("the statement has no parameter $%d"):format(n))
  elseif parsed and parsed.kind == "utility" then
    return assertion.none(statement, "by_param", "a statement of this kind names no key")
  end
  local plan = assertion.none(statement, "by_param", ("parameter $%d is the key"):format(n))
  plan.kind, plan.code, plan.param = "key", nil, n
  plan.table = assertion.table_of(statement, against)
  return assertion.checked(plan, against, manager)
end

function plugin.extract(_, params, options)
  local key = params and params[options.n]
  if key == nil then
    return nil, ("there is no parameter $%d"):format(options.n)
  end
  return key
end

return plugin
