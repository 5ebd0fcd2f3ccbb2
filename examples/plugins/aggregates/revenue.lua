-- Revenue of big and of other tenants, from rows with tenant_id and amount.
local tiers = require("tiers")

return {
  api = 1, kind = "aggregate", name = "revenue", returns = "row",

  init = function()
    return { big = 0, others = 0 }
  end,

  step = function(acc, row)
    local tier = tiers.is_big(row.tenant_id) and "big" or "others"
    acc[tier] = acc[tier] + row.amount
    return acc
  end,

  merge = function(a, b)
    return { big = a.big + b.big, others = a.others + b.others }
  end,

  finish = function(acc)
    return acc
  end,
}
