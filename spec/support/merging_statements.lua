--- Random statements over the tables of `spec.support.merging`.
-- @module spec.support.merging_statements

local statements = {}

local function pick(list)
  return list[math.random(#list)]
end

local function chance(n)
  return math.random(n) == 1
end

-- Some of a list, at least one, in another order.
local function some(list, most)
  local left, chosen = { unpack(list) }, {}
  for _ = 1, math.random(math.min(most, #left)) do
    chosen[#chosen + 1] = table.remove(left, math.random(#left))
  end
  return chosen
end

local KEYS = {
  "country", "city", "kind", "code", "amount", "small", "flag", "day", "mood", "tag", "js", "arr", "price", "ratio",
  "span", "big", "note", "date_trunc('month', at)", "amount % 3", "lower(country)", "coalesce(kind, 'none')",
  "day::text", "extract(month FROM at)", "substring(country from 1 for 1)", "(at AT TIME ZONE 'UTC')::date",

  "position('a' in country)", "trim(both 'k' from kind)", "\"country\"", "events.kind",
  "CASE WHEN flag THEN 'yes' ELSE kind END", "amount > 0", "weight", "country COLLATE \"C\"",
}

local ARGUMENTS = { "amount", "small", "big", "price", "ratio", "amount * small", "coalesce(price, 0)", "abs(amount)" }

local FILTERS = { "", "", "", " FILTER (WHERE flag)", " FILTER (WHERE amount > 0 OR price IS NULL)" }

local WHERES = {
  "", "", "", " WHERE flag", " WHERE amount > 3", " WHERE id % 7 = 2", " WHERE country IS NOT NULL AND price < 4",
  " WHERE id < 0", " WHERE kind IN ('k1', 'k2')", " WHERE day >= '2024-02-01'::date OR day IS DISTINCT FROM '2024-01-11'",
}

local function aggregate_call()
  local x = pick(ARGUMENTS)
  return pick({
    function() return "count(*)" .. pick(FILTERS) end,
    function() return "count(" .. pick({ "country", "js", "at", "note", x }) .. ")" .. pick(FILTERS) end,
    function() return "sum(" .. x .. ")" .. pick(FILTERS) end,
    function() return "sum(" .. x .. ")" .. pick(FILTERS) end,
    function() return "avg(" .. pick({ x, x, "weight", "span" }) .. ")" .. pick(FILTERS) end,
    function() return "avg(" .. x .. ")" .. pick(FILTERS) end,
    function()
      return pick({ "min", "max" }) .. "(" .. pick({ x, "country", "city", "kind", "at", "day", "mood", "span", "code",
        "arr", "weight", "id" }) .. ")" .. pick(FILTERS)
    end,
    function() return pick({ "bool_and", "bool_or", "every" }) .. "(" .. pick({ "flag", "amount > 0" }) .. ")" end,
    function() return pick({ "bit_and", "bit_or", "bit_xor" }) .. "(" .. pick({ "amount", "small", "big" }) .. ")" end,
    function()
      return pick({ "count", "sum", "avg" }) .. "(DISTINCT " .. pick({ "amount", "price", "small" }) .. ")" .. pick(FILTERS)
    end,
    function() return "count(DISTINCT " .. pick({ "country", "mood", "day", "js", "arr" }) .. ")" .. pick(FILTERS) end,
  })()
end

local function number_call()
  return pick({ "count(*)", "sum(amount)", "sum(price)", "avg(amount)", "max(amount)", "min(price)", "sum(ratio)",
    "count(DISTINCT country)", "sum(big)" })
end

local function expression()
  return pick({
    function() return ("%s + %s"):format(number_call(), number_call()) end,
    function() return ("coalesce(%s, 0) * 2"):format(number_call()) end,
    function() return "max(amount) - min(amount)" end,
    function() return "extract(month FROM max(at)) + substring('123' from 2 for 1)::int" end,
    function() return "/* FROM x */ count(*)::text || $q$ FROM 'y' $q$ -- , z\n" end,
    function() return "count(*) IS DISTINCT FROM 3" end,
    function() return "greatest(count(*), sum(amount), 3)" end,
    function() return "ARRAY[count(*), max(amount)]" end,
    function() return "(CASE WHEN bool_or(flag) THEN sum(amount) ELSE -1 END) IN (-1, 2, 3)" end,
    function() return "sum(price) / nullif(count(*), 0)" end,
    function() return ("round((%s)::numeric, 2)"):format(number_call()) end,
    function() return "CASE WHEN count(*) > 5 THEN 'many' ELSE 'few' END" end,
    function() return ("count(*) > %d"):format(math.random(0, 9)) end,
    aggregate_call, aggregate_call, aggregate_call,
  })()
end

local DIRECTIONS = { "", "", " ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST" }

-- LIMIT and OFFSET, sometimes as parameters.
local function window(params)
  local text = ""
  local function number(n)
    if chance(3) then
      params[#params + 1] = n
      return "$" .. #params
    end
    return tostring(n)
  end
  if chance(2) then
    text = text .. pick({ " LIMIT ", " LIMIT ", " FETCH FIRST " })
    if text == " FETCH FIRST " then
      text = text .. math.random(0, 9) .. " ROWS ONLY"
    else
      text = text .. (chance(12) and "ALL" or number(math.random(0, 30)))
    end
  end
  if chance(3) then
    local offset = " OFFSET " .. number(math.random(0, 12)) .. pick({ "", " ROWS" })
    text = text:find("FETCH") and offset .. text or text .. offset
  end
  return text
end

-- All positions of the result, in random order: equal rows are the same.
local function order_all(n)
  local left, parts = {}, {}
  for i = 1, n do
    left[i] = i
  end
  while left[1] do
    parts[#parts + 1] = table.remove(left, math.random(#left)) .. pick(DIRECTIONS)
  end
  return " ORDER BY " .. table.concat(parts, ", ")
end

local function ordered(sql, n, params)
  return { sql = sql .. order_all(n) .. window(params), params = params, in_order = true }
end

local function grouped()
  local keys, params = some(KEYS, 2), {}
  local list, group = {}, {}
  for i, key in ipairs(keys) do
    list[i] = chance(2) and key or ("%s AS g%d"):format(key, i)
    group[i] = chance(3) and tostring(i) or list[i]:match(" AS (g%d)$") and chance(2) and "g" .. i or key
  end
  for _ = 1, math.random(0, 3) do
    list[#list + 1] = ("%s AS a%d"):format(expression(), #list)
  end
  local sql = ("SELECT %s FROM events%s GROUP BY %s"):format(table.concat(list, ", "), pick(WHERES),
    table.concat(group, ", "))
  if chance(3) then
    sql = ("%s HAVING %s > %d"):format(sql, number_call(), math.random(-3, 6))
  end
  if chance(4) then
    return { sql = sql, params = params }
  end
  return ordered(sql, #list, params)
end

local function ungrouped()
  local list = {}
  for i = 1, math.random(5) do
    list[i] = expression() .. (chance(2) and " AS a" .. i or " AS \"A " .. i .. "\"")
  end
  local having = chance(8) and " HAVING count(*) > 3" or ""
  return { sql = ("SELECT %s FROM events%s%s"):format(table.concat(list, ", "), pick(WHERES), having), params = {} }
end

local COLUMNS = { "user_id", "country", "city", "kind", "code", "amount", "big", "price", "ratio", "flag", "at", "day",
  "span", "tag", "mood", "js", "weight" }

local function plain()
  local params, columns = {}, some(COLUMNS, 4)
  local order = {}
  for i, column in ipairs(some(COLUMNS, 3)) do
    order[i] = pick({ column, column, column .. "::text COLLATE \"C\"", "events_name." .. column,
      "lower(" .. column .. "::text)", "coalesce(" .. column .. "::text, 'n')" })
      .. pick(DIRECTIONS)
  end
  order[#order + 1] = "id" .. pick({ "", " DESC" })
  local list = chance(4) and "*" or table.concat(columns, ", ") .. pick({ "", ", amount + 1 AS next", ", id" })
  return {
    sql = ("SELECT %s FROM events%s%s ORDER BY %s%s"):format(list, " AS events_name", pick(WHERES),
      table.concat(order, ", "), window(params)),
    params = params, in_order = true,
  }
end

local function unordered()
  return { sql = ("SELECT %s FROM events%s"):format(table.concat(some(COLUMNS, 4), ", "), pick(WHERES)), params = {} }
end

local function distinct()
  local keys, params = some(KEYS, 3), {}
  for i, key in ipairs(keys) do
    keys[i] = ("%s AS k%d"):format(key, i)
  end
  return ordered(("SELECT DISTINCT %s FROM events%s"):format(table.concat(keys, ", "), pick(WHERES)), #keys, params)
end

local function distinct_on()
  local key, params = pick(COLUMNS), {}
  return {
    sql = ("SELECT DISTINCT ON (%s) %sid, amount FROM events%s ORDER BY %s%s, amount, id%s"):format(key,
      chance(2) and key .. ", " or "", pick(WHERES), key, pick(DIRECTIONS), window(params)),
    params = params, in_order = true,
  }
end

local FROMS = {
  { "events e JOIN orders o ON o.user_id = e.user_id", "e.amount", "o.status", "e.id, o.order_id" },
  { "events e JOIN orders o USING (user_id)", "e.amount", "o.total", "e.id, o.order_id" },
  { "events e LEFT JOIN orders o ON e.user_id = o.user_id AND o.status = 'paid'", "o.total", "e.country",
    "e.id, o.order_id" },
  { "events e FULL JOIN orders o ON e.user_id = o.user_id", "o.total", "e.kind", "e.id, o.order_id" },
  { "events e JOIN countries c ON c.country = e.country", "c.size", "c.region", "e.id, c.country" },
  { "events e LEFT JOIN countries c USING (country)", "e.price", "c.region", "e.id, c.size" },
  { "events e, orders o, countries c WHERE e.user_id = o.user_id AND c.country = e.country", "o.total", "c.region",
    "e.id, o.order_id, c.size" },
  { "events e CROSS JOIN (VALUES (1), (2)) AS v (n)", "v.n", "e.kind", "e.id, v.n" },
  { "(SELECT user_id, id, amount, kind FROM events WHERE flag) e", "e.amount", "e.kind", "e.id" },
  { "(SELECT user_id, count(*) AS n, max(kind) AS kind FROM events GROUP BY user_id) e", "e.n", "e.kind", "e.user_id" },
  { "events e JOIN LATERAL (SELECT o.order_id, o.total FROM orders o WHERE o.user_id = e.user_id "
    .. "ORDER BY o.total NULLS LAST, o.order_id LIMIT 2) x ON true", "x.total", "e.country", "e.id, x.order_id" },
  { "events e WHERE EXISTS (SELECT 1 FROM orders o WHERE o.user_id = e.user_id AND o.total > 0)", "e.amount", "e.kind",
    "e.id" },
  { "events e WHERE user_id IN (SELECT user_id FROM orders WHERE status = 'paid')", "e.big", "e.city", "e.id" },
  { "events e WHERE NOT EXISTS (SELECT FROM orders o WHERE o.user_id = e.user_id)", "e.price", "e.country", "e.id" },
  { "events e WHERE country IN (SELECT country FROM countries WHERE size > 3)", "e.price", "e.country", "e.id" },
  { "lively e", "e.size", "e.country", "e.id" },
}

local function joined()
  local params, from = {}, pick(FROMS)
  local list = { from[2] .. " AS x", from[3] .. " AS y" }
  if chance(2) then
    return { sql = ("SELECT %s FROM %s ORDER BY %s%s"):format(table.concat(list, ", "), from[1], from[4], window(params)),
      params = params, in_order = true }
  end
  return ordered(("SELECT %s, count(*) AS n, sum(%s), min(%s) FROM %s GROUP BY %s"):format(from[3], from[2], from[2],
    from[1], from[3]), 4, params)
end

local function of_key()
  return pick({
    function() return ordered("SELECT user_id, count(*), array_agg(id ORDER BY id) AS ids FROM events" .. pick(WHERES)
      .. " GROUP BY user_id HAVING count(*) > 1", 3, {}) end,
    function() return ordered("SELECT user_id, stddev(amount), string_agg(kind, ',' ORDER BY id) AS kinds FROM events "
      .. "GROUP BY 1", 3, {}) end,
    function() return ordered("SELECT id, sum(amount) OVER (PARTITION BY user_id ORDER BY id) FROM events"
      .. pick(WHERES), 2, {}) end,
    function() return ordered("SELECT DISTINCT user_id, country FROM events", 2, {}) end,
    function()
      return { sql = "SELECT DISTINCT ON (user_id) user_id, id FROM events ORDER BY user_id, id", params = {},
        in_order = true }
    end,
    function() return ordered("SELECT user_id, (SELECT count(*) FROM orders o WHERE o.user_id = e.user_id) AS n, id "
      .. "FROM events e", 3, {}) end,
  })()
end

local function united()
  local params = {}
  local all = chance(2) and " ALL" or ""
  return ordered(("SELECT %s AS v, user_id FROM events%s UNION%s SELECT status, user_id FROM orders"):format(
    pick({ "country", "kind", "city" }), pick(WHERES), all), 2, params)
end

local function with()
  local params = {}
  return pick({
    function()
      return ordered("WITH f AS (SELECT * FROM events WHERE flag), g AS (SELECT user_id, total FROM orders) "
        .. "SELECT kind, count(*), sum(total) FROM f JOIN g USING (user_id) GROUP BY kind", 3, params)
    end,
    function()
      return { sql = "WITH f AS (SELECT user_id, sum(amount) AS s FROM events GROUP BY user_id) "
        .. "SELECT count(*) AS n, sum(s), max(s) FROM f WHERE s > $1", params = { math.random(0, 9) } }
    end,
    function()
      return ordered("SELECT kind, rank() OVER (ORDER BY count(*) DESC, kind) AS place, sum(count(*)) OVER () AS whole "
        .. "FROM events GROUP BY kind", 3, params)
    end,
  })()
end

-- text, column of the key, columns of numbers
local RELATIONS = {
  { "events", "user_id", "id" }, { "events", "user_id", "small" }, { "orders", "user_id", "order_id" },
  { "orders", "user_id", "order_id" }, { "countries", "size", "size" }, { "lively", "user_id", "size" },
  { "(SELECT user_id, id FROM events WHERE flag)", "user_id", "id" },
  { "(SELECT user_id AS u, max(amount) AS m FROM events GROUP BY user_id)", "u", "m" },
  { "(SELECT DISTINCT user_id, small FROM events)", "user_id", "small" },
  { "(SELECT e.user_id, o.user_id AS other, o.order_id FROM events e LEFT JOIN orders o USING (user_id))", "other",
    "order_id" },
  { "(SELECT user_id, id FROM events UNION ALL SELECT user_id, order_id FROM orders)", "user_id", "id" },
  { "(SELECT o.user_id, count(e.id) AS n FROM orders o LEFT JOIN events e ON e.user_id = o.user_id GROUP BY 1)",
    "user_id", "n" },
}

local function condition(left, right)
  local a, b = pick(left), pick(right)
  local by_key = ("%s.%s = %s.%s"):format(a.alias, a.key, b.alias, b.key)
  local by_number = ("%s.%s = %s.%s"):format(a.alias, a.number, b.alias, b.number)
  return pick({
    by_key, by_key, by_key, by_key, by_key .. " AND " .. by_number, by_number,
    ("%s AND %s.%s > 3"):format(by_key, b.alias, b.number), ("(%s OR %s)"):format(by_key, by_number),
    ("NOT %s"):format(by_key), by_key .. " AND " .. ("%s.%s > 0"):format(a.alias, a.number),
  })
end

-- A tree of joins, some of which are local and some not.
local function tangle(left_over, taken)
  if left_over == 1 then
    local chosen = pick(RELATIONS)
    local one = { alias = "t" .. #taken + 1, key = chosen[2], number = chosen[3] }
    taken[#taken + 1] = one
    return chosen[1] .. " " .. one.alias, { one }
  end
  local n = math.random(left_over - 1)
  local left, left_list = tangle(n, taken)
  local right, right_list = tangle(left_over - n, taken)
  local all = {}
  for _, list in ipairs({ left_list, right_list }) do
    for _, one in ipairs(list) do
      all[#all + 1] = one
    end
  end
  local how = pick({ "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN" })
  local on = condition(left_list, right_list)
  if chance(4) and how ~= "FULL JOIN" then
    on = on .. " AND " .. condition(all, all)
  end
  return ("(%s %s %s ON %s)"):format(left, how, right, on), all
end

local function some_where(all)
  local a = pick(all)
  local sub = pick({ "events", "orders", "countries" })
  local columns = { events = { "user_id", "id" }, orders = { "user_id", "order_id" }, countries = { "size", "size" } }
  local key, number = columns[sub][1], columns[sub][2]
  return pick({
    "", "", "", (" WHERE %s"):format(condition(all, all)), (" WHERE %s.%s IS NOT NULL"):format(a.alias, a.key),
    (" WHERE EXISTS (SELECT 1 FROM %s s WHERE s.%s = %s.%s)"):format(sub, key, a.alias, a.key),
    (" WHERE NOT EXISTS (SELECT 1 FROM %s s WHERE s.%s = %s.%s AND s.%s > 9)"):format(sub, key, a.alias, a.key, number),
    (" WHERE %s.%s IN (SELECT %s FROM %s)"):format(a.alias, a.key, key, sub),
    (" WHERE %s.%s NOT IN (SELECT %s FROM %s)"):format(a.alias, a.key, key, sub),
    (" WHERE %s.%s = (SELECT max(s.%s) FROM %s s WHERE s.%s = %s.%s)"):format(a.alias, a.number, number, sub, key, a.alias,
      a.key),
    (" WHERE EXISTS (SELECT 1 FROM %s s LEFT JOIN orders x ON x.user_id = s.%s AND x.user_id = %s.%s WHERE s.%s > 20)")
      :format(sub, key, a.alias, a.key, number),
  })
end

local function tangled()
  local from, all = tangle(math.random(3), {})
  local a, b = pick(all), pick(all)
  local where = some_where(all)
  local sql = pick({
    ("SELECT count(*) AS n, sum(%s.%s) AS s, count(%s.%s) AS m"):format(a.alias, a.number, b.alias, b.key),
    ("SELECT %s.%s AS a, count(*) AS n, string_agg(%s.%s::text, ',' ORDER BY %s.%s) AS m"):format(a.alias, a.key, b.alias,
      b.number, b.alias, b.number),
    ("SELECT DISTINCT %s.%s AS a, %s.%s AS b"):format(a.alias, a.key, b.alias, b.number),
    ("SELECT %s.%s AS a, max(%s.%s) AS m"):format(b.alias, b.key, a.alias, a.number),
    ("SELECT %s.%s AS a, row_number() OVER (PARTITION BY %s.%s) AS r"):format(a.alias, a.key, a.alias, a.key),
    ("SELECT sum(r) AS s, count(*) AS n FROM (SELECT %s.%s AS r"):format(a.alias, a.number),
    ("SELECT count(*) AS n FROM (SELECT DISTINCT %s.%s AS r"):format(a.alias, a.key),
    ("SELECT sum(r) AS n FROM (SELECT count(*) AS r, %s.%s AS v"):format(b.alias, b.key),
  })
  local inside = sql:find("FROM (", 1, true)
  local group = ""
  if sql:find("string_agg", 1, true) or sql:find("max(", 1, true) then
    group = " GROUP BY 1"
  elseif sql:find(" AS v$") then
    group = " GROUP BY v"
  end
  return {
    sql = ("%s FROM %s%s%s%s"):format(sql, from, where, group, inside and ") q" or ""), params = {}, may_refuse = true,
  }
end

local KINDS = { grouped, grouped, grouped, ungrouped, ungrouped, plain, plain, unordered, distinct, distinct_on, joined,
  joined, of_key, united, with }

--- One with joins and subqueries, many of which have no exact answer.
-- @treturn table as for @{next}
statements.tangled = tangled

--- One more that has an exact answer.
-- @treturn table `sql`, `params`, `in_order`: is the order of the rows told by the statement? `may_refuse`
function statements.next()
  return pick(KINDS)()
end

return statements
