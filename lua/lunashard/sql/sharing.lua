--- Whether a statement may share a connection with those of other tasks.
--
-- `batch`: a read that cannot do anything but read, so that several can share one transaction. `share`: it may run in a
-- transaction of its own on a shared session, where it leaves nothing behind but what it commits. `alone`: all else,
-- and whatever is not known for certain.
--
-- A function is believed to be what it is declared as, unless its source hints at session state (see
-- `lunashard.sql.question`). Only a batch that calls none but the server's own is `repeatable`: should a function have
-- effects in spite of its declaration, it still has them once. A trigger keeps a write alone when its function does, or
-- is not in PL/pgSQL. What functions called by these do is not seen. What a write sets off beyond its table is followed
-- along partitions, inheritance and foreign keys.
-- @module lunashard.sql.sharing

local statement = require("lunashard.sql.statement")

local sharing = {}

local BATCH, SHARE, ALONE = 1, 2, 3
local CLASSES = { "batch", "share", "alone" }

local MAX_TEXT = 8192

local function set(words)
  local members = {}
  for word in words:gmatch("%S+") do
    members[word] = true
  end
  return members
end

-- Volatile functions of the server itself that leave nothing in the session.
local HARMLESS = set([[
  clock_timestamp current_query gen_random_uuid nextval setval pg_notify random timeofday
  pg_blocking_pids pg_current_wal_flush_lsn pg_current_wal_insert_lsn pg_current_wal_lsn pg_is_in_recovery
  pg_is_wal_replay_paused pg_last_wal_receive_lsn pg_last_wal_replay_lsn pg_last_xact_replay_timestamp pg_lock_status
  pg_partition_ancestors pg_partition_tree pg_sequence_last_value pg_xact_commit_timestamp pg_xact_status txid_status
  pg_database_size pg_indexes_size pg_relation_size pg_table_size pg_tablespace_size pg_total_relation_size
]])

-- Extensions none of whose functions touches the session.
local HARMLESS_EXTENSIONS = { pgcrypto = true, ["uuid-ossp"] = true }

-- Not volatile by their declaration, but they run what views or texts say, or show settings that shared sessions have
-- changed.
local EXECUTORS = set([[
  pg_show_all_settings
  connectby crosstab crosstab2 crosstab3 crosstab4 crosstabn database_to_xml database_to_xml_and_xmlschema
  schema_to_xml schema_to_xml_and_xmlschema table_to_xml table_to_xml_and_xmlschema xpath_table
]])

-- One judgement: `class` so far with its `reason`, the names that are `missing` from the facts, the facts `seen`.
local function rate(verdict, class, reason, ...)
  if class > verdict.class then
    verdict.class, verdict.reason = class, reason:format(...)
  end
end

-- The facts about a name that its schema allows; nil when they are still to be asked for.
local function look_up(verdict, kind, entry)
  local facts = verdict.facts[kind][entry.name]
  if not facts then
    verdict.missing[kind] = verdict.missing[kind] or {}
    verdict.missing[kind][entry.name] = true
    verdict.is_missing = true
  elseif entry.schema and facts[1] then
    local matching = {}
    for _, fact in ipairs(facts) do
      if fact.schema == entry.schema then
        matching[#matching + 1] = fact
      end
    end
    return matching
  end
  return facts
end

local function is_temporary(schema)
  return schema ~= nil and schema:find("^pg_temp") ~= nil
end

local SETTINGS = { "lock_timeout", "transaction_read_only", "transaction_isolation", "current_setting%s*%(%s*[^'%s]" }

-- Shared sessions have settings of their own, which nobody must take for the server's.
local function rate_text(verdict, text)
  local lower = text:lower()
  for _, pattern in ipairs(SETTINGS) do
    if lower:find(pattern) then
      rate(verdict, ALONE, "it may ask for a setting that shared sessions have changed")
    end
  end
end

local visit

-- What the catalog quotes: the query of a view, an expression.
local function visit_texts(verdict, texts)
  for _, text in ipairs(texts or {}) do
    rate_text(verdict, text)
    local found = statement.parse(text)
    if found and found.statements == 1 then
      visit(verdict, found)
    else -- a newer server's syntax, more than 32 KiB, or dropped while it was read
      rate(verdict, ALONE, "a view, policy, default or check cannot be parsed")
    end
  end
end

local function visit_fact(verdict, fact)
  if not verdict.seen[fact] then
    verdict.seen[fact] = true
    visit_texts(verdict, fact.texts)
  end
end

local VISITS = {}

function VISITS.functions(verdict, fact)
  verdict.repeatable = verdict.repeatable and fact.schema == "pg_catalog"
  if EXECUTORS[fact.name] then
    rate(verdict, ALONE, "function %s runs other queries or shows settings", fact.name)
  elseif is_temporary(fact.schema) then
    rate(verdict, ALONE, "function %s is temporary", fact.name)
  elseif fact.volatile then
    local harmless = fact.schema == "pg_catalog" and HARMLESS[fact.name] or HARMLESS_EXTENSIONS[fact.detail]
    rate(verdict, harmless and SHARE or ALONE, "function %s is volatile", fact.name)
  end
end

function VISITS.operators(verdict, fact)
  verdict.repeatable = verdict.repeatable and fact.schema == "pg_catalog"
  if fact.volatile then
    rate(verdict, ALONE, "operator %s is volatile", fact.name)
  end
end

function VISITS.relations(verdict, fact)
  if fact.detail ~= "table" and fact.detail ~= "view" then
    rate(verdict, ALONE, "%s is a %s", fact.name, fact.detail)
  end
end

function VISITS.targets(verdict, fact)
  if fact.detail then
    rate(verdict, ALONE, "%s %s", fact.name, fact.detail)
  end
end

local function visit_names(verdict, kind, entries)
  for _, entry in ipairs(entries) do
    local facts = look_up(verdict, kind, entry)
    if facts and not facts[1] then
      rate(verdict, ALONE, "%s is not known among the %s", entry.name, kind)
    end
    for _, fact in ipairs(facts or {}) do
      VISITS[kind](verdict, fact)
      visit_fact(verdict, fact)
    end
  end
end

-- Most are columns. Those that are functions take a row.
local function visit_attributes(verdict, entries)
  for _, entry in ipairs(entries) do
    for _, fact in ipairs(look_up(verdict, "functions", entry) or {}) do
      if fact.takes_row then
        VISITS.functions(verdict, fact)
        visit_fact(verdict, fact)
      end
    end
  end
end

function visit(verdict, found)
  if found.locking or found.modifies then
    rate(verdict, SHARE, found.modifies and "it modifies rows" or "it locks rows")
  end
  if found.sample then
    rate(verdict, SHARE, "TABLESAMPLE gives other rows each time")
  end
  for _, entry in ipairs(found.types) do
    if is_temporary(entry.schema) then
      rate(verdict, ALONE, "type %s is temporary", entry.name)
    end
  end
  visit_attributes(verdict, found.attributes)
  visit_names(verdict, "functions", found.functions)
  visit_names(verdict, "operators", found.operators)
  visit_names(verdict, "relations", found.tables)
  visit_names(verdict, "targets", found.targets)
end

-- Casts, input and output of types, comparisons by an index and checks of domains run without being named. They are
-- those of the whole database, so what they call does not say that this statement is not repeatable.
local IMPLICIT = { name = "" }

local function visit_implicit(verdict)
  local facts = look_up(verdict, "implicit", IMPLICIT)
  if facts then
    if facts[1].detail then
      rate(verdict, SHARE, "the database has a cast, type or index over volatile function %s", facts[1].detail)
    end
    local repeatable = verdict.repeatable
    visit_fact(verdict, facts[1])
    verdict.repeatable = repeatable
  end
end

local function why_alone(found)
  if found.statements ~= 1 then
    return found.statements == 0 and "no statement" or "several statements"
  elseif found.kind == "utility" then
    return found.utility .. " may change the session"
  elseif found.into then
    return "SELECT INTO makes a table"
  elseif found.cursor then
    return "a cursor lives in one session"
  end
end

-- Judge by what is known. Once something keeps the statement alone, what is missing does not matter any more.
local function judge(facts, found, text)
  local verdict = {
    class = BATCH, reason = "it only reads", facts = facts, missing = {}, is_missing = false, seen = {},
    repeatable = true,
  }
  rate_text(verdict, text)
  visit_implicit(verdict)
  visit(verdict, found)
  return verdict
end

--- What a statement may do on a connection that others use too. Yields, when the database must be asked.
-- What is returned holds until the catalog calls `changed`.
-- @string text
-- @tparam Catalog catalog from `lunashard.sql.catalog`
-- @treturn[1] string `batch`, `share` or `alone`
-- @treturn[1] string why, for people
-- @treturn[1] boolean a batch that may be run once more than it was asked for
-- @treturn[2] nil it is not known yet: the database could not be asked, or is being asked for something else
-- @treturn[2] string why
function sharing.classify(text, catalog)
  catalog:refresh()
  if #text > MAX_TEXT then
    return "alone", "a text of more than 8 KiB is not looked at"
  end
  local found, err = statement.parse(text)
  if not found then
    return "alone", "it cannot be parsed: " .. err.message
  end
  local reason = why_alone(found)
  if reason then
    return "alone", reason
  end
  while true do
    local verdict = judge(catalog.facts, found, text)
    if verdict.class == ALONE or not verdict.is_missing then
      return CLASSES[verdict.class], verdict.reason, verdict.class == BATCH and verdict.repeatable
    elseif catalog.busy then
      return nil, "the catalog is being asked for something else"
    end
    local learned, problem = catalog:learn(verdict.missing)
    if not learned then
      return nil, "the catalog cannot be read: " .. problem.message
    end
  end
end

return sharing
