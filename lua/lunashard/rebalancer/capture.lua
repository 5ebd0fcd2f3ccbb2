--- Noting what is written while rows move.
-- A source has, for each table of the group and for all moves of a job together, a list of the keys that move (`k`) and
-- one of the keys that were written (`d`), both by bucket; moves that start later find theirs there, so that a table is read
-- through once for each job and its triggers are made once. Row triggers write the keys, old and new; what has become of
-- a row is looked up when the key is taken from the list, so that neither order nor repetition matters. The same triggers
-- refuse rows of buckets that the shard does not own: a guard for another bucket must not let them through.
--
-- A transaction that makes the triggers waits for all writers before it (SHARE ROW EXCLUSIVE): every row is either seen
-- by what reads the table afterwards, or noted. The triggers go when no transaction is left that began before the last
-- row moved.
-- @module lunashard.rebalancer.capture
-- @local

local bit = require("bit")
local errors = require("lunashard.errors")
local labels = require("lunashard.rebalancer.labels")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")
local task = require("lunashard.task")

local capture = {}


local LOCK_TIMEOUT = 200 -- ms; others wait behind us for as long
local PATIENCE = 60 -- seconds for transactions to end before triggers go
local BACK_OFF, MOST_BACK_OFF = 0.1, 3 -- seconds between attempts

-- ---- texts ----------------------------------------------------------------------------

local LISTS = [[
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s FROM %s AS t WITH NO DATA;
  CREATE TABLE %s AS TABLE %s WITH NO DATA;
  CREATE INDEX ON %s (bucket)]]

local PLAIN_LISTS = [[
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s FROM %s AS t WITH NO DATA;
  CREATE TABLE %s AS SELECT ''::text COLLATE "C" AS bucket, %s, %s FROM %s AS t WITH NO DATA;
  CREATE INDEX ON %s (bucket)]]

-- Only Lua can tell the bucket: what it is computed from is noted.
local PLAIN_NOTE = [[
  CREATE FUNCTION %s() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $capture$
  BEGIN
    IF current_setting('lunashard.mover', true) = '1' THEN
      RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
      INSERT INTO %s VALUES (NULL, %s);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND (%s) IS DISTINCT FROM (%s) THEN
      INSERT INTO %s VALUES (NULL, %s);
    END IF;
    RETURN NULL;
  END $capture$]]

-- Who has the guard of the whole shard has what every fence waits for; a lock for each bucket of a large load would be more
-- than there are.
local FENCE = [[
  CREATE FUNCTION %s(in_bucket text) RETURNS void
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $capture$
  BEGIN
    IF current_setting('lunashard.guarded_shard', true) IS DISTINCT FROM '1'
       AND NOT pg_try_advisory_xact_lock_shared(lunashard.lock_key(%s, in_bucket)) THEN
      RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = format('bucket %%s of group %%s is being moved', in_bucket, %s),
        DETAIL = 'locked', HINT = 'Wait for a moment and run the statement again.';
    ELSIF lunashard.owned_version(%s, in_bucket) IS NULL THEN
      PERFORM lunashard.refuse_stale(%s, in_bucket, NULL);
    END IF;
    PERFORM lunashard.refuse_old_snapshot();
  END $capture$]]

local NOTE = [[
  CREATE FUNCTION %s() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $capture$
  DECLARE
    old_bucket text;
    new_bucket text;
  BEGIN
    IF current_setting('lunashard.mover', true) = '1' THEN
      RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
      old_bucket := %s;
      PERFORM %s(old_bucket);
      INSERT INTO %s VALUES (old_bucket, %s);
    END IF;
    IF TG_OP <> 'DELETE' THEN
      new_bucket := %s;
      IF TG_OP = 'INSERT' OR (new_bucket, %s) IS DISTINCT FROM (old_bucket, %s) THEN
        PERFORM %s(new_bucket);
        INSERT INTO %s VALUES (new_bucket, %s);
      END IF;
    END IF;
    RETURN NULL;
  END $capture$]]

local function plain_note_function(row, one)
  local dirty = names.dirty(row, one.n)
  local old = names.each(one.key, "OLD.%s") .. ", " .. names.each(one.shard_key, "OLD.%s")
  local new = old:gsub("OLD%.", "NEW.")
  return PLAIN_NOTE:format(names.capture(row, one.n), dirty, old, old, new, dirty, new)
end

local function note_function(context, row, one)
  if not context.in_sql then
    return plain_note_function(row, one)
  end
  local fence, dirty = names.fence(row), names.dirty(row, one.n)
  local old_key, new_key = names.each(one.key, "OLD.%s"), names.each(one.key, "NEW.%s")
  return NOTE:format(names.capture(row, one.n), context.bucket_of(one, "OLD"), fence, dirty, old_key,
    context.bucket_of(one, "NEW"), new_key, old_key, fence, dirty, new_key)
end

local MOST_BITS = 1048576

-- The numbers of buckets as the bits of a bytea, or nil when they are no such numbers. Every write of the tables is
-- tested, and a list of thousands would be gone through each time.
local function bits_of(buckets)
  local bytes, most = {}, -1
  for _, bucket in ipairs(buckets) do
    local number = bucket:match("^%d+$") and tonumber(bucket)
    if not number or number >= MOST_BITS or ("%d"):format(number) ~= bucket then
      return nil
    end
    local i = math.floor(number / 8)
    bytes[i], most = bit.bor(bytes[i] or 0, bit.lshift(1, number % 8)), math.max(most, i)
  end
  local digits = {}
  for i = 0, most do
    digits[i + 1] = ("%02x"):format(bytes[i] or 0)
  end
  return table.concat(digits), (most + 1) * 8
end

-- Is a row's bucket one of these? As an SQL condition.
local function is_among(bucket, buckets)
  local bits, n = bits_of(buckets)
  if not bits then
    return ("%s = ANY (%s::text[])"):format(bucket, names.array(buckets))
  end
  return ("CASE WHEN %s::int < %d THEN get_bit('\\x%s'::bytea, %s::int) = 1 END"):format(bucket, n, bits, bucket)
end

local EVENTS = { insert = { "NEW" }, update = { "OLD", "NEW" }, delete = { "OLD" } }

local function triggers(context, row, one, buckets)
  local list = {}
  for _, event in ipairs({ "insert", "update", "delete" }) do
    local conditions, when = {}, ""
    for i, alias in ipairs(context.in_sql and EVENTS[event] or {}) do
      conditions[i] = is_among(context.bucket_of(one, alias), buckets)
    end
    if conditions[1] then
      when = ("WHEN (%s) "):format(table.concat(conditions, " OR "))
    end
    list[#list + 1] = ("CREATE TRIGGER %s AFTER %s ON %s FOR EACH ROW %sEXECUTE FUNCTION %s()"):format(
      names.trigger(row, event), event, one.qualified, when, names.capture(row, one.n))
  end
  return list
end

-- A statement fires the triggers of the table that it names, so every partition has its own.
local function statement_triggers(row, qualified)
  return {
    ("CREATE TRIGGER %s BEFORE INSERT OR UPDATE OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION "
      .. "lunashard.refuse_unguarded()"):format(names.trigger(row, "guard"), qualified),
    ("CREATE TRIGGER %s BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION lunashard.refuse_truncate()"):format(
      names.trigger(row, "truncate"), qualified),
  }
end

local ROW_TRIGGERS, ALL_TRIGGERS = { "insert", "update", "delete" }, { "guard", "truncate", "insert", "update", "delete" }

-- Not to be got round by session_replication_role.
local function always(row, qualified)
  local list = {}
  for i, what in ipairs(ALL_TRIGGERS) do
    list[i] = ("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s"):format(qualified, names.trigger(row, what))
  end
  return list
end

-- ---- making them -----------------------------------------------------------------------

local function run(lease, sql, params, deadline)
  return lease:execute(sql, params, { deadline = deadline or session.soon() })
end

local function run_all(lease, texts)
  local ok, err
  for _, text in ipairs(texts) do
    ok, err = run(lease, text)
    if not ok then
      return nil, err
    end
  end
  return true
end

local PARTITIONS = [[
  SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS qualified
    FROM unnest($1::bigint[]::oid[]) AS o(oid) CROSS JOIN pg_partition_tree(o.oid) AS p
    JOIN pg_class c ON c.oid = p.relid JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE p.level > 0 ORDER BY p.level, c.oid]]

-- All tables that hold rows of a group's table, itself first. A table without partitions has no tree.
local function members_of(lease, one)
  local found, err = run(lease, PARTITIONS, { { one.oid } })
  if not found then
    return nil, err
  end
  local list = { one.qualified }
  for _, partition in ipairs(found.rows) do
    list[#list + 1] = partition.qualified
  end
  return list
end

local function lists_of(context, row, one)
  local dirty, keys, key = names.dirty(row, one.n), names.keys(row, one.n), names.each(one.key, "t.%s AS k%d")
  if context.in_sql then
    return LISTS:format(keys, key, one.qualified, dirty, keys, dirty)
  end
  return PLAIN_LISTS:format(keys, key, one.qualified, dirty, key, names.each(one.shard_key, "t.%s AS s%d"), one.qualified,
    dirty)
end

local function make_table(context, lease, row, one, buckets)
  local lists = lists_of(context, row, one)
  local ok, err = lease:execute(lists, nil, { simple = true, deadline = session.soon() })
  if ok then
    ok, err = run(lease, note_function(context, row, one))
  end
  if ok then
    ok, err = run(lease, ("REVOKE ALL ON FUNCTION %s() FROM PUBLIC"):format(names.capture(row, one.n)))
  end
  if ok then
    ok, err = run_all(lease, triggers(context, row, one, buckets))
  end
  local members
  if ok then
    members, err = members_of(lease, one)
  end
  for _, qualified in ipairs(members or {}) do
    ok, err = run_all(lease, statement_triggers(row, qualified))
    if ok then
      ok, err = run_all(lease, always(row, qualified))
    end
    if not ok then
      return nil, err
    end
  end
  return members and true, err
end

local function make(context, lease, row, tables, buckets)
  local list, group = {}, names.literal(context.group)
  for i, one in ipairs(tables) do
    list[i] = one.qualified
  end
  table.sort(list)
  local ok, err = run(lease, ("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE"):format(table.concat(list, ", ")))
  if ok then
    ok, err = run(lease, FENCE:format(names.fence(row), group, group, group, group))
  end
  if ok then
    ok, err = run(lease, ("REVOKE ALL ON FUNCTION %s(text) FROM PUBLIC"):format(names.fence(row)))
  end
  for _, one in ipairs(ok and tables or {}) do
    ok, err = make_table(context, lease, row, one, buckets)
    if not ok then
      return nil, err
    end
  end
  return ok and true, err
end

-- ---- the state of a job on a source, kept in the row with the number 0 -----------------------------

local ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('lunashard job ' || $1::bigint, 0))"
local STATE = "SELECT step, detail FROM lunashard.move WHERE job = $1 AND seq = 0 AND role = 'source'"
local BEGUN = [[
  INSERT INTO lunashard.move (job, seq, role, token, step, detail)
    VALUES ($1, 0, 'source', $2, 'capturing', jsonb_build_object('buckets', $3::text[]))]]
local LISTED = [[UPDATE lunashard.move SET step = 'listed' WHERE job = $1 AND seq = 0 AND role = 'source']]
local ALL_THERE = [[
  SELECT NOT EXISTS (SELECT FROM unnest($2::text[]) AS wanted(bucket)
    WHERE NOT m.detail->'buckets' ? wanted.bucket) AS yes
  FROM lunashard.move m WHERE m.job = $1 AND m.seq = 0 AND m.role = 'source']]

-- Calls fn in a transaction that only one mover of the job is in, with the job's state on this source.
local function exclusively(source, row, point, fn, opts)
  return source:transaction(point, function(lease)
    local ok, err = run(lease, ONE_AT_A_TIME, { row.job }, opts.deadline)
    local state
    if ok then
      state, err = run(lease, STATE, { row.job })
    end
    if not state then
      return nil, err
    end
    return fn(lease, state.rows[1])
  end, opts)
end

local function is_lock_timeout(err)
  return errors.is(err, "SQL") and err.sqlstate == "55P03"
end

--- Give what was noted its bucket, where only Lua can tell it. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.name(context, source, row, tables)
  if context.in_sql then
    return true
  end
  return exclusively(source, row, "naming", function(lease)
    return labels.name(context, lease, row, tables)
  end, {})
end

--- Try again what could not have its locks in time. Yields.
-- @tparam table context
-- @tparam function fn
-- @return what fn returns
function capture.patiently(context, fn)
  local pause = BACK_OFF
  while true do
    local value, err = fn()
    local reason = value == nil and is_lock_timeout(err) and context.stopping and context.stopping()
    if value ~= nil or not is_lock_timeout(err) then
      return value, err
    elseif reason then
      return nil, errors.new("CANCELED", { message = reason })
    end
    task.sleep(pause * (0.75 + math.random() / 2))
    pause = math.min(pause * 2, MOST_BACK_OFF)
  end
end

local LIST = [[
  INSERT INTO %s SELECT m.bucket, %s FROM (SELECT %s AS bucket, %s FROM %s AS t) AS m WHERE m.bucket = ANY ($1)]]

-- The keys of everything that moves, by one look at each table.
local function list_keys(context, lease, row, tables, buckets)
  for _, one in ipairs(tables) do
    local keys = names.keys(row, one.n)
    local ok, err
    if context.in_sql then
      ok, err = lease:execute(LIST:format(keys, names.each(one.key, "m.%s"), context.bucket_of(one, "t"),
        names.each(one.key, "t.%s"), one.qualified), { buckets })
    else
      ok, err = labels.list_keys(context, lease, row, one, buckets)
    end
    if ok then
      ok, err = lease:execute(("ALTER TABLE %s ADD PRIMARY KEY (bucket, %s)"):format(keys, names.each(one.key, "k%d")))
    end
    if ok then
      ok, err = lease:execute("ANALYZE " .. keys)
    end
    if not ok then
      return nil, err
    end
  end
  return lease:execute(LISTED, { row.job }, { deadline = session.soon() })
end

-- What was written before this move began is only listed: it is about to be read. (Not where the list alone decides what
-- moves: there every key is looked at.)
local TAKE_OVER = [[
  WITH gone AS (DELETE FROM %s WHERE bucket = ANY ($1) RETURNING bucket, %s)
  INSERT INTO %s SELECT DISTINCT * FROM gone ON CONFLICT DO NOTHING]]

--- From here on every write to the rows of a move is noted. Yields.
-- @tparam table context `bucket_of(table, alias)` -> SQL of a row's bucket, `group`, `stopping`
-- @tparam Session source
-- @tparam table row the move
-- @tparam {table,...} tables
-- @tparam {string,...} buckets of all moves of the job from this source
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.begin(context, source, row, tables, buckets)
  local ok, err = capture.patiently(context, function()
    return exclusively(source, row, "capturing.triggers", function(lease, state)
      if state then
        return true
      end
      local made, problem = make(context, lease, row, tables, buckets)
      if made then
        made, problem = run(lease, BEGUN, { row.job, context.token, buckets })
      end
      if made then
        made, problem = run(lease, "SELECT lunashard.enlist($1, $2)", { context.group, buckets })
      end
      return made, problem
    end, { lock_timeout = LOCK_TIMEOUT })
  end)
  if ok then
    ok, err = exclusively(source, row, "capturing.keys", function(lease, state)
      if state and state.step == "listed" then
        return true
      end
      return list_keys(context, lease, row, tables, buckets)
    end, { lock_timeout = 0 })
  end
  if not ok then
    return nil, err
  end
  return source:transaction("capturing", function(lease)
    local all, problem = run(lease, ALL_THERE, { row.job, row.buckets })
    if not all then
      return nil, problem
    elseif not (all.rows[1] and all.rows[1].yes) then
      return nil, errors.new("INVALID", { message = ("move %d of job %d has buckets that were not planned when the job "
        .. "began: make a job of its own for them"):format(row.seq, row.job) })
    end
    for _, one in ipairs(context.in_sql and tables or {}) do
      local taken
      taken, problem = run(lease, TAKE_OVER:format(names.dirty(row, one.n), names.each(one.key, "k%d"),
        names.keys(row, one.n)), { row.buckets })
      if not taken then
        return nil, problem
      end
    end
    return true
  end)
end

local COUNT = [[
  SELECT count(*) AS n FROM pg_trigger
   WHERE tgrelid = ANY ($1::bigint[]::oid[]) AND tgenabled = 'A' AND tgname = ANY ($2::name[])]]

--- Are all triggers of a job there, and cannot be got round? Yields.
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam {table,...} tables
-- @treturn[1] boolean
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.is_whole(lease, row, tables)
  local oids, wanted = {}, {}
  for i, one in ipairs(tables) do
    oids[i] = one.oid
  end
  for i, what in ipairs(ALL_TRIGGERS) do
    wanted[i] = names.trigger(row, what)
  end
  local found, err = run(lease, COUNT, { oids, wanted })
  if not found then
    return nil, err
  end
  return found.rows[1].n == #oids * #wanted
end

-- ---- the end ----------------------------------------------------------------------------

local RUNNING = [[
  SELECT l.virtualtransaction AS id FROM pg_locks l JOIN pg_stat_activity a USING (pid)
   WHERE l.locktype = 'virtualxid' AND l.granted AND a.datname = current_database() AND l.pid <> pg_backend_pid()
     AND ($1::text[] IS NULL OR l.virtualtransaction = ANY ($1))]]

-- Wait for the end of every transaction that runs now.
local function outlive(source)
  local waiting
  local deadline = task.now() + PATIENCE
  repeat
    local found, err = source:execute(RUNNING, { waiting, n = 1 })
    if not found then
      return nil, err
    end
    waiting = {}
    for i, one in ipairs(found.rows) do
      waiting[i] = one.id
    end
    if waiting[1] and task.now() > deadline then
      return nil, errors.new("TIMEOUT", { shard_id = source.member.shard_id, message = ("%d transactions that began before "
        .. "the last rows had moved still run: the triggers have to stay until they end"):format(#waiting) })
    elseif waiting[1] then
      task.sleep(0.05)
    end
  until not waiting[1]
  return true
end

local function drop_table(lease, row, one)
  local members, err = {}, nil
  if not one.gone then
    members, err = members_of(lease, one)
  end
  if not members then
    return nil, err
  end
  local texts = {}
  for _, qualified in ipairs(members) do
    for _, what in ipairs({ "guard", "truncate" }) do
      texts[#texts + 1] = ("DROP TRIGGER IF EXISTS %s ON %s"):format(names.trigger(row, what), qualified)
    end
  end
  for _, what in ipairs(one.gone and {} or ROW_TRIGGERS) do
    texts[#texts + 1] = ("DROP TRIGGER IF EXISTS %s ON %s"):format(names.trigger(row, what), one.qualified)
  end
  texts[#texts + 1] = ("DROP FUNCTION IF EXISTS %s()"):format(names.capture(row, one.n))
  texts[#texts + 1] = ("DROP TABLE IF EXISTS %s, %s"):format(names.keys(row, one.n), names.dirty(row, one.n))
  return run_all(lease, texts)
end

--- Drop what `begin` made, when no move of the job needs it any more. Yields.
-- @tparam table context
-- @tparam Session source
-- @tparam table row any move of the job from this source
-- @tparam {table,...} tables
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.finish(context, source, row, tables)
  local state, err = source:execute(STATE, { row.job })
  if not state then
    return nil, err
  elseif not state.rows[1] then
    return true
  end
  local ok
  ok, err = outlive(source)
  if not ok then
    return nil, err
  end
  for _, one in ipairs(tables) do
    ok, err = capture.patiently(context, function()
      return exclusively(source, row, "done.triggers", function(lease)
        return drop_table(lease, row, one)
      end, { lock_timeout = LOCK_TIMEOUT })
    end)
    if not ok then
      return nil, err
    end
  end
  return exclusively(source, row, "done.capture", function(lease)
    local dropped, problem = run(lease, ("DROP FUNCTION IF EXISTS %s(text)"):format(names.fence(row)))
    if dropped then
      dropped, problem = run(lease, "DELETE FROM lunashard.move WHERE job = $1 AND seq = 0 AND role = 'source'", { row.job })
    end
    return dropped, problem
  end, {})
end

return capture
