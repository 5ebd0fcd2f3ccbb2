--- Is every row where the map says? Looks at all rows of the sharded tables, and changes nothing.
-- Where PostgreSQL can compute the bucket, each shard counts its rows by bucket; otherwise the keys come here and the
-- strategy is asked. Sessions have `row_security = off`: rows that are hidden from the user are an error, not absent.
-- @module lunashard.catalog.verify
-- @local

local breath = require("lunashard.plugin.breath")
local buckets = require("lunashard.catalog.buckets")
local errors = require("lunashard.errors")
local expression = require("lunashard.catalog.expression")
local parallel = require("lunashard.parallel")
local row_key = require("lunashard.row_key")
local schema = require("lunashard.catalog.schema")
local statement = require("lunashard.router.statement")

local verify = {}

local PIECE = 256 -- keys between two looks at the clock
local MOST_BUCKETS = 200 -- named in one line of a repair plan

local function columns_of(shard_key)
  local list = {}
  for i, column in ipairs(type(shard_key) == "table" and shard_key or { shard_key }) do
    list[i] = statement.quote_ident(column)
  end
  return list
end

-- What is wrong with a right, in words of the user's.
local function explained(err, member, name)
  if err.sqlstate ~= "42501" then
    return errors.wrap(err, { shard_id = member.shard_id })
  end
  return errors.wrap(err, {
    code = "AUTH",
    shard_id = member.shard_id,
    message = ("%s: looking at %s: %s"):format(member.shard_id, name, err.message),
    hint = ('GRANT SELECT ON %s TO "%s", who must also see all rows where row security is on (its owner, or BYPASSRLS)'):format(
      name, member.info.user or "the user of the cluster file"),
  })
end

-- A bucket as the strategy has it; in SQL all are texts.
local function native(bound, text)
  return bound.map and tonumber(text) or text
end

-- ---- looking -----------------------------------------------------------------------------

-- Rows by bucket, as the server counts them; "" stands for rows without a bucket.
local function count_there(lease, what, by_bucket, deadline)
  local sql = "SELECT coalesce(b, '') AS b, count(*) AS n FROM (SELECT %s AS b FROM %s) t GROUP BY 1"
  local result, err = lease:execute(sql:format(what.sql, what.quoted), nil, { deadline = deadline })
  for _, row in ipairs(result and result.rows or {}) do
    by_bucket[row.b] = { rows = row.n }
  end
  return result and true, err
end

-- The same with the strategy in Lua; the keys come one by one.
local function count_here(lease, what, by_bucket, deadline)
  local cursor, err = lease:stream(("SELECT %s FROM %s"):format(table.concat(what.columns, ", "), what.quoted), {},
    { deadline = deadline })
  if not cursor then
    return nil, err
  end
  local names, pause, n = {}, breath.new(), 0
  for i, column in ipairs(type(what.shard_key) == "table" and what.shard_key or { what.shard_key }) do
    names[i] = column
  end
  local function note(row)
    local key, bucket, why = row_key.of(row, names), nil, nil
    if key ~= nil then
      bucket, why = what.bound:bucket(key)
    end
    if why and bucket == nil and not errors.is(why, "NO_SHARD") then
      error(why, 0)
    end
    local text = bucket ~= nil and buckets.text(bucket) or ""
    by_bucket[text] = by_bucket[text] or { rows = 0, native = bucket }
    by_bucket[text].rows = by_bucket[text].rows + 1
    n = n + 1
    if n % PIECE == 0 then
      pause()
    end
  end
  local ok, problem = pcall(function()
    while true do
      local rows, why = cursor:next_rows(PIECE)
      if not rows then
        error(why, 0)
      elseif #rows == 0 then
        return
      end
      for _, row in ipairs(rows) do
        note(row)
      end
    end
  end)
  cursor:close()
  if ok then
    return true
  elseif errors.is(problem) and problem.code ~= "CANCELED" then
    return nil, problem
  end
  error(problem, 0)
end

local function look(what, member, deadline)
  local exists, err = member.primary.pool:execute("SELECT to_regclass($1) IS NOT NULL AS found", { what.quoted },
    { deadline = deadline })
  if not exists then
    return nil, err
  elseif not exists.rows[1].found then
    return { missing = true }
  end
  local by_bucket = {}
  local ok
  ok, err = schema.transaction(member.primary.pool, deadline, function(lease)
    local set, problem = lease:execute("SET LOCAL row_security = off", nil, { deadline = deadline })
    if not set then
      return nil, problem
    end
    return (what.sql and count_there or count_here)(lease, what, by_bucket, deadline)
  end, "READ ONLY")
  if not ok then
    return nil, explained(err, member, what.name)
  end
  return { by_bucket = by_bucket }
end

-- ---- judging ------------------------------------------------------------------------------

local function owner_of(bound, text, known)
  local bucket = known.native ~= nil and known.native or native(bound, text)
  return bound:place(bucket)
end

-- The misplaced rows of one shard, by the shard that they belong to.
local function judge(what, member, by_bucket, report)
  local ways = {}
  for text, known in pairs(by_bucket) do
    report.rows = report.rows + known.rows
    local owner = text ~= "" and owner_of(what.bound, text, known) or nil
    if owner ~= member.shard_id then
      local way = ways[owner or ""]
      if not way then
        way = { table = what.name, from = member.shard_id, to = owner, rows = 0, buckets = {} }
        ways[owner or ""] = way
        report.misplaced[#report.misplaced + 1] = way
      end
      way.rows = way.rows + known.rows
      way.buckets[#way.buckets + 1] = text ~= "" and text or nil
    end
  end
end

local function literal_list(list)
  local parts = {}
  for i, text in ipairs(list) do
    parts[i] = expression.literal(text)
  end
  return table.concat(parts, ", ")
end

-- What would bring misplaced rows home, for people to look at.
local function repair(what, way)
  if not way.to then
    way.repair = { ("rows of %s on %s without a shard (their key is NULL, or nothing covers it): give them a key"):format(
      way.table, way.from) }
  elseif not what.sql or #way.buckets > MOST_BUCKETS then
    way.repair = { ("move %d rows of %s in %d buckets from %s to %s: a script with router:copy_in and DELETE by key"):format(
      way.rows, way.table, #way.buckets, way.from, way.to) }
  else
    local where = ("%s IN (%s)"):format(what.sql, literal_list(way.buckets))
    way.repair = {
      ("on %s: COPY (SELECT * FROM %s WHERE %s) TO STDOUT"):format(way.from, what.quoted, where),
      ("on %s: COPY %s FROM STDIN, fed with these rows"):format(way.to, what.quoted),
      ("on %s, when they are there: DELETE FROM %s WHERE %s"):format(way.from, what.quoted, where),
    }
  end
end

local function sort_buckets(list)
  table.sort(list, function(a, b)
    local m, n = tonumber(a), tonumber(b)
    if m and n then
      return m < n
    end
    return a < b
  end)
end

local function verify_table(manager, what, deadline)
  local outcome = parallel.each(manager.members, function(member)
    return look(what, member, deadline)
  end)
  local report = { table = what.name, group = what.group, rows = 0, misplaced = {}, missing_on = {},
    by = what.sql and "sql" or "scan" }
  for i, member in ipairs(manager.members) do
    local found = outcome.results[i]
    if not found then
      return nil, errors.wrap(outcome.errors[i], { shard_id = member.shard_id })
    elseif found.missing then
      table.insert(report.missing_on, member.shard_id)
    else
      judge(what, member, found.by_bucket, report)
    end
  end
  for _, way in ipairs(report.misplaced) do
    sort_buckets(way.buckets)
    repair(what, way)
  end
  table.sort(report.misplaced, function(a, b)
    return a.from .. "\0" .. (a.to or "") < b.from .. "\0" .. (b.to or "")
  end)
  return report
end

local function what_of(manager, name)
  local declared = manager.tables[name]
  local bound, err = manager:strategy_for(name)
  local quoted = statement.quote_table(name)
  if not quoted then
    return nil, errors.new("INVALID", { message = ("tables: %q is no table's name"):format(name) })
  elseif not bound then
    return nil, err
  end
  local columns = columns_of(declared.shard_key)
  return { name = name, quoted = quoted, bound = bound, columns = columns, shard_key = declared.shard_key,
    sql = expression.bucket(bound, columns),
    group = require("lunashard.catalog.fingerprint").key_type(declared.type) }
end

--- Look at all rows of the declared tables. Yields.
-- @tparam Manager manager initialized; with a catalog by its map, without one by the strategies
-- @tparam[opt] table opts `tables`: names, all by default; `deadline`; `on_progress(text)`
-- @treturn[1] table `rows`, `misplaced` (how many), `tables`: a list, each with `table group rows by` (`sql` or `scan`),
--   `missing_on` (shards without the table), `misplaced`: a list, each `{ from, to, rows, buckets, repair }`, `to` nil for
--   rows that belong nowhere
-- @treturn[2] nil
-- @treturn[2] lunashard.error also `AUTH`, with what to grant
function verify.run(manager, opts)
  opts = opts or {}
  local names, report = {}, { rows = 0, misplaced = 0, tables = {} }
  for name, declared in pairs(manager.tables) do
    names[#names + 1] = not declared.reference and name or nil
  end
  names = opts.tables or names
  table.sort(names)
  for i, name in ipairs(names) do
    local what, err = what_of(manager, name)
    local one
    if what then
      if opts.on_progress then
        opts.on_progress(("looking at %s on %d shards"):format(name, #manager.members))
      end
      one, err = verify_table(manager, what, opts.deadline)
    end
    if not one then
      return nil, err
    end
    report.tables[i], report.rows = one, report.rows + one.rows
    for _, way in ipairs(one.misplaced) do
      report.misplaced = report.misplaced + way.rows
    end
  end
  return report
end

-- ---- what the shards say that they own ------------------------------------------------------

--- Where what the shards own differs from the catalog's map. Yields.
-- @tparam Manager manager with a catalog, which was just read
-- @tparam ?number deadline
-- @treturn[1] {table,...} each `{ shard_id, group, bucket, message }`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function verify.ownership(manager, deadline)
  local outcome = parallel.each(manager.members, function(member)
    return member.primary.pool:execute("SELECT grp, bucket, version FROM lunashard.bucket ORDER BY grp, bucket", nil,
      { deadline = deadline })
  end)
  local list, owned = {}, {}
  local function differ(shard_id, group, bucket, format, ...)
    list[#list + 1] = { shard_id = shard_id, group = group, bucket = bucket, message = format:format(...) }
  end
  for i, member in ipairs(manager.members) do
    local result, id = outcome.results[i], member.shard_id
    if not result then
      if outcome.errors[i].sqlstate ~= "42P01" or manager.catalog:owned_by(id) > 0 then
        return nil, errors.wrap(outcome.errors[i], { shard_id = id })
      end
      result = { rows = {} }
    end
    for _, row in ipairs(result.rows) do
      local group = manager.catalog.map.groups[row.grp]
      local owner = group and group.owners[row.bucket]
      owned[row.grp .. "\0" .. row.bucket] = true
      if owner ~= id then
        differ(id, row.grp, row.bucket, "%s says that it owns bucket %s of %s, the catalog says %s", id, row.bucket, row.grp,
          owner or "nobody")
      elseif row.version ~= (group.versions[row.bucket] or 1) then
        differ(id, row.grp, row.bucket, "bucket %s of %s has version %s on %s and %s in the catalog", row.bucket, row.grp,
          tostring(row.version), id, tostring(group.versions[row.bucket] or 1))
      end
    end
  end
  for name, group in pairs(manager.catalog.map.groups) do
    for bucket, owner in pairs(group.owners) do
      if not owned[name .. "\0" .. bucket] then
        differ(owner, name, bucket, "%s does not say that it owns bucket %s of %s, as the catalog does", owner, bucket, name)
      end
    end
  end
  return list
end

return verify
