--- Errors that the program might have, and the columns of the verdict that must tell of each.
-- `from` is there exactly once in `file`, else the suite fails: nothing here goes stale unnoticed. Where the program has a
-- second line of defence for something, the mutation takes that away too, or the run does without it. Those that are `long` do
-- not take part in turns.
-- @module spec.mutations.list

local CAPTURE = "lua/lunashard/rebalancer/capture.lua"
local CATCHUP = "lua/lunashard/rebalancer/catchup.lua"
local COPY = "lua/lunashard/rebalancer/copy.lua"
local CUTOVER = "lua/lunashard/rebalancer/cutover.lua"
local EVERYWHERE = "lua/lunashard/router/everywhere.lua"
local FENCE = "lua/lunashard/rebalancer/fence.lua"
local GUARDED = "lua/lunashard/router/guarded.lua"
local GUARDING = "lua/lunashard/router/guarding.lua"
local LEASE = "lua/lunashard/catalog/lease.lua"
local MOVER = "lua/lunashard/rebalancer/mover.lua"
local REQUEST = "src/io/request.c"
local REPLICAS = "lua/lunashard/rebalancer/replicas.lua"
local SHARD = "lua/lunashard/catalog/shard_schema.lua"
local STEPS = "lua/lunashard/rebalancer/steps.lua"

local LOCK = "  IF NOT pg_try_advisory_xact_lock_shared(lunashard.lock_key(in_group, in_bucket)) THEN"
local MERGING = "  return merge.run("

return {
  -- ---- guards ----
  {
    name = "no guard", run = "late_router", red = { "stale", "lost" },
    patches = {
      { file = SHARD, from = LOCK, to = "  PERFORM set_config('lunashard.guarded', '1', true); RETURN;\n  IF false THEN" },
    },
  },
  {
    name = "guard without the shared lock", run = "open_transaction", red = { "lost" },
    patches = { { file = SHARD, from = LOCK, to = "  IF false THEN" } },
  },
  {
    name = "fence without the exclusive lock", run = "open_transaction", red = { "lost" },
    patches = {
      { file = FENCE, from = "count(pg_advisory_xact_lock(lunashard.lock_key(%s, b)))", to = "count(lunashard.lock_key(%s, b))" },
    },
  },
  {
    name = "fence that old snapshots do not see", run = "old_snapshot", red = { "stray" },
    patches = {
      { file = SHARD, from = "(SELECT e.last_value FROM lunashard.epoch e) THEN",
        to = "(SELECT s.version FROM lunashard.state s) THEN" },
    },
  },
  {
    name = ">= for == in the guard of a shard", run = "scatter_around_move", red = { "wrong_scatter" },
    patches = {
      { file = SHARD, from = "reached IS DISTINCT FROM in_version", to = "NOT reached >= in_version" },
    },
  },
  {
    name = "guard of a shard blind to transitions", run = "scatter_at_merge", red = { "wrong_scatter" },
    patches = { { file = SHARD, from = " OR leaving > 0 THEN", to = " THEN" } },
  },
  {
    name = "unguarded writes let through", run = "past_routers", red = { "lost" },
    patches = {
      { file = SHARD, from = "  IF coalesce(pg_catalog.current_setting('lunashard.guarded', true), '') IS NOT DISTINCT FROM ''",
        to = "  IF false" },
    },
  },
  {
    name = "rows of other buckets let through", run = "past_routers", red = { "stray" },
    patches = {
      { file = CAPTURE, from = "              AND lunashard.owned_version(%s, %s) IS NULL THEN",
        to = "              AND lunashard.owned_version(%s, %s) IS NULL AND false THEN" },
    },
  },
  -- ---- routers ----
  {
    name = "router sends no guards", run = "late_router", red = { "stale", "refused" },
    patches = {
      { file = GUARDED, from = "under = guards.bucket(manager, member, strategy, bucket, map == manager.catalog.map)",
        to = "under = guarding.EXEMPT" },
    },
  },
  {
    name = "router takes LS001 for an answer", run = "late_router", red = { "leaked", "refused" },
    patches = { { file = GUARDING, from = "LS001 = true, ", to = "" } },
  },
  {
    name = "router does not refresh", run = "late_router", red = { "refused" },
    patches = {
      { file = GUARDING, from = "  local ok, err = catalog:refresh(math.min(deadline or math.huge, now() + REFRESH_TIMEOUT))",
        to = "  local ok, err = true, nil" },
    },
  },
  {
    name = "router goes on without its lease", run = "cut_off_router", red = { "stale", "lost" },
    patches = {
      { file = LEASE, from = "  if state.held and now() >= state.till then", to = "  if false then" },
      { file = LEASE, from = "manager.generation, state.till, state.lost)", to = "manager.generation, math.huge, 0)" },
    },
  },
  {
    name = "answers that come after the lease are taken", run = "late_answer", red = { "stale" },
    patches = {
      { file = REQUEST, from = "        luna_term_holds(waiter->term, waiter->generation, now))\n        return;",
        to = "        now > 0)\n        return;" },
    },
  },
  {
    name = "job does not wait for leases", run = "cut_off_router", red = { "stale" },
    patches = { { file = LEASE, from = "    elseif result and not result.rows[1] then", to = "    elseif result then" } },
  },
  {
    name = "write on all shards that does not wait for all guards", run = "write_everywhere", red = { "duplicated" },
    patches = { { file = EVERYWHERE, from = "  while gate.missing > 0 and not gate.shut do", to = "  while false do" } },
  },
  -- ---- movers ----
  {
    name = "no final drain", run = "last_writes", red = { "lost", "resurrected" },
    patches = {
      { file = CUTOVER, from = "  table.insert(questions, delta.query(context, row, mover.tables, mover.others))\n", to = "" },
    },
  },
  {
    name = "no final drain, the plain way", run = "last_writes_plainly", red = { "lost", "resurrected" },
    patches = { { file = STEPS, from = "  while ok and left ~= 0 do", to = "  while false do" } },
  },
  {
    name = "deletions are not noted", run = "last_writes", red = { "resurrected" },
    patches = {
      { file = CAPTURE, from = '      INSERT INTO %s VALUES (old_bucket, %s);\n',
        to = "      IF TG_OP <> 'DELETE' THEN INSERT INTO %s VALUES (old_bucket, %s); END IF;\n" },
    },
  },
  {
    name = "the old key of a row is not noted", run = "last_writes", red = { "resurrected" },
    patches = {
      { file = CAPTURE, from = '      INSERT INTO %s VALUES (old_bucket, %s);\n',
        to = "      IF TG_OP <> 'UPDATE' THEN INSERT INTO %s VALUES (old_bucket, %s); END IF;\n" },
      { file = CAPTURE, from = "TG_OP = 'UPDATE' AND (new_bucket, %s) IS DISTINCT",
        to = "TG_OP = 'UPDATE' OR (new_bucket, %s) IS DISTINCT" },
    },
  },
  {
    name = "high-water mark for the list of keys", run = "late_commit_plainly", red = { "lost" },
    patches = {
      { file = CATCHUP, from = "(SELECT unnest($1::text[])) LIMIT %d))\n     RETURNING bucket, %s),",
        to = [[(SELECT unnest($1::text[]))
            AND ctid > coalesce(nullif(current_setting('lunashard.seen' || tableoid::text, true), ''), '(0,0)')::tid LIMIT %d))
        RETURNING CASE WHEN set_config('lunashard.seen' || tableoid::text, ctid::text, false) <> '' THEN bucket END AS bucket,
            %s),]] },
    },
  },
  {
    name = "keys leave the list before their rows are brought", run = "death_in_catchup", red = { "lost" },
    patches = {
      { file = CATCHUP, from = "    if total == 0 then\n      return 0\n    end\n",
        to = [[
    assert(from:execute("COMMIT"))
    assert(from:execute("BEGIN"))
    if total == 0 then
      return 0
    end
]] },
    },
  },
  {
    name = "a batch of keys between reading and writing a chunk", run = "busy_copy", red = { "lost" },
    patches = {
      { file = COPY, from = [[
  return sides.destination:transaction("copying", function(into)
    local n, bytes = copy.rows(from, query, into, copy.target(row, one))
    if not n then
      return nil, bytes
    end
]], to = [[
  local reader, chunks = assert(from:copy_out(("COPY (%s) TO STDOUT"):format(query))), {}
  repeat
    chunks[#chunks + 1] = assert(reader:read())
  until chunks[#chunks] == ""
  task.sleep(0.15)
  assert(require("lunashard.rebalancer.catchup").batch(context, sides, row, tables, progress))
  return sides.destination:transaction("copying", function(into)
    local n, bytes = reader.row_count, 0
    if n > 0 then
      local writer = assert(into:copy_in(("COPY %s FROM STDIN"):format(copy.target(row, one))))
      for i = 1, #chunks - 1 do
        assert(writer:write(chunks[i]))
      end
      assert(writer:finish())
    end
]] },
    },
  },
  {
    name = "what was merged is not compared", run = "changed_on_arrival", red = { "wrong_read" },
    patches = {
      { file = CUTOVER, from = "    ok, err = compare(mover, answers[1][1], answers[2][1])", to = "    ok = true" },
    },
  },
  {
    name = "no token", run = "taken_over", red = { "leftovers", "refused" },
    patches = {
      { file = SHARD, from = "  IF present IS DISTINCT FROM in_token THEN", to = "  IF false THEN" },
      { file = MOVER, from = "SELECT count(pg_terminate_backend(pid)) FROM", to = "SELECT count(pid) FROM" },
    },
  },
  {
    name = "replicas are not waited for", run = "lost_primary", long = true, red = { "leftovers" },
    patches = { { file = REPLICAS, from = "  if #list == 0 then", to = "  if true then" } },
  },
  -- ---- the order of things ----
  {
    name = "map before merge", run = "failed_merge", red = { "leftovers" },
    patches = {
      { file = STEPS, from = MERGING,
        to = "  flip.run(context, row, row.destination, row.state, versions)\n" .. MERGING },
    },
  },
  {
    name = "purge before merge", run = "failed_merge", red = { "lost" },
    patches = {
      { file = STEPS, from = MERGING,
        to = "  purge.run(context, mover.source, row, mover.tables, row.cursor.checks)\n" .. MERGING },
    },
  },
  {
    name = "purge before the map", run = "death_before_flip", red = { "stray", "leftovers" },
    patches = {
      { file = STEPS, from = "  row.pause_seconds = mover.fenced_at and",
        to = "  purge.run(mover.context, mover.source, row, mover.tables, row.cursor.checks)\n"
          .. "  row.pause_seconds = mover.fenced_at and" },
    },
  },
}
