--- How the answers of several shards to one statement become its answer, by its parse tree.
-- The answer is the one that a single database with all rows would give, or there is none: what cannot be put together
-- exactly is refused with `NOT_MERGEABLE`, the reason, and what to do instead.
-- @module lunashard.merging

local clauses = require("lunashard.merging.clauses")
local errors = require("lunashard.errors")
local expression = require("lunashard.merging.expression")
local facts = require("lunashard.merging.facts")
local final = require("lunashard.merging.final")
local grouped = require("lunashard.merging.grouped")
local relations = require("lunashard.merging.relations")
local rows = require("lunashard.merging.rows")
local scan = require("lunashard.sql.scan")
local statement = require("lunashard.sql.statement")
local tables = require("lunashard.sql.tables")
local task = require("lunashard.task")
local values = require("lunashard.values")

local merging = {}

local KEPT_PLANS, KEPT_TEXT = 1024, 8192

local ADVICE = "; give aggregation_func, such as lunashard.aggregate.concat for the rows of each shard as they come"

local function refusal(reason)
  return errors.new("NOT_MERGEABLE", { message = reason .. ADVICE })
end

local AS_THEY_COME = "put the shards' rows one after the other"

local function concatenated(sql)
  return { kind = "rows", trivial = true, sql = sql, hidden = {}, order = {}, bounds = {}, steps = { AS_THEY_COME } }
end

-- The same answer on every shard: one is enough.
local function once(ctx, sql)
  return {
    kind = "once",
    reference = ctx.reference or false,
    sql = sql,
    hidden = {},
    order = {},
    bounds = {},
    steps = { ctx.reference and "ask one shard: its tables are the same on every shard"
      or "ask one shard: it names no table" },
  }
end

-- Functions of users may be aggregates.
local function note_functions(ctx, found)
  for _, entry in ipairs(found.functions) do
    if expression.is_unknown_function(entry.name) then
      local fact = ctx.facts.functions[entry.name]
      if fact == nil then
        ctx.missing.functions[entry.name] = true
      else
        ctx.user_aggregates[entry.name] = fact.is_aggregate
      end
    end
  end
end

local NUMBERED_BY_SEQUENCE = { nextval = true, currval = true, lastval = true, setval = true }

local function plan_select(ctx, stmt, parts, parsed)
  local level, reason = relations.level(ctx, {}, stmt)
  local ok = level ~= nil
  if ok then
    ok, reason = relations.check_clauses(ctx, level, stmt)
  end
  if not ok then
    return nil, reason
  elseif not level.sharded then
    return once(ctx, parsed.sql)
  end
  if not parsed.single then
    function parsed.owner_of(name)
      return level:owner_of(name)
    end
  end
  local shape = level:shape(ctx, stmt)
  if shape.aggregated and not shape.grouped_by_key then
    return grouped.plan(parts, stmt, level, ctx, parsed)
  elseif shape.has_windows and not shape.windows_by_key then
    return nil, shape.problem
  elseif #parts.targets ~= #(stmt.targetList or {}) then
    return nil, "its list of columns cannot be read"
  end
  return rows.plan(parts, stmt, {
    parsed = parsed,
    distinct = shape.distinct and not shape.distinct_by_key,
    distinct_on = shape.distinct_on and not shape.distinct_by_key,
  })
end

-- UNION and VALUES.
local function plan_union(ctx, stmt, parts, parsed)
  local entry, reason = relations.derive(ctx, {}, stmt, true)
  if not entry then
    return nil, reason
  elseif not entry.sharded then
    return once(ctx, parsed.sql)
  end
  return rows.plan(parts, stmt, { parsed = parsed, is_union = true, distinct = entry.removes_duplicates })
end

local function analyse(ctx, found, sql)
  local stmt = found.ast[1].stmt.SelectStmt
  local tokens = scan.tokens(sql)
  local parts = clauses.find(sql, tokens)
  local from = stmt.fromClause
  local parsed = { sql = sql, tokens = tokens, single = from ~= nil and #from == 1 and next(from[1]) ~= "JoinExpr" }
  function ctx.integer_of(constant)
    return expression.integer(constant, sql, tokens)
  end
  function ctx.note_functions(of)
    note_functions(ctx, of)
  end
  note_functions(ctx, found)
  if stmt.op ~= "SETOP_NONE" or stmt.valuesLists then
    return plan_union(ctx, stmt, parts, parsed)
  elseif parts.enclosed then
    return nil, "it stands in parentheses: write it without them"
  end
  local plan, reason = plan_select(ctx, stmt, parts, parsed)
  if plan and plan.kind ~= "once" then
    for _, entry in ipairs(found.functions) do
      if NUMBERED_BY_SEQUENCE[entry.name] then
        return nil, ("%s() counts on each shard for itself"):format(entry.name)
      end
    end
  end
  return plan, reason
end

local function new_context(manager, kept)
  return {
    tables = tables.of(manager),
    facts = kept,
    missing = { functions = {}, relations = {} },
    user_aggregates = {},
  }
end

-- `TABLE users` is a list of columns for those who want to add one.
local function spelled_out(sql)
  local word, after, first = scan.next(sql, 1)
  return word == "TABLE" and sql:sub(1, first - 1) .. "SELECT * FROM" .. sql:sub(after) or sql
end

local function is_missing(ctx)
  return next(ctx.missing.functions) ~= nil or next(ctx.missing.relations) ~= nil
end

local MOST_QUESTIONS = 8 -- views of views

local function make(manager, sql, ask, kept)
  local text = spelled_out(sql)
  local found, err = statement.parse(text)
  if not found then
    return nil, err.code == "SQL" and err or refusal(err.message)
  elseif found.statements ~= 1 or found.kind ~= "select" or found.modifies then
    return concatenated(sql)
  end
  for _ = 1, MOST_QUESTIONS do
    local ctx = new_context(manager, kept)
    ctx.is_offline = not ask
    local plan, reason = analyse(ctx, found, text)
    found.ast = nil -- the largest part of what is kept of a text, and made anew for whoever wants it
    if not is_missing(ctx) or not ask then
      if not plan then
        return nil, refusal(reason)
      end
      plan.assumed = is_missing(ctx) or nil
      plan.n_params = found.parameters
      return plan
    end
    local ok
    ok, err = facts.learn(kept, ctx.missing, ask, values.null)
    if not ok then
      return nil, err
    end
  end
  return nil, refusal("its views are nested too deeply")
end

--- Plan how a statement is asked of several shards and its answers are put together.
-- Plans are kept by text, and shared: not to be changed. Yields when `ask` does.
-- @tparam Manager manager
-- @string sql
-- @tparam[opt] table _ parameters: they decide nothing here
-- @tparam[opt] func ask `ask(sql, params)` gives rows of the catalog, or nil and an error; without it functions are
--   taken for no aggregates, and relations for tables
-- @treturn[1] table plan: `kind`: `rows` (the shards' rows, merged as ORDER BY, LIMIT and DISTINCT say), `grouped`
--   (parts of groups) or `once` (the same on every shard; `reference` when it names reference tables); `sql` for the
--   shards and @{params}; `steps`, words for people; `trivial` when rows are only put one after the other; `hidden`,
--   names of columns that are removed again; `assumed` when the catalog was not asked and something was taken on trust
-- @treturn[2] nil
-- @treturn[2] lunashard.error `NOT_MERGEABLE`; `SQL` when it does not parse; what `ask` gave
function merging.plan(manager, sql, _, ask)
  local kept = facts.of(manager, task.now())
  local plan = kept.plans[sql]
  if plan then
    return plan
  end
  local err
  plan, err = make(manager, sql, ask, kept)
  if not plan then
    return nil, err
  end
  plan.numbered, plan.final_texts = plan.sql, {}
  if not plan.trivial and plan.kind ~= "once" then
    plan.sql, plan.param_order = final.renumber(plan.sql)
  end
  if not plan.assumed and #sql <= KEPT_TEXT then
    if kept.n_plans >= KEPT_PLANS then
      kept.plans, kept.n_plans = {}, 0
    end
    kept.plans[sql], kept.n_plans = plan, kept.n_plans + 1
  end
  return plan
end

--- The parameters that go with `plan.sql`.
-- @tparam table plan
-- @tparam ?table params of the whole statement
-- @treturn[1] ?table
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when there are too few or too many
function merging.params(plan, params)
  if not plan.param_order then
    return params
  end
  local n = params and (params.n or #params) or 0
  if n ~= plan.n_params then
    return nil, errors.new("INVALID", {
      message = ("the statement has %d parameters, but %d were given"):format(plan.n_params, n),
    })
  end
  return final.pick(plan.param_order, params)
end

return merging
