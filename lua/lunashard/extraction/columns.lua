--- The plan of a statement by the columns of its shard keys.
-- Everything that is not certain is left out: what remains unsaid sends a read to all shards and refuses a write.
-- @module lunashard.extraction.columns

local errors = require("lunashard.errors")
local levels = require("lunashard.sql.levels")
local source = require("lunashard.sql.levels.source")
local splice = require("lunashard.sql.splice")

local columns = {}

-- Functions of PostgreSQL's own that any server answers alike, or for itself, and that touch no table.
local HARMLESS = {}
for name in ([[now version current_database current_schema pg_backend_pid pg_is_in_recovery clock_timestamp
  statement_timestamp transaction_timestamp pg_postmaster_start_time inet_server_addr inet_server_port gen_random_uuid
  random generate_series unnest count sum min max avg array_agg string_agg json_agg jsonb_agg length lower upper abs round
  concat md5 to_char date_trunc current_setting row_number rank]]):gmatch("%S+") do
  HARMLESS[name] = true
end

local ADVICE = "pass routing_key or shard_id, or all_shards = true when every shard is meant"

local function refuse(plan, code, reason, hint)
  plan.kind, plan.code, plan.reason, plan.hint = "refused", code, reason, hint
  return plan
end

-- Nothing says which shard: every shard for a read, none for a write.
local function unknown_key(plan, reason)
  if plan.write then
    return refuse(plan, "NO_KEY", reason, ADVICE)
  end
  plan.kind, plan.reason = "all", reason
  return plan
end

local function display(instance)
  local name = instance.table
  return instance.alias ~= instance.name and ("%s (%s)"):format(name, instance.alias) or name
end

local function shown(read)
  if read.param then
    return "$" .. read.param
  end
  return type(read.value) == "cdata" and tostring(read.value):gsub("U?LL$", "") or tostring(read.value)
end

-- ---- one key ----

-- The sources that a column of an instance equals: list, and by id. Or why there are none.
local function equal_to(instance, c)
  local list, by_id, why = {}, {}, nil
  for _, domain in ipairs(instance.domains[c]) do
    if domain.kind == "eq" then
      local key, reason = source.as_key(domain.source, instance.key.types[c])
      why = why or reason
      if key and not by_id[key.id] then
        by_id[key.id], list[#list + 1] = key, key
      end
    end
  end
  return list, by_id, why
end

local function column_text(instance, c)
  return ("%s of %s"):format(instance.key.columns[c], display(instance))
end

-- The one source that a column equals in every instance.
local function common_source(instances, c)
  local list, _, why = equal_to(instances[1], c)
  if #list == 0 then
    return nil, column_text(instances[1], c) .. (why and (" is not known: " .. why) or " is not said to equal anything")
  end
  for i = 2, #instances do
    local own, by_id, reason = equal_to(instances[i], c)
    if #own == 0 then
      return nil, column_text(instances[i], c)
        .. (reason and (" is not known: " .. reason) or " is not said to equal anything")
    end
    local kept = {}
    for _, key in ipairs(list) do
      kept[#kept + 1] = by_id[key.id] and key or nil
    end
    if #kept == 0 then
      return nil, ("%s is %s, but %s is %s"):format(column_text(instances[1], c), shown(list[1]),
        column_text(instances[i], c), shown(own[1]))
    end
    list = kept
  end
  return list[1]
end

local function set_source(plan, key)
  plan.source = key
  if key.as == nil then
    plan.param, plan.value = key.param, key.value
  end
end

local function single_key(plan, instances)
  local keys, texts = {}, {}
  for c, column in ipairs(instances[1].key.columns) do
    local key, reason = common_source(instances, c)
    if not key then
      return nil, reason
    end
    keys[c], texts[c] = key, column .. " = " .. shown(key)
  end
  plan.kind = "key"
  plan.reason = ("%s: %s"):format(display(instances[1]), table.concat(texts, ", "))
  if #keys == 1 then
    set_source(plan, keys[1])
  else
    plan.columns = keys
  end
  return plan
end

-- ---- several keys ----

-- Domains of a kind that every instance is in.
local function common_domain(instances, wanted)
  for _, domain in ipairs(instances[1].domains[1]) do
    local in_all = wanted(domain)
    for i = 2, #instances do
      local found = false
      for _, other in ipairs(instances[i].domains[1]) do
        found = found or other.id == domain.id
      end
      in_all = in_all and found
    end
    if in_all then
      return domain
    end
  end
end

local function as_keys(sources, key_type)
  local list = {}
  for i, read in ipairs(sources) do
    local key, reason = source.as_key(read, key_type)
    if not key then
      return nil, reason
    end
    list[i] = key
  end
  return list
end

-- A list in the text may be cut to the keys of one shard, when it is of the key itself.
local function list_cutter(sql, domain)
  local at = domain.at
  if not at or not at.of_key then
    return nil
  end
  local cut = splice.list(sql, at)
  return cut and function(indexes, params)
    local wanted = {}
    for i, index in ipairs(indexes) do
      wanted[i] = at.positions[index]
    end
    return cut(wanted, params)
  end
end

local function list_of_keys(plan, sql, instances)
  local key_type = instances[1].key.types[1]
  local why
  local domain = common_domain(instances, function(one)
    if one.kind ~= "list" then
      return false
    end
    local list, reason = as_keys(one.sources, key_type)
    why = why or reason
    return list ~= nil
  end)
  if not domain then
    return nil, why
  end
  plan.kind, plan.list = "keys", as_keys(domain.sources, key_type)
  plan.split = list_cutter(sql, domain)
  plan.reason = ("%s: %s is one of %d values"):format(display(instances[1]), instances[1].key.columns[1], #plan.list)
  return plan
end

local function array_of_keys(plan, instances)
  local key_type, as = instances[1].key.types[1], nil
  local domain = common_domain(instances, function(one)
    if one.kind ~= "array" then
      return false
    end
    local key = source.as_key({ param = one.param, casts = one.casts }, key_type)
    as = key and key.as
    return key ~= nil
  end)
  if not domain then
    return nil
  end
  plan.kind, plan.array_param, plan.array_as = "keys", domain.param, as
  plan.reason = ("%s: %s = ANY ($%d)"):format(display(instances[1]), instances[1].key.columns[1], domain.param)
  return plan
end

-- (tenant, region) IN ((1, 'eu'), ...) for a key of several columns.
local function rows_of_keys(plan, sql, analysis, instance)
  for _, one in ipairs(analysis.tuples) do
    local tuple, places = one.tuple, {}
    for c, term in ipairs(instance.item.keys) do
      for i, other in ipairs(tuple.terms) do
        places[c] = places[c] or other == term and tuple.lists[i] and i or nil
      end
    end
    if #places == #instance.item.keys and one.targets[instance.item] then
      local list = {}
      for row = 1, tuple.n do
        local reads = {}
        for c, place in ipairs(places) do
          reads[c] = source.as_key(tuple.lists[place][row], instance.key.types[c])
        end
        list[row] = #reads == #places and { columns = reads } or nil
      end
      if #list == tuple.n then
        plan.kind, plan.list, plan.split = "keys", list, splice.list(sql, tuple.at)
        plan.reason = ("%s: (%s) is one of %d values"):format(display(instance),
          table.concat(instance.key.columns, ", "), #list)
        return plan
      end
    end
  end
end

local RANGED = { int8 = true, date = true, any = true }

local function range_of_keys(plan, instances)
  local key_type = instances[1].key.types[1]
  if not RANGED[key_type] then
    return nil
  end
  local low = common_domain(instances, function(one)
    return one.kind == "range" and one.low ~= nil and source.as_key(one.low, key_type) ~= nil
  end)
  local high = common_domain(instances, function(one)
    return one.kind == "range" and one.high ~= nil and source.as_key(one.high, key_type) ~= nil
  end)
  if not low and not high then
    return nil
  end
  plan.kind, plan.untyped = "range", key_type == "any"
  if low then
    plan.low, plan.low_exclusive = source.as_key(low.low, key_type), low.low_exclusive
  end
  if high then
    plan.high, plan.high_exclusive = source.as_key(high.high, key_type), high.high_exclusive
  end
  plan.reason = ("%s: %s is in a range"):format(display(instances[1]), instances[1].key.columns[1])
  return plan
end

local function several_keys(plan, sql, analysis)
  local instances = analysis.instances
  if #instances[1].key.columns > 1 then
    return #instances == 1 and rows_of_keys(plan, sql, analysis, instances[1])
  end
  local found, why = list_of_keys(plan, sql, instances)
  found = found or array_of_keys(plan, instances) or range_of_keys(plan, instances)
  return found, why
end

-- ---- INSERT of several rows ----

local function insert_of_rows(plan, sql, analysis, instance, relation)
  if not relation or #analysis.instances > 1 or #analysis.writes > 1 then
    return refuse(plan, "NO_KEY", ("the rows that are inserted into %s have different keys, and the INSERT is not all that "
      .. "the statement does"):format(display(instance)), ADVICE)
  end
  local list = {}
  for i, reads in ipairs(instance.rows) do
    local keys = {}
    for c, read in ipairs(reads) do
      local key, reason = source.as_key(read, instance.key.types[c])
      if not key then
        return refuse(plan, "NO_KEY", ("row %d: %s is not known: %s"):format(i, column_text(instance, c), reason), ADVICE)
      end
      keys[c] = key
    end
    list[i] = #keys == 1 and keys[1] or { columns = keys }
  end
  local split = splice.rows(sql, relation.location, #list)
  if not split then
    return refuse(plan, "NO_KEY", "the rows of this INSERT cannot be told apart in its text", "use execute_many")
  end
  plan.kind, plan.rows, plan.split = "rows", list, split
  plan.reason = ("%s: %d rows, each by its %s"):format(display(instance), #list,
    table.concat(instance.key.columns, ", "))
  return plan
end

-- ---- tables without a key ----

local function unknown_tables(plan, declared, list)
  if not declared.declares then
    return unknown_key(plan, "no tables are declared, and the strategy names no shard_key")
  end
  local one = list[1]
  local near = errors.nearest(one.name, declared.names)
  return unknown_key(plan, ("table %s is not declared%s"):format(one.schema and one.schema .. "." .. one.name or one.name,
    near and ("; did you mean %q?"):format(near) or ""))
end

local function without_keys(plan, analysis)
  local references = analysis.references
  if #analysis.system > 0 then
    return unknown_key(plan, "every server has its own " .. analysis.system[1].name)
  elseif #references > 0 then
    plan.kind, plan.table = "reference", references[1].table
    plan.reason = ("%s is a reference table"):format(references[1].table)
    return plan
  end
  for _, call in ipairs(analysis.calls) do
    local name = call.funcname[#call.funcname].String.sval
    if not HARMLESS[name] then
      return unknown_key(plan, ("the statement names no table, and what %s does may be different on every shard"):format(
        name))
    end
  end
  plan.kind, plan.reason = "reference", "the statement names no table: any shard can answer"
  return plan
end

local function writes_reference(analysis)
  for _, write in ipairs(analysis.writes) do
    if write.item.entry and write.item.entry.reference then
      return write.item.entry.table
    end
  end
end

local function with_keys(plan, sql, analysis, relation)
  local instances = analysis.instances
  local one = instances[1]
  for _, instance in ipairs(instances) do
    one = instance.written and not one.written and instance or one
  end
  plan.table = one.key.table
  local reference = writes_reference(analysis)
  if reference then
    return refuse(plan, "NO_KEY", ("%s is on every shard, but what the statement does to it depends on %s, which is not")
      :format(reference, display(one)), "read the rows first, then write them")
  end
  for _, instance in ipairs(instances) do
    if instance.rows then
      return insert_of_rows(plan, sql, analysis, instance, relation)
    elseif instance.key.type_id ~= one.key.type_id then
      return unknown_key(plan, ("%s and %s have keys of different types"):format(display(one), display(instance)))
    end
  end
  local found, reason = single_key(plan, instances)
  if found then
    return found
  end
  local several, why = several_keys(plan, sql, analysis)
  if not several then
    return unknown_key(plan, why and ("%s is not known: %s"):format(column_text(one, 1), why) or reason)
  elseif plan.write and not analysis.is_local then
    return refuse(plan, "NO_KEY", analysis.why_not, ADVICE)
  end
  return several
end

local function plan_of(plan, sql, stmt, declared)
  local analysis, err = levels.analyse(sql, stmt, declared)
  if not analysis then
    return refuse(plan, "NO_KEY", err.message, ADVICE)
  elseif #analysis.unknown > 0 then
    return unknown_tables(plan, declared, analysis.unknown)
  elseif analysis.refusal then
    plan.table = analysis.instances[1] and analysis.instances[1].key.table
    return refuse(plan, analysis.refusal.code, analysis.refusal.reason, analysis.refusal.hint or ADVICE)
  elseif #analysis.instances == 0 then
    return without_keys(plan, analysis)
  end
  local insert = stmt.InsertStmt
  return with_keys(plan, sql, analysis, insert and insert.relation)
end

local EVERYWHERE = "execute_on_all_shards runs it everywhere, shard_id on one shard"

-- A statement that is none of those with levels.
local function utility(plan, parsed, declared)
  local explained = parsed.ast[1].stmt.ExplainStmt
  local inner = explained and explained.query
  if inner and (inner.SelectStmt or inner.InsertStmt or inner.UpdateStmt or inner.DeleteStmt or inner.MergeStmt) then
    plan_of(plan, parsed.sql, inner, declared)
    if plan.kind == "key" or plan.kind == "refused" or plan.kind == "reference" and not plan.write then
      return plan
    end
  end
  return refuse(plan, "NO_KEY", inner and "EXPLAIN of a statement that is for several shards"
    or "a statement of this kind names no key", EVERYWHERE)
end

--- Plan a statement.
-- @tparam table statement `sql`, and `parsed`: what `lunashard.sql.statement.parse` gives
-- @tparam Tables declared see `lunashard.sql.tables`
-- @treturn table plan, see `lunashard.extraction`
function columns.plan(statement, declared)
  local parsed = statement.parsed
  local plan = { extractor = "by_column", write = parsed.modifies or parsed.into }
  if parsed.kind == "utility" then
    return utility(plan, parsed, declared)
  elseif parsed.into then
    return refuse(plan, "NO_KEY", "SELECT INTO makes a table", EVERYWHERE)
  elseif parsed.cursor then
    return refuse(plan, "NO_KEY", "WHERE CURRENT OF: a cursor is of one session, use a transaction", ADVICE)
  end
  return plan_of(plan, parsed.sql, parsed.ast[1].stmt, declared)
end

return columns
