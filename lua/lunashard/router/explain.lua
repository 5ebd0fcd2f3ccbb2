--- Where a statement, or a key, would go, and why. Needs no connection, unless a directory has to be asked.
-- @module lunashard.router.explain

local checking = require("lunashard.router.checking")
local explained = require("lunashard.router.explained")
local merging = require("lunashard.merging")
local options = require("lunashard.options")
local reads = require("lunashard.router.reads")
local reference = require("lunashard.router.reference")
local routing = require("lunashard.router.routing")
local scatter = require("lunashard.router.scatter")
local splitting = require("lunashard.router.splitting")
local statement = require("lunashard.router.statement")
local target = require("lunashard.router.target")

local explain = { methods = {} }

local EXPLAIN = options.known(routing.OPTIONS, reads.OPTIONS, {
  hedge = "any",
  all_shards = "boolean",
  shard_ids = "table",
  timeout = "seconds",
  retries = "count",
  decode_json = "boolean",
  max_result_bytes = "count",
  pipeline = "boolean",
})

local function column_text(strategy, declared)
  local column = declared and declared.shard_key or strategy.shard_key
  return type(column) == "table" and table.concat(column, ", ") or column or "the routing key"
end

-- A key, its bucket and its shard.
local function place_key(made, manager, table_name, key, bucket, member)
  local strategy, err = manager:strategy_for(table_name, key)
  if not strategy then
    return nil, err
  end
  made.keys, made.bucket, made.strategy = { key }, bucket, strategy.name
  made.reason = ("%s = %s falls into bucket %s, which strategy %s places on %s"):format(
    column_text(strategy, manager.tables[table_name]), explained.key_text(key), tostring(bucket), strategy.name, member.shard_id)
  return made
end

-- What each member is sent, and what becomes of the answers.
local function add_statements(made, manager, members, sql, params, part, merged)
  for i, member in ipairs(members) do
    local own, values = sql, params
    if part then
      own, values = part(i)
    end
    if merged then
      local plan, err = merging.plan(manager, own, values)
      if not plan then
        return nil, err
      end
      values, err = merging.params(plan, values)
      if err then
        return nil, err
      end
      own, made.steps, made.assumed = plan.sql, made.steps or plan.steps, plan.assumed
    end
    made.statements[member.shard_id] = { sql = own, params = values }
  end
  return made
end

local function named(router, kind, word, sql, params, opts)
  local manager = router.manager
  local member, bucket = routing.resolve(manager, opts)
  if not member then
    return nil, bucket
  end
  if sql and router.checks then
    local ok, err = checking.check(router, sql, params, opts.routing_key, member)
    if not ok then
      return nil, err
    end
  end
  local made = explained.new(kind, word, { member }, "shard_id names the shard", opts)
  made.source = opts.routing_key ~= nil and "routing_key" or "shard_id"
  if sql then
    add_statements(made, manager, { member }, sql, params)
  end
  if opts.routing_key == nil then
    return made
  end
  return place_key(made, manager, opts.table, opts.routing_key, bucket, member)
end

local function everywhere(router, kind, word, sql, params, opts, members, reason)
  local made = explained.new(kind, word, members, reason, opts)
  return add_statements(made, router.manager, members, sql, params, nil, kind == "read")
end

local function found_several(router, kind, word, sql, params, opts, found)
  if kind == "write" then
    local ok, err = scatter.check_write(sql)
    if not ok then
      return nil, err
    end
  end
  local made = explained.new(kind, word, found.members, found.reason, opts)
  made.split, made.split_in = splitting.counts(found), found.plan.kind == "rows" and "row" or "key"
  if kind == "write" then
    made.steps = { "each shard writes its part in a transaction of its own; together they are not atomic" }
  end
  return add_statements(made, router.manager, found.members, sql, params, function(i)
    return splitting.part(found, i, sql, params)
  end, kind == "read")
end

local function extracted(router, kind, word, sql, params, opts)
  local found, err = target.find(router, sql, params, kind)
  if not found then
    return nil, err
  end
  local manager, made = router.manager
  if found.member then
    made = explained.new(kind, word, { found.member }, found.reason, opts)
    add_statements(made, manager, { found.member }, sql, params)
    if found.key ~= nil then
      made, err = place_key(made, manager, found.plan.table, found.key, found.bucket, found.member)
    end
  elseif found.members then
    made, err = found_several(router, kind, word, sql, params, opts, found)
  else
    local members = manager.members
    if found.everywhere then
      members, err = reference.writers(manager)
    end
    if not members then
      return nil, err
    end
    made = explained.new(kind, word, members, found.everywhere and found.reason .. ": every shard gets the write"
      or found.reason, opts)
    made.any = found.anywhere
    add_statements(made, manager, members, sql, params)
  end
  if not made then
    return nil, err
  end
  made.source, made.found, made.table = found.plan.extractor, found.plan.reason, found.plan.table
  return made
end

local function by_reference(router, kind, word, sql, params, opts)
  local ok, err = checking.check_reference(router, opts.table, sql, params)
  if not ok then
    return nil, err
  elseif opts.shard_id ~= nil then
    if kind == "write" then
      return nil, routing.reference_refusal(opts.table)
    end
    return named(router, kind, word, sql, params, opts)
  end
  local members
  members, err = reference.writers(router.manager)
  if not members then
    return nil, err
  end
  local made = explained.new(kind, word, members, opts.table .. " is a reference table: " .. (kind == "read"
    and "any one of the shards answers" or "every shard gets the write"), opts)
  made.source, made.table, made.any = "table", opts.table, kind == "read" or nil
  return add_statements(made, router.manager, members, sql, params)
end

local function by_list(router, kind, word, sql, params, opts)
  local members, err = scatter.members(router.manager, opts.shard_ids)
  if members and kind == "write" then
    local ok = true
    if router.checks then
      ok, err = checking.check_everywhere(router, sql, params)
    end
    if ok and #members > 1 then
      ok, err = scatter.check_write(sql)
    end
    members = ok and members
  end
  if not members then
    return nil, err
  end
  return everywhere(router, kind, word, sql, params, opts, members, opts.all_shards and "all_shards = true"
    or "shard_ids names the shards")
end

-- In the order in which `execute` looks at its options.
local function of_statement(router, sql, params, opts)
  local kind, err = routing.check_statement(sql, opts.read_only)
  if not kind then
    return nil, err
  end
  local _, word = statement.classify(sql)
  local is_named = opts.routing_key ~= nil or opts.shard_id ~= nil
  local how = extracted
  if opts.all_shards then
    if is_named then
      return nil, scatter.contradiction()
    end
    how = by_list
  elseif routing.is_reference(router.manager, opts.table) then
    how = by_reference
  elseif is_named then
    how = named
  elseif opts.shard_ids ~= nil then
    how = by_list
  elseif opts.table ~= nil and router.manager.tables[opts.table] == nil then
    return router.manager:strategy_for(opts.table) -- INVALID, with the nearest name
  end
  return how(router, kind, word, sql, params, opts)
end

--- Say where `execute` or `scatter_gather` would send a statement, or where a key lives.
-- @string[opt] sql may be nil when there is a `routing_key`
-- @tparam[opt] table params
-- @tparam[opt] table opts as for `execute`
-- @treturn[1] table `kind` (`read`, `write`, `key`), `shards` (list of names), `shard_id` when it is one, `any`, `bucket`,
--   `strategy`, `source` and `found` (who found the key, and what), `split`, `statements`, `steps`, `endpoints`,
--   `endpoint_kinds`, `reason`: see `lunashard.router.explained`; `tostring` gives lines of text, `:to_table()` one for JSON
-- @treturn[2] nil
-- @treturn[2] lunashard.error as `execute` would return: `INVALID`, `NULL_KEY`, `NO_SHARD`, `KEY_MISMATCH`, `NO_KEY`,
--   `NOT_MERGEABLE`, `SQL` for what does not parse
function explain.methods:explain(sql, params, opts)
  if sql ~= nil or opts == nil or opts.routing_key == nil then
    routing.check_arguments("explain", sql, params)
  end
  opts = options.check(opts, EXPLAIN, "explain")
  if sql ~= nil then
    return of_statement(self, sql, params, opts)
  end
  return named(self, "key", nil, nil, nil, opts)
end

return explain
