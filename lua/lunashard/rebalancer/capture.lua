--- Triggers that note what is written while rows move.
-- They write the keys, old and new, into lists (see `lunashard.rebalancer.keys`), and refuse rows of buckets that the shard
-- does not own: a guard for another bucket must not let them through. They are of a job, on each of its sources.
--
-- A transaction that makes them waits for all writers before it (SHARE ROW EXCLUSIVE): every row is either seen by what
-- reads the table afterwards, or noted.
-- @module lunashard.rebalancer.capture
-- @local

local bit = require("bit")
local keys = require("lunashard.rebalancer.keys")
local names = require("lunashard.rebalancer.names")
local session = require("lunashard.rebalancer.session")

local capture = {}

-- ---- texts ----------------------------------------------------------------------------

-- Only Lua can tell the bucket: what it is computed from is noted.
local PLAIN_NOTE = [[
  CREATE FUNCTION %s() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $capture$
  BEGIN
    IF TG_OP <> 'INSERT' THEN
      INSERT INTO %s VALUES (NULL, %s);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND (%s) IS DISTINCT FROM (%s) THEN
      INSERT INTO %s VALUES (NULL, %s);
    END IF;
    RETURN NULL;
  END $capture$]]

-- What the bucket's guard has not seen to already. Who has the guard of the whole shard has what every fence waits for; a lock
-- for each bucket of a large load would be more than there are.
local FENCE = [[
      IF current_setting('lunashard.guarded', true) IS DISTINCT FROM %s || %s THEN
        IF current_setting('lunashard.guarded_shard', true) IS DISTINCT FROM '1'
           AND NOT pg_try_advisory_xact_lock_shared(lunashard.lock_key(%s, %s)) THEN
          RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = format('bucket %%s of group %%s is being moved', %s, %s),
            DETAIL = 'locked', HINT = 'Wait for a moment and run the statement again.';
        ELSIF NOT EXISTS (SELECT FROM lunashard.bucket o WHERE o.grp = %s AND o.bucket = %s)
              AND lunashard.owned_version(%s, %s) IS NULL THEN
          PERFORM lunashard.refuse_stale(%s, %s, NULL);
        END IF;
      END IF;
]]

-- All in one function, and its buckets not in the trigger's WHEN: each statement of others would parse them anew (180 us for
-- thousands), and each function with settings of its own is as dear as the INSERT.
local NOTE = [[
  CREATE FUNCTION %s() RETURNS trigger
  LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
  AS $capture$
  DECLARE
    old_bucket text;
    new_bucket text;
  BEGIN
    IF TG_OP <> 'INSERT' THEN
      old_bucket := %s;
    END IF;
    IF TG_OP <> 'DELETE' THEN
      new_bucket := %s;
    END IF;
    IF (%s OR %s) IS NOT TRUE THEN
      RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
%s
      INSERT INTO %s VALUES (old_bucket, %s);
    END IF;
    IF TG_OP = 'INSERT' OR TG_OP = 'UPDATE' AND (new_bucket, %s) IS DISTINCT FROM (old_bucket, %s) THEN
%s
      INSERT INTO %s VALUES (new_bucket, %s);
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      PERFORM lunashard.refuse_old_snapshot();
    END IF;
    RETURN NULL;
  END $capture$]]

local function plain_note_function(row, one)
  local dirty = names.dirty(row, one.n)
  local old = names.each(one.key, "OLD.%s") .. ", " .. names.each(one.shard_key, "OLD.%s")
  local new = old:gsub("OLD%.", "NEW.")
  return PLAIN_NOTE:format(names.capture(row, one.n), dirty, old, old, new, dirty, new)
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

local function fence(group, bucket)
  local name = names.literal(group)
  return FENCE:format(names.literal(group .. "/"), bucket, name, bucket, bucket, name, name, bucket, name, bucket, name,
    bucket)
end

local function note_function(context, row, one, buckets)
  if not context.in_sql then
    return plain_note_function(row, one)
  end
  local group, dirty = context.group, names.dirty(row, one.n)
  local old_key, new_key = names.each(one.key, "OLD.%s"), names.each(one.key, "NEW.%s")
  return NOTE:format(names.capture(row, one.n), context.bucket_of(one, "OLD"), context.bucket_of(one, "NEW"),
    is_among("old_bucket", buckets), is_among("new_bucket", buckets), fence(group, "old_bucket"), dirty, old_key,
    new_key, old_key, fence(group, "new_bucket"), dirty, new_key)
end

-- What movers put and remove is not noted.
local ROWS = [[
  CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW
    WHEN (current_setting('lunashard.mover', true) IS DISTINCT FROM '1') EXECUTE FUNCTION %s()]]

local function row_trigger(row, one)
  return ROWS:format(names.trigger(row, "rows"), one.qualified, names.capture(row, one.n))
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

local TRIGGERS = { "guard", "truncate", "rows" }

-- Not to be got round by session_replication_role.
local function always(row, qualified)
  local list = {}
  for i, what in ipairs(TRIGGERS) do
    list[i] = ("ALTER TABLE %s ENABLE ALWAYS TRIGGER %s"):format(qualified, names.trigger(row, what))
  end
  return list
end

-- ---- making them -----------------------------------------------------------------------

local function run(lease, sql, params, deadline)
  return lease:execute(sql, params, { deadline = deadline or session.soon() })
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

local function make_table(context, lease, row, one, buckets)
  local lists = keys.lists(context, row, one)
  local ok, err = lease:execute(lists, nil, { simple = true, deadline = session.soon() })
  if ok then
    ok, err = run(lease, note_function(context, row, one, buckets))
  end
  if ok then
    ok, err = run(lease, ("REVOKE ALL ON FUNCTION %s() FROM PUBLIC"):format(names.capture(row, one.n)))
  end
  if ok then
    ok, err = run(lease, row_trigger(row, one))
  end
  local members
  if ok then
    members, err = members_of(lease, one)
  end
  for _, qualified in ipairs(members or {}) do
    ok, err = session.run(lease, statement_triggers(row, qualified))
    if ok then
      ok, err = session.run(lease, always(row, qualified))
    end
    if not ok then
      return nil, err
    end
  end
  return members and true, err
end

--- Make the lists and the triggers of a job. For the transaction that notes it. Yields.
-- @tparam table context `bucket_of(table, alias)` -> SQL of a row's bucket, `group`
-- @tparam Lease lease of the source
-- @tparam table row any move of the job from there
-- @tparam {table,...} tables
-- @tparam {string,...} buckets of all moves of the job from there
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.make(context, lease, row, tables, buckets)
  local list = {}
  for i, one in ipairs(tables) do
    list[i] = one.qualified
  end
  table.sort(list)
  local ok, err = run(lease, ("LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE"):format(table.concat(list, ", ")))
  for _, one in ipairs(ok and tables or {}) do
    ok, err = make_table(context, lease, row, one, buckets)
    if not ok then
      return nil, err
    end
  end
  return ok and true, err
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
  for i, what in ipairs(TRIGGERS) do
    wanted[i] = names.trigger(row, what)
  end
  local found, err = run(lease, COUNT, { oids, wanted })
  if not found then
    return nil, err
  end
  return found.rows[1].n == #oids * #wanted
end

--- Drop the triggers and lists of a table. For a transaction. Yields.
-- @tparam Lease lease of the source
-- @tparam table row
-- @tparam table one the table
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function capture.drop(lease, row, one)
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
  if not one.gone then
    texts[#texts + 1] = ("DROP TRIGGER IF EXISTS %s ON %s"):format(names.trigger(row, "rows"), one.qualified)
  end
  texts[#texts + 1] = ("DROP FUNCTION IF EXISTS %s()"):format(names.capture(row, one.n))
  texts[#texts + 1] = ("DROP TABLE IF EXISTS %s, %s"):format(names.keys(row, one.n), names.dirty(row, one.n))
  return session.run(lease, texts)
end

return capture
