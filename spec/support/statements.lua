--- Random statements over a few small tables, for specs that compare what is concluded from a statement with what
-- PostgreSQL makes of it.
local statements = {}

--- The tables: their columns, the first of which is the shard key, except that of `countries`.
statements.TABLES = {
  users = { "user_id", "x" },
  orders = { "user_id", "x" },
  pages = { "owner", "x" },
  countries = { "id", "x" },
}
statements.KEYS = 6

local NAMES = { "users", "orders", "pages", "users", "orders", "countries" }

local Generator = {}
Generator.__index = Generator

--- A source of statements.
-- @tparam function random as `math.random`
function statements.new(random)
  return setmetatable({ random = random, aliases = 0 }, Generator)
end

function Generator:chance(percent)
  return self.random(100) <= percent
end

function Generator:pick(list)
  return list[self.random(#list)]
end

function Generator:value()
  return self:chance(85) and tostring(self.random(statements.KEYS)) or "$1"
end

function Generator:alias()
  self.aliases = self.aliases + 1
  return "t" .. self.aliases
end

-- An item: its text, and its columns with their alias.
function Generator:item(depth, ctes, scope)
  local kind = self.random(10)
  local alias = self:alias()
  if kind <= 2 and depth > 0 then
    local lateral = self:chance(30)
    local query, columns = self:query(depth - 1, ctes, lateral and scope or {})
    return ("%s(%s) %s"):format(lateral and "LATERAL " or "", query, alias), self:named(alias, columns)
  elseif kind == 3 and #ctes > 0 then
    local cte = self:pick(ctes)
    return cte.name .. " " .. alias, self:named(alias, cte.columns)
  elseif kind == 4 then
    return ("(VALUES (%s, 1)%s) %s(k, x)"):format(self:value(),
      self:chance(50) and (", (%s, 2)"):format(self:value()) or "", alias), self:named(alias, { "k", "x" })
  end
  local name = self:pick(NAMES)
  if self:chance(10) then
    local columns = { "x", statements.TABLES[name][1] } -- each has the other's name
    return ("%s AS %s(%s)"):format(name, alias, table.concat(columns, ", ")), self:named(alias, { columns[2], "x" })
  end
  return name .. " " .. alias, self:named(alias, statements.TABLES[name])
end

function Generator:named(alias, columns)
  local list = { alias = alias }
  for i, column in ipairs(columns) do
    list[i] = alias .. "." .. column
  end
  return list
end

local function all_columns(items)
  local list = {}
  for _, columns in ipairs(items) do
    for _, column in ipairs(columns) do
      list[#list + 1] = column
    end
  end
  return list
end

-- Mostly the first column, which is the key.
function Generator:column(items, outer)
  local from = #outer > 0 and self:chance(25) and outer or items
  local columns = self:pick(from)
  return self:chance(70) and columns[1] or self:pick(columns)
end

function Generator:predicate(depth, ctes, items, outer)
  local kind = self.random(22)
  local column = self:column(items, outer)
  if kind <= 6 then
    return ("%s = %s"):format(column, self:value())
  elseif kind <= 11 then
    return ("%s = %s"):format(column, self:column(items, outer))
  elseif kind == 12 then
    return ("%s IN (%s, %s)"):format(column, self:value(), self:value())
  elseif kind == 13 then
    return ("%s BETWEEN %s AND %s"):format(column, self:value(), self:value())
  elseif kind == 14 then
    return ("%s %s %s"):format(column, self:pick({ "<", ">", "<>", "<=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM" }),
      self:value())
  elseif kind == 15 then
    return column .. " IS NULL"
  elseif kind == 16 then
    return ("(%s, %s) = (%s, %s)"):format(column, self:column(items, outer), self:value(), self:value())
  elseif kind == 17 then
    return ("%s = ANY (ARRAY[%s, %s])"):format(column, self:value(), self:value())
  elseif depth > 0 and kind <= 19 then
    local scope = {}
    for _, list in ipairs({ items, outer }) do
      for _, one in ipairs(list) do
        scope[#scope + 1] = one
      end
    end
    local query, columns = self:query(depth - 1, ctes, scope)
    if self:chance(50) then
      return ("%sEXISTS (%s)"):format(self:chance(40) and "NOT " or "", query)
    end
    return ("%s %sIN (SELECT %s FROM (%s) %s)"):format(column, self:chance(30) and "NOT " or "", columns[1], query,
      self:alias())
  elseif kind == 20 then
    return ("%s + 0 = %s"):format(column, self:value())
  end
  return ("%s = %s"):format(column, self:value())
end

function Generator:condition(depth, ctes, items, outer)
  local kind = self.random(10)
  if kind <= 4 then
    return self:predicate(depth, ctes, items, outer)
  elseif kind <= 8 then
    return ("%s AND %s"):format(self:predicate(depth, ctes, items, outer), self:predicate(depth, ctes, items, outer))
  elseif kind == 9 then
    return ("(%s OR %s)"):format(self:predicate(depth, ctes, items, outer), self:predicate(depth, ctes, items, outer))
  end
  return ("NOT (%s)"):format(self:predicate(depth, ctes, items, outer))
end

local JOINS = { "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN" }

-- What stands after FROM, and its items.
function Generator:from(depth, ctes, outer)
  local text, columns = self:item(depth, ctes, outer)
  local items = { columns }
  for _ = 2, self.random(3) do
    local join = self:pick(JOINS)
    local visible = {}
    for _, list in ipairs({ items, outer }) do
      for _, one in ipairs(list) do
        visible[#visible + 1] = one
      end
    end
    local next_text, next_columns = self:item(depth, ctes, visible)
    if join == "CROSS JOIN" then
      text = text .. (self:chance(50) and ", " or " CROSS JOIN ") .. next_text
      items[#items + 1] = next_columns
    else
      local key, own = self:pick(items)[1], next_columns[1]
      items[#items + 1] = next_columns
      local on = self:chance(75) and ("%s = %s"):format(key, own) or nil
      if not on or self:chance(30) then
        local more = self:predicate(0, ctes, { self:pick(items), next_columns }, {})
        on = on and on .. " AND " .. more or more
      end
      text = ("%s %s %s ON %s"):format(text, join, next_text, on)
    end
  end
  return text, items
end

--- A query.
-- @tparam int depth of sub-selects
-- @tparam table ctes those in scope
-- @tparam table outer columns of queries around it
-- @treturn string
-- @treturn table the names of its columns
-- @treturn boolean does it give rows as they are, without an aggregate, DISTINCT or LIMIT?
function Generator:query(depth, ctes, outer)
  if depth > 0 and self:chance(8) then
    local one, columns = self:query(depth - 1, ctes, outer)
    local other, _ = self:query(depth - 1, ctes, outer)
    local op = self:pick({ "UNION ALL", "UNION", "EXCEPT", "INTERSECT" })
    return ("SELECT %s FROM (%s) %s %s SELECT %s FROM (%s) %s"):format(columns[1], one, self:alias(), op, "k1", other,
      self:alias()), { columns[1] }, false
  end
  local from, items = self:from(depth, ctes, outer)
  local where = self:chance(85) and " WHERE " .. self:condition(depth, ctes, items, outer) or ""
  local list = all_columns(items)
  local k1, k2 = self:column(items, {}), self:pick(list)
  local kind = self.random(20)
  if kind == 1 then
    return ("SELECT %s AS k1, count(*) AS k2 FROM %s%s GROUP BY %s"):format(k1, from, where, k1), { "k1", "k2" }, false
  elseif kind == 2 then
    return ("SELECT max(%s) AS k1, count(*) AS k2 FROM %s%s"):format(k1, from, where), { "k1", "k2" }, false
  elseif kind == 3 then
    return ("SELECT DISTINCT %s AS k1 FROM %s%s"):format(k1, from, where), { "k1" }, false
  elseif kind == 4 then
    return ("SELECT %s AS k1, %s AS k2 FROM %s%s ORDER BY 1, 2 LIMIT 2"):format(k1, k2, from, where), { "k1", "k2" },
      false
  elseif kind == 5 then
    return ("SELECT %s AS k1, row_number() OVER (ORDER BY %s, %s) AS k2 FROM %s%s"):format(k1, k1,
      table.concat(list, ", "), from, where), { "k1", "k2" }, false
  elseif kind == 6 then
    return ("SELECT %s AS k1, (SELECT count(*) FROM orders WHERE orders.user_id = %s) AS k2 FROM %s%s"):format(k1, k1,
      from, where), { "k1", "k2" }, true
  end
  return ("SELECT %s AS k1, %s AS k2 FROM %s%s"):format(k1, k2, from, where), { "k1", "k2" }, true
end

-- What a query makes of its rows before another one looks at a key among them.
local SHAPES = {
  "SELECT KEY AS k1, x AS k2 FROM TABLE", "SELECT KEY AS k1, x AS k2 FROM TABLE ORDER BY 2, 1 LIMIT 2",
  "SELECT KEY AS k1, x AS k2 FROM TABLE ORDER BY 2, 1 OFFSET 3", "SELECT DISTINCT KEY AS k1, x AS k2 FROM TABLE",
  "SELECT DISTINCT ON (x) KEY AS k1, x AS k2 FROM TABLE ORDER BY x, KEY",
  "SELECT KEY AS k1, count(*) AS k2 FROM TABLE GROUP BY KEY", "SELECT max(KEY) AS k1, count(*) AS k2 FROM TABLE GROUP BY x",
  "SELECT KEY AS k1, row_number() OVER (ORDER BY KEY, x) AS k2 FROM TABLE",
  "SELECT KEY AS k1, count(*) AS k2 FROM TABLE GROUP BY ROLLUP (1)",
  "SELECT KEY AS k1, x AS k2 FROM TABLE UNION ALL SELECT user_id, x FROM users",
  "SELECT KEY AS k1, x AS k2 FROM TABLE EXCEPT SELECT user_id, x FROM users WHERE x > 2",
  "SELECT KEY AS k1, x AS k2 FROM TABLE UNION SELECT id, x FROM countries",
  "SELECT x AS k1, KEY AS k2 FROM TABLE", "SELECT KEY AS k1, x AS k2 FROM TABLE WHERE KEY = VALUE",
  "SELECT KEY AS k1, (SELECT count(*) FROM users) AS k2 FROM TABLE",
  "SELECT t.KEY AS k1, users.x AS k2 FROM TABLE t LEFT JOIN users ON users.user_id = t.KEY AND t.KEY = VALUE",
  "SELECT users.user_id AS k1, t.x AS k2 FROM TABLE t LEFT JOIN users ON users.user_id = VALUE",
  "SELECT user_id AS k1, t.x AS k2 FROM users FULL JOIN TABLE t ON t.KEY = user_id",
}

-- How that key is looked at.
local USES = {
  "SELECT * FROM (QUERY) s WHERE s.k1 = VALUE", "SELECT * FROM (QUERY) s(a, k1) WHERE s.k1 = VALUE",
  "WITH c AS (QUERY) SELECT * FROM c WHERE k1 = VALUE",
  "WITH c AS (QUERY) SELECT a.k1, b.k1 AS other FROM c a, c b WHERE a.k1 = VALUE",
  "WITH c AS (QUERY) SELECT a.k1, b.k1 AS other FROM c a JOIN c b ON a.k1 = b.k1 WHERE a.k1 = VALUE",
  "WITH c AS MATERIALIZED (QUERY) SELECT k1 FROM c WHERE k1 = VALUE AND NOT EXISTS (SELECT FROM c o WHERE o.k1 > c.k1)",
  "SELECT s.*, orders.x FROM orders LEFT JOIN (QUERY) s ON s.k1 = orders.user_id WHERE orders.user_id = VALUE",
  "SELECT s.*, c.x FROM countries c LEFT JOIN (QUERY) s ON s.k1 = c.id WHERE c.id = VALUE",
  "SELECT s.*, c.x FROM countries c JOIN (QUERY) s ON s.k1 = c.id WHERE c.id = VALUE",
  "SELECT * FROM countries c WHERE c.id = VALUE AND EXISTS (SELECT FROM (QUERY) s WHERE s.k1 = c.id)",
  "SELECT s.*, orders.x FROM orders RIGHT JOIN (QUERY) s ON s.k1 = orders.user_id WHERE orders.user_id = VALUE",
  "SELECT s.*, orders.x FROM orders FULL JOIN (QUERY) s ON s.k1 = orders.user_id WHERE orders.user_id = VALUE",
  "SELECT s.*, orders.x FROM orders FULL JOIN (QUERY) s(user_id, x2) USING (user_id) WHERE user_id = VALUE",
  "SELECT s.*, orders.x FROM orders LEFT JOIN (QUERY) s(user_id, x2) USING (user_id) WHERE user_id = VALUE",
  "SELECT s.*, orders.x FROM orders NATURAL LEFT JOIN (QUERY) s(user_id, x2) WHERE user_id = VALUE",
  "SELECT s.*, orders.x FROM orders NATURAL RIGHT JOIN (QUERY) s(user_id, x2) WHERE orders.user_id = VALUE",
  "SELECT * FROM orders WHERE user_id = VALUE AND user_id IN (SELECT k1 FROM (QUERY) s)",
  "SELECT * FROM orders WHERE user_id = VALUE AND user_id NOT IN (SELECT k1 FROM (QUERY) s WHERE k1 IS NOT NULL)",
  "SELECT * FROM orders WHERE user_id IN (SELECT k1 FROM (QUERY) s WHERE s.k1 = VALUE)",
  "SELECT * FROM orders o WHERE user_id = VALUE AND EXISTS (SELECT FROM (QUERY) s WHERE s.k1 = o.user_id)",
  "SELECT * FROM orders o WHERE user_id = VALUE AND NOT EXISTS (SELECT FROM (QUERY) s WHERE s.k1 = o.user_id)",
  "SELECT o.*, (SELECT count(*) FROM (QUERY) s WHERE s.k1 = o.user_id) AS n FROM orders o WHERE user_id = VALUE",
  "SELECT s.k1, s.k2 FROM orders o, LATERAL (QUERY) s WHERE o.user_id = VALUE AND s.k1 = o.user_id",
  "SELECT s.k1 FROM (QUERY) s, orders u WHERE u.user_id = s.k1 AND (s.k1 = VALUE OR s.k2 = 1)",
  "SELECT s.k1 FROM (QUERY) s WHERE (s.k1 = VALUE AND s.k2 = 1) OR (s.k1 = VALUE AND s.k2 > 1)",
  "WITH RECURSIVE r AS (SELECT k1, 0 AS n FROM (QUERY) s WHERE k1 = VALUE UNION ALL SELECT o.user_id, n + 1 FROM r "
    .. "JOIN orders o ON o.user_id = r.k1 WHERE n < 2) SELECT * FROM r",
  "WITH RECURSIVE r AS (SELECT k1, 0 AS n FROM (QUERY) s WHERE k1 = VALUE UNION ALL SELECT o.x, n + 1 FROM r "
    .. "JOIN orders o ON o.user_id = r.k1 WHERE n < 2) SELECT * FROM r",
}

-- What is written by it.
local WRITES = {
  "INSERT INTO orders (user_id, x) SELECT s.k1, 9 FROM (QUERY) s WHERE s.k1 = VALUE",
  "INSERT INTO orders (user_id, x) SELECT s.k1, 9 FROM countries c LEFT JOIN (QUERY) s ON s.k1 = c.id AND s.k1 = VALUE",
  "INSERT INTO orders (user_id, x) SELECT SAME, s.k1 FROM (QUERY) s WHERE s.k1 = SAME",
  "INSERT INTO orders (x, user_id) SELECT 9, u.user_id FROM users u JOIN (QUERY) s ON s.k1 = u.user_id WHERE s.k1 = VALUE",
  "INSERT INTO orders (user_id, x) SELECT k1, 9 FROM (QUERY) s WHERE k1 = SAME UNION ALL SELECT SAME, 8",
  "UPDATE orders SET x = 9 FROM (QUERY) s WHERE s.k1 = orders.user_id AND orders.user_id = VALUE",
  "UPDATE orders SET x = 9 WHERE user_id = VALUE AND x < (SELECT count(*) FROM (QUERY) s WHERE s.k1 = orders.user_id)",
  "UPDATE orders SET user_id=SAME, x = 9 WHERE user_id = SAME",
  "DELETE FROM orders WHERE user_id = VALUE AND user_id IN (SELECT k1 FROM (QUERY) s)",
  "DELETE FROM orders WHERE user_id = VALUE AND NOT EXISTS (SELECT FROM (QUERY) s WHERE s.k1 = orders.user_id)",
  "DELETE FROM orders USING (QUERY) s WHERE s.k1 = orders.user_id AND s.k1 = VALUE",
  "MERGE INTO orders o USING (QUERY) s ON o.user_id = s.k1 AND s.k1 = VALUE WHEN MATCHED THEN DELETE",
  "MERGE INTO orders o USING (SELECT DISTINCT k1 FROM (QUERY) s WHERE k1 = VALUE) s ON o.user_id = s.k1 "
    .. "WHEN MATCHED THEN UPDATE SET x = 9 WHEN NOT MATCHED THEN INSERT (user_id, x) VALUES (s.k1, 8)",
  "MERGE INTO orders o USING (SELECT DISTINCT k1 FROM (QUERY) q) s ON o.user_id = s.k1 AND s.k1 = SAME "
    .. "WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (user_id, x) VALUES (SAME, 8)",
  "MERGE INTO orders o USING (VALUES (VALUE, 1)) s(k1, x) ON o.user_id = s.k1 WHEN MATCHED THEN UPDATE SET x = 9 "
    .. "WHEN NOT MATCHED THEN INSERT (x, user_id) VALUES (8, s.k1)",
  "MERGE INTO orders o USING countries c ON o.user_id = c.id AND c.id = SAME WHEN MATCHED THEN DELETE "
    .. "WHEN NOT MATCHED THEN INSERT (user_id, x) VALUES (SAME, c.x)",
  "WITH d AS (DELETE FROM users WHERE user_id = VALUE RETURNING user_id AS k1, x) "
    .. "INSERT INTO orders (user_id, x) SELECT d.k1, 9 FROM d JOIN (QUERY) s ON s.k1 = d.k1",
  "WITH d AS (UPDATE users SET x = 9 WHERE user_id = VALUE RETURNING *) "
    .. "DELETE FROM orders USING d WHERE d.user_id = orders.user_id",
}

-- One of those, by chance.
function Generator:focused(uses)
  local name = self:pick({ "users", "orders", "pages" })
  local text = self:pick(uses)
  if self:chance(35) then
    text = text:gsub("= VALUE", "> 0") -- of all shards, then
  end
  text = text:gsub("QUERY", (self:pick(SHAPES):gsub("%%", "%%%%")))
  local words = { KEY = statements.TABLES[name][1], TABLE = name, SAME = self:value() }
  return (text:gsub("%u+", function(word)
    return words[word] or word == "VALUE" and self:value() or nil
  end))
end

--- A SELECT, perhaps with WITH.
-- @treturn string
-- @treturn boolean does it give rows as they are?
function Generator:read()
  self.aliases = 0
  if self:chance(50) then
    return self:focused(USES), true
  end
  local ctes, with = {}, ""
  if self:chance(25) then
    local query, columns = self:query(1, {}, {})
    ctes[1] = { name = "c1", columns = columns }
    with = ("WITH c1 AS (%s) "):format(query)
  end
  local query, _, plain = self:query(2, ctes, {})
  return with .. query, plain
end

--- An INSERT, UPDATE, DELETE or MERGE.
-- @treturn string
function Generator:write()
  self.aliases = 0
  if self:chance(50) then
    return self:focused(WRITES)
  end
  local name = self:pick({ "users", "orders", "pages" })
  local key = statements.TABLES[name][1]
  local kind = self.random(10)
  if kind <= 3 then
    local query = self:query(1, {}, {})
    return ("INSERT INTO %s (%s, x) SELECT k1, 9 FROM (%s) q"):format(name, key, query)
  elseif kind == 4 then
    return ("INSERT INTO %s (x, %s) VALUES (7, %s), (8, %s)"):format(name, key, self:value(), self:value())
  end
  local alias = self:alias()
  local items, more = { self:named(alias, statements.TABLES[name]) }, ""
  if self:chance(50) then
    local from, others = self:from(1, {}, {})
    more = from
    for _, one in ipairs(others) do
      items[#items + 1] = one
    end
  end
  local where = self:condition(1, {}, items, {})
  if more ~= "" and self:chance(70) then
    where = ("%s = %s AND %s"):format(items[1][1], items[2][1], where)
  end
  if kind <= 7 then
    return ("UPDATE %s %s SET x = 9%s WHERE %s"):format(name, alias, more ~= "" and " FROM " .. more or "", where)
  end
  return ("DELETE FROM %s %s%s WHERE %s"):format(name, alias, more ~= "" and " USING " .. more or "", where)
end

return statements
