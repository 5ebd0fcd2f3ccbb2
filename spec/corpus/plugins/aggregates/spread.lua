return {
  api = 1, kind = "aggregate", name = "spread", returns = "row",
  new = function(column)
    return { column = column or "n" }
  end,
  init = function(options)
    return { column = options.column, low = math.huge, high = -math.huge, rows = 0 }
  end,
  step = function(acc, row, shard_id, types)
    local value = tonumber(row[acc.column])
    if value then
      acc.low, acc.high = math.min(acc.low, value), math.max(acc.high, value)
      acc.rows = acc.rows + 1
    end
    return acc
  end,
  merge = function(a, b)
    a.low, a.high, a.rows = math.min(a.low, b.low), math.max(a.high, b.high), a.rows + b.rows
    return a
  end,
  finish = function(acc)
    if acc.rows == 0 then
      return {}
    end
    return { low = acc.low, high = acc.high, rows = acc.rows }
  end,
}
