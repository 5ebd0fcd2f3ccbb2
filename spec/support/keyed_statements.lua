--- Random statements over the tables of `spec.support.merging` that name shard keys, in ways that say less than they seem
-- to among them.
-- @module spec.support.keyed_statements

local null = require("lunashard").null

local statements = {}

local function pick(list)
  return list[math.random(#list)]
end

-- One of several, or what it gives: parameters that no text names are an error.
local function either(...)
  local chosen = select(math.random(select("#", ...)), ...)
  if type(chosen) == "function" then
    return chosen()
  end
  return chosen
end

local function chance(n)
  return math.random(n) == 1
end

local MAX_KEY = 24

local function key()
  return math.random(MAX_KEY)
end

-- A key as a parameter or a literal.
local function written(params)
  if chance(2) then
    params[#params + 1] = chance(25) and null or pick({ key(), tostring(key()), key() + 0LL })
    return pick({ "$%d", "$%d", "$%d::int8", "CAST($%d AS bigint)" }):format(#params)
  end
  return pick({ "%d", "%d", "'%d'", "%d::int8", "(%d)", "0%d", "-%d" }):format(key())
end

local function list(params, most)
  local parts = {}
  for i = 1, math.random(most) do
    parts[i] = written(params)
  end
  return table.concat(parts, ", ")
end

local condition

local KEYED = {
  function(a, params)
    return ("%suser_id = %s"):format(a, written(params))
  end,
  function(a, params)
    return ("%s = %suser_id"):format(written(params), a)
  end,
  function(a, params)
    return ("%suser_id IN (%s)"):format(a, list(params, 5))
  end,
  function(a, params)
    local keys = {}
    for i = 1, math.random(0, 5) do
      keys[i] = chance(10) and null or key()
    end
    params[#params + 1] = keys
    return pick({ "%suser_id = ANY ($%d)", "%suser_id = ANY ($%d::int8[])" }):format(a, #params)
  end,
  function(a, params)
    return ("%suser_id = ANY (ARRAY[%s]::int8[])"):format(a, list(params, 4))
  end,
  function(a, params)
    return ("(%s AND %s)"):format(condition(a, params), condition(a, params))
  end,
  function(a, params)
    return ("(%s OR %s)"):format(condition(a, params), condition(a, params))
  end,
}

-- These name a key, and do not say that it is the row's.
local DECEPTIVE = {
  "NOT (%suser_id = %s)", "%suser_id <> %s", "%suser_id + 0 = %s", "%suser_id <= %s", "(%suser_id = %s) IS NOT TRUE",
  "(%suser_id = %s) IS NULL", "coalesce(%suser_id, 0) = %s", "%suser_id IS DISTINCT FROM %s", "-%suser_id = %s",
  "CASE WHEN %suser_id = %s THEN false ELSE true END", "%suser_id NOT IN (1, %s)", "%suser_id <> ALL (ARRAY[3, %s]::int8[])",
  "%suser_id > ANY (ARRAY[20, %s]::int8[])", "(%suser_id = %s) = false", "%suser_id BETWEEN 3 AND %s",
  "%suser_id = %s + 0", "%suser_id %% 5 = %s",
}

local PLAIN = { "%sflag", "%samount > 3", "%sid %% 3 = 1", "%scountry IS NULL", "true" }

function condition(a, params)
  local n = math.random(10)
  if n <= 6 then
    return pick(KEYED)(a, params)
  elseif n <= 8 then
    return pick(DECEPTIVE):format(a, written(params))
  end
  local alias = a
  return pick(a == "o." and { "%sstatus = 'paid'", "%sorder_id > 3" } or PLAIN):format(alias)
end

local JOINS = {
  "events e JOIN orders o ON e.user_id = o.user_id", "events e JOIN orders o USING (user_id)",
  "events e LEFT JOIN orders o ON e.user_id = o.user_id", "events e RIGHT JOIN orders o ON e.user_id = o.user_id",
  "events e FULL JOIN orders o ON e.user_id = o.user_id", "events e LEFT JOIN orders o USING (user_id)",
  "events e, orders o", "events e JOIN orders o ON e.user_id = o.user_id AND e.amount > 0",
  "events e JOIN orders o ON e.id = o.order_id", "events e LEFT JOIN orders o ON e.id = o.order_id",
  "events e JOIN orders o ON o.user_id = e.user_id OR o.order_id = 3",
  "events e CROSS JOIN LATERAL (SELECT * FROM orders x WHERE x.user_id = e.user_id) o",
  "events e JOIN (SELECT * FROM orders WHERE total > 0) o ON o.user_id = e.user_id",
  "events e JOIN (SELECT user_id, order_id, total, status FROM orders) o (user_id, order_id) ON o.user_id = e.user_id",
  "(SELECT user_id AS id, id AS user_id, amount, flag, country FROM events) e JOIN orders o ON o.user_id = e.user_id",
}

local function join(params)
  local from = pick(JOINS)
  if chance(4) and from:find(" ON ") and not from:find("LATERAL") then
    from = from .. " AND " .. condition(pick({ "e.", "o." }), params)
  end
  local parts = {}
  for i = 1, math.random(0, 2) do
    parts[i] = condition(pick({ "e.", "o." }), params)
  end
  if chance(3) then
    parts[#parts + 1] = "e.user_id = o.user_id"
  end
  return from, #parts > 0 and " WHERE " .. table.concat(parts, " AND ") or ""
end

local JOINED = {
  "e.id, o.order_id", "count(*) AS n, sum(o.total) AS total", "e.user_id AS u, o.order_id", "o.status, count(*) AS n",
}

local READS = {
  function(params)
    return ("SELECT %s FROM events e WHERE %s"):format(pick({ "id, amount", "count(*) AS n, sum(amount) AS total",
      "max(id) AS high, min(country) AS low", "id, user_id" }), condition("e.", params))
  end,
  function(params)
    return ("SELECT id, amount FROM events WHERE %s"):format(condition("", params))
  end,
  function(params)
    local where = condition("e.", params)
    params[#params + 1] = math.random(0, 9)
    return ("SELECT id, user_id AS u FROM events e WHERE %s ORDER BY id%s LIMIT $%d%s"):format(where,
      pick({ "", " DESC" }), #params, pick({ "", " OFFSET 2" }))
  end,
  function(params)
    local where = condition("e.", params)
    return ("SELECT DISTINCT %s FROM events e WHERE %s"):format(
      pick({ "user_id AS u", "kind, flag", "user_id AS u, kind" }), where)
  end,
  function(params)
    local columns, from, where = pick(JOINED), join(params)
    return ("SELECT %s FROM %s%s%s"):format(columns, from, where, columns:find("^o.status") and " GROUP BY o.status" or "")
  end,
  function(params)
    return ("SELECT id FROM events e WHERE %s AND user_id IN (SELECT user_id FROM orders o WHERE %s)"):format(
      condition("e.", params), condition("o.", params))
  end,
  function(params)
    return ("SELECT id FROM events e WHERE %s EXISTS (SELECT 1 FROM orders o WHERE o.user_id = e.user_id AND %s) AND %s")
      :format(pick({ "", "NOT" }), condition("o.", params), condition("e.", params))
  end,
  function(params)
    return ("WITH o AS (SELECT * FROM orders WHERE %s) SELECT e.id, o.order_id FROM events e JOIN o ON %s WHERE %s"):format(
      condition("", params):gsub("flag", "true"):gsub("amount > 3", "true"):gsub("id %% 3 = 1", "order_id > 2")
        :gsub("country", "status"),
      pick({ "o.user_id = e.user_id", "o.order_id = e.id" }), condition("e.", params))
  end,
  function(params)
    return ("SELECT id FROM events e WHERE %s %s SELECT order_id FROM orders o WHERE %s"):format(condition("e.", params),
      pick({ "UNION ALL", "UNION", "EXCEPT", "INTERSECT" }), condition("o.", params))
  end,
  function(params)
    return ("SELECT id, (SELECT count(*) FROM orders o WHERE %s) AS n FROM events e WHERE %s"):format(
      either("o.user_id = e.user_id", function()
        return condition("o.", params)
      end), condition("e.", params))
  end,
  function(params)
    return ("SELECT e.id, c.region FROM events e %s countries c ON c.country = e.country WHERE %s"):format(
      pick({ "JOIN", "LEFT JOIN" }), condition("e.", params))
  end,
  function(params)
    return ("SELECT s.id FROM (SELECT user_id AS u, id, amount FROM events e WHERE %s) s WHERE s.u = %s"):format(
      either("true", function()
        return condition("e.", params)
      end), written(params))
  end,
  function(params)
    return ("SELECT user_id AS u, count(*) AS n FROM events e WHERE %s GROUP BY user_id HAVING %s"):format(
      condition("e.", params), either("count(*) > 1", "true", function()
        return "user_id = " .. written(params)
      end))
  end,
}

local function assignment()
  return pick({ "amount = 1", "amount = coalesce(amount, 0) + 1", "flag = NOT flag", "kind = 'k9'" })
end

local WRITES = {
  function(params)
    return ("UPDATE events e SET %s WHERE %s%s"):format(assignment(), condition("e.", params),
      pick({ "", " RETURNING id, amount" }))
  end,
  function(params)
    return ("UPDATE events SET %s FROM orders o WHERE events.user_id = o.user_id AND %s AND %s"):format(
      assignment(), condition("o.", params), condition("events.", params))
  end,
  function(params)
    return ("DELETE FROM events e WHERE %s AND id > %d RETURNING id"):format(condition("e.", params), math.random(100))
  end,
  function(params)
    return ("DELETE FROM events e USING orders o WHERE %s AND %s AND e.id > %d"):format(
      pick({ "e.user_id = o.user_id", "o.order_id = e.id" }), condition("o.", params), math.random(100))
  end,
  function(params)
    return ("UPDATE events SET user_id = %s WHERE %s"):format(written(params), condition("", params))
  end,
  function(params, fresh)
    local rows = {}
    for i = 1, math.random(4) do
      rows[i] = ("(%d, %s, %d)"):format(fresh(), written(params), math.random(9))
    end
    return ("INSERT INTO events (id, user_id, amount) VALUES %s%s"):format(table.concat(rows, ", "),
      pick({ "", " RETURNING id, user_id AS u", " ON CONFLICT (id) DO NOTHING", " ON CONFLICT (id) DO UPDATE SET amount = 2" }))
  end,
  function(params, fresh)
    return ("INSERT INTO events (id, user_id, amount) SELECT order_id + %d, %s, 7 FROM orders o WHERE %s"):format(
      fresh(1000), either("user_id", "user_id", "user_id + 1", function()
        return written(params)
      end), condition("o.", params))
  end,
  function(params)
    return ("WITH gone AS (DELETE FROM events e WHERE %s AND id > %d RETURNING id, amount) SELECT %s FROM gone"):format(
      condition("e.", params), math.random(100), pick({ "id", "count(*) AS n", "sum(amount) AS total" }))
  end,
  function(params, fresh)
    return ("WITH paid AS (UPDATE orders o SET status = 'paid' WHERE %s RETURNING order_id, user_id) "
      .. "INSERT INTO events (id, user_id) SELECT order_id + %d, %s FROM paid"):format(condition("o.", params), fresh(1000),
      either("user_id", function()
        return written(params)
      end))
  end,
}

local last = 1000000

local function fresh(n)
  last = last + (n or 1)
  return last - (n or 1) + 1
end

--- A statement. Random: seed first.
-- @treturn string sql
-- @treturn table params
-- @treturn boolean does it write?
function statements.random()
  local params, writes = {}, chance(3)
  local sql = pick(writes and WRITES or READS)(params, fresh)
  return sql, params, writes
end

return statements
