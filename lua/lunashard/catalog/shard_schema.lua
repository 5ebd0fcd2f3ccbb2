--- What lies in the schema `lunashard` of every shard: what it owns, and the functions that guard it.
-- Plain SQL and plpgsql. Functions are SECURITY DEFINER with a pinned search path, so that an application's role needs no
-- rights of its own; guards may be called by all, everything that changes something by the schema's owner alone.
--
-- A guard is called in the transaction of the statement that it guards, before it: it takes the bucket's (or the
-- shard's) advisory lock shared and without waiting, and only then compares versions, with a snapshot of its own. The
-- lock is held to the end of the transaction; whoever changes what the shard owns takes it exclusively.
--
-- Snapshots that last (REPEATABLE READ, SERIALIZABLE) would still see the former owner. So every change of ownership
-- ends with `lunashard.advance()`, which sets `state.version` from a sequence: the sequence's `last_value` is the
-- same for every snapshot, and a snapshot whose `state.version` is another one is older than a change (40001). A
-- change that was rolled back leaves the two apart; call `advance()` once more then, in a transaction of its own.
--
-- A group is *open* when its buckets cannot be listed (directories, strategies of users): those without a row here are
-- owned at version 1 by whoever the strategy names, unless they have left (`departed`).
--
-- SQLSTATEs: `LS001` the bucket is not owned at this version, or the shard's version is another; nothing ran. Its detail
-- is `locked` (a cutover is under way: wait), `in transition` (the same, for guards of a whole shard), `not owned`, or
-- `version N`. `LS003` an unguarded write during a job, `LS004` a TRUNCATE during a job, `LS005` a mover whose
-- token is not the present one.
-- @module lunashard.catalog.shard_schema
-- @local

local VERSION_1 = [[
CREATE SCHEMA IF NOT EXISTS lunashard; -- `schema apply` may have made it
REVOKE ALL ON SCHEMA lunashard FROM PUBLIC;
GRANT USAGE ON SCHEMA lunashard TO PUBLIC;
CREATE SCHEMA lunashard_staging;
REVOKE ALL ON SCHEMA lunashard_staging FROM PUBLIC;

CREATE TABLE lunashard.migration (
  version int PRIMARY KEY,
  applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE lunashard.identity (
  single bool PRIMARY KEY DEFAULT true CHECK (single),
  cluster_id uuid NOT NULL,
  shard_id text NOT NULL
);

-- As in the catalog, for when that cannot be reached.
CREATE TABLE lunashard.placement_group (
  name text PRIMARY KEY,
  fingerprints text[] NOT NULL,
  buckets int, -- null: the group is open
  shards jsonb NOT NULL,
  tables text[] NOT NULL
);

CREATE TABLE lunashard.bucket (
  grp text NOT NULL,
  bucket text NOT NULL,
  version bigint NOT NULL CHECK (version > 0),
  PRIMARY KEY (grp, bucket)
);

-- Buckets of open groups that another shard owns now.
CREATE TABLE lunashard.departed (
  grp text NOT NULL,
  bucket text NOT NULL,
  version bigint NOT NULL,
  PRIMARY KEY (grp, bucket)
);

CREATE SEQUENCE lunashard.epoch AS bigint;

CREATE TABLE lunashard.state (
  single bool PRIMARY KEY DEFAULT true CHECK (single),
  version bigint NOT NULL,
  in_transition int NOT NULL DEFAULT 0 CHECK (in_transition >= 0)
);
INSERT INTO lunashard.state (version) VALUES (nextval('lunashard.epoch'));

CREATE TABLE lunashard.move (
  job bigint NOT NULL,
  seq int NOT NULL,
  role text NOT NULL CHECK (role IN ('source', 'destination')),
  token bigint NOT NULL,
  step text NOT NULL,
  fenced_at timestamptz,
  detail jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (job, seq, role)
);

CREATE TABLE lunashard.dirty (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  job bigint NOT NULL,
  seq int NOT NULL,
  tbl text NOT NULL,
  key text[] NOT NULL
);

CREATE FUNCTION lunashard.lock_key(in_group text, in_bucket text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT pg_catalog.hashtextextended('lunashard ' || in_group || '/' || in_bucket, 0) $$;

CREATE FUNCTION lunashard.shard_lock_key() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$ SELECT pg_catalog.hashtextextended('lunashard', 0) $$;

CREATE FUNCTION lunashard.note_departure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    DELETE FROM lunashard.departed d WHERE d.grp = NEW.grp AND d.bucket = NEW.bucket;
    RETURN NEW;
  END IF;
  INSERT INTO lunashard.departed (grp, bucket, version)
    SELECT OLD.grp, OLD.bucket, OLD.version FROM lunashard.placement_group o WHERE o.name = OLD.grp AND o.buckets IS NULL
    ON CONFLICT ON CONSTRAINT departed_pkey DO UPDATE SET version = excluded.version;
  RETURN OLD;
END $$;
CREATE TRIGGER departure AFTER INSERT OR DELETE ON lunashard.bucket
  FOR EACH ROW EXECUTE FUNCTION lunashard.note_departure();

CREATE FUNCTION lunashard.refuse_old_snapshot() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF current_setting('transaction_isolation') IN ('repeatable read', 'serializable')
     AND (SELECT s.version FROM lunashard.state s) IS DISTINCT FROM (SELECT e.last_value FROM lunashard.epoch e) THEN
    RAISE EXCEPTION USING ERRCODE = '40001',
      MESSAGE = 'what this shard owns has changed since the transaction began: run the transaction again';
  END IF;
END $$;

-- What a guard compares: the bucket's version, and that of an unlisted bucket of an open group.
CREATE FUNCTION lunashard.owned_version(in_group text, in_bucket text) RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(
    (SELECT b.version FROM lunashard.bucket b WHERE b.grp = in_group AND b.bucket = in_bucket),
    (SELECT 1 FROM lunashard.placement_group o WHERE o.name = in_group AND o.buckets IS NULL AND NOT EXISTS
      (SELECT FROM lunashard.departed d WHERE d.grp = in_group AND d.bucket = in_bucket)))
$$;

CREATE FUNCTION lunashard.refuse_stale(in_group text, in_bucket text, owned bigint) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'LS001',
    MESSAGE = format('bucket %s of group %s is not owned by this shard as the router believes', in_bucket, in_group),
    DETAIL = coalesce('version ' || owned, 'not owned'), HINT = 'Refresh the map and run the statement again.';
END $$;

CREATE FUNCTION lunashard.guard(in_group text, in_bucket text, in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owned bigint;
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('lunashard ' || in_group || '/' || in_bucket, 0)) THEN
    RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = format('bucket %s of group %s is being moved', in_bucket, in_group),
      DETAIL = 'locked', HINT = 'Wait for a moment and run the statement again.';
  END IF;
  SELECT b.version INTO owned FROM lunashard.bucket b WHERE b.grp = in_group AND b.bucket = in_bucket;
  IF NOT FOUND THEN
    owned := lunashard.owned_version(in_group, in_bucket);
  END IF;
  IF owned IS DISTINCT FROM in_version THEN
    PERFORM lunashard.refuse_stale(in_group, in_bucket, owned);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    PERFORM lunashard.refuse_old_snapshot();
  END IF;
  PERFORM set_config('lunashard.guarded', '1', true);
END $$;

CREATE FUNCTION lunashard.refuse_stale_shard(in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  present lunashard.state;
BEGIN
  SELECT * INTO STRICT present FROM lunashard.state;
  IF present.version IS DISTINCT FROM in_version OR present.in_transition > 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = 'what this shard owns is not what the router believes',
      DETAIL = CASE WHEN present.in_transition > 0 THEN 'in transition' ELSE 'version ' || present.version END,
      HINT = 'Refresh the map and run the statement again, on all shards.';
  END IF;
END $$;

CREATE FUNCTION lunashard.guard_shard(in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(hashtextextended('lunashard', 0)) THEN
    RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = 'buckets of this shard are being moved', DETAIL = 'locked',
      HINT = 'Wait for a moment and run the statement again, on all shards.';
  END IF;
  PERFORM lunashard.refuse_stale_shard(in_version);
  PERFORM lunashard.refuse_old_snapshot();
  PERFORM set_config('lunashard.guarded', '1', true), set_config('lunashard.guarded_shard', '1', true);
END $$;

-- Of a standby: no lock, for whatever is seen is seen by one snapshot. Call them under REPEATABLE READ.
CREATE FUNCTION lunashard.guard_replica(in_group text, in_bucket text, in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owned bigint := lunashard.owned_version(in_group, in_bucket);
BEGIN
  IF owned IS DISTINCT FROM in_version THEN
    PERFORM lunashard.refuse_stale(in_group, in_bucket, owned);
  END IF;
END $$;

CREATE FUNCTION lunashard.guard_replica_shard(in_version bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT lunashard.refuse_stale_shard(in_version) $$;

-- The end of every change of ownership.
CREATE FUNCTION lunashard.advance() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  reached bigint;
BEGIN
  PERFORM FROM lunashard.state FOR UPDATE; -- one change after the other, so that the last one has the last value
  UPDATE lunashard.state SET version = nextval('lunashard.epoch') RETURNING version INTO reached;
  RETURN reached;
END $$;

-- Give buckets of an open group rows of their own, so that they can be moved. Those that have left are passed over.
CREATE FUNCTION lunashard.enlist(in_group text, in_buckets text[]) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$
  WITH added AS (
    INSERT INTO lunashard.bucket (grp, bucket, version)
      SELECT in_group, u.bucket, 1 FROM unnest(in_buckets) AS u(bucket)
       WHERE EXISTS (SELECT FROM lunashard.placement_group o WHERE o.name = in_group AND o.buckets IS NULL)
         AND NOT EXISTS (SELECT FROM lunashard.departed d WHERE d.grp = in_group AND d.bucket = u.bucket)
      ON CONFLICT DO NOTHING RETURNING 1)
  SELECT count(*) FROM added
$$;

-- Statement triggers for the tables of a group while a job is open.
CREATE FUNCTION lunashard.refuse_unguarded() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF pg_catalog.current_setting('lunashard.guarded', true) IS DISTINCT FROM '1' THEN
    RAISE EXCEPTION USING ERRCODE = 'LS003',
      MESSAGE = pg_catalog.format('rows of %I.%I are being moved: a write needs its guard', TG_TABLE_SCHEMA, TG_TABLE_NAME),
      HINT = 'Write through Lunashard while a rebalance job is open.';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION lunashard.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'LS004',
    MESSAGE = pg_catalog.format('rows of %I.%I are being moved: TRUNCATE would be missed', TG_TABLE_SCHEMA, TG_TABLE_NAME),
    HINT = 'Use DELETE, or wait until the rebalance job has ended.';
END $$;

-- For the first statement of every transaction of a mover; the row lock keeps a second one out until its end.
CREATE FUNCTION lunashard.check_token(in_job bigint, in_seq int, in_role text, in_token bigint) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  present bigint;
BEGIN
  SELECT m.token INTO present FROM lunashard.move m
   WHERE m.job = in_job AND m.seq = in_seq AND m.role = in_role FOR UPDATE;
  IF present IS DISTINCT FROM in_token THEN
    RAISE EXCEPTION USING ERRCODE = 'LS005',
      MESSAGE = format('move %s of job %s has been taken over by another mover', in_seq, in_job);
  END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA lunashard FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lunashard.lock_key(text, text), lunashard.shard_lock_key(),
  lunashard.guard(text, text, bigint), lunashard.guard_shard(bigint),
  lunashard.guard_replica(text, text, bigint), lunashard.guard_replica_shard(bigint) TO PUBLIC;
GRANT SELECT ON lunashard.migration, lunashard.identity, lunashard.placement_group, lunashard.bucket, lunashard.departed,
  lunashard.state, lunashard.epoch, lunashard.move TO PUBLIC;
]]

-- `joined`: the rows of reference tables here were written, or copied, as those of the other shards.
local VERSION_2 = [[
DROP TABLE lunashard.dirty; -- jobs note keys in tables of their own
ALTER TABLE lunashard.identity ADD joined bool NOT NULL DEFAULT false;
UPDATE lunashard.identity i SET joined = EXISTS (SELECT FROM lunashard.bucket)
  OR EXISTS (SELECT FROM lunashard.placement_group g, jsonb_array_elements(g.shards) one
              WHERE g.buckets IS NULL AND one->>'shard_id' = i.shard_id);

-- nextval writes ahead to the log, and a server that has crashed would go on from there.
CREATE OR REPLACE FUNCTION lunashard.advance() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  reached bigint;
BEGIN
  PERFORM FROM lunashard.state FOR UPDATE; -- one change after the other, so that the last one has the last value
  UPDATE lunashard.state SET version = setval('lunashard.epoch', (SELECT last_value FROM lunashard.epoch) + 1)
    RETURNING version INTO reached;
  RETURN reached;
END $$;
SELECT setval('lunashard.epoch', last_value) FROM lunashard.epoch;

-- A move changes hundreds of buckets while statements for them wait: the trigger runs once for all.
DROP TRIGGER departure ON lunashard.bucket;
CREATE OR REPLACE FUNCTION lunashard.note_departure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    DELETE FROM lunashard.departed d USING changed c WHERE d.grp = c.grp AND d.bucket = c.bucket;
  ELSE
    INSERT INTO lunashard.departed (grp, bucket, version)
      SELECT c.grp, c.bucket, c.version FROM changed c, lunashard.placement_group o
       WHERE o.name = c.grp AND o.buckets IS NULL
      ON CONFLICT ON CONSTRAINT departed_pkey DO UPDATE SET version = excluded.version;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER arrival AFTER INSERT ON lunashard.bucket REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION lunashard.note_departure();
CREATE TRIGGER departure AFTER DELETE ON lunashard.bucket REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION lunashard.note_departure();
]]

-- A guard leaves word of what it has checked: a job's triggers need not look again.
local VERSION_3 = [[
CREATE OR REPLACE FUNCTION lunashard.guard(in_group text, in_bucket text, in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owned bigint;
  word text;
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(lunashard.lock_key(in_group, in_bucket)) THEN
    RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = format('bucket %s of group %s is being moved', in_bucket, in_group),
      DETAIL = 'locked', HINT = 'Wait for a moment and run the statement again.';
  END IF;
  SELECT b.version INTO owned FROM lunashard.bucket b WHERE b.grp = in_group AND b.bucket = in_bucket;
  IF owned IS NULL THEN
    owned := lunashard.owned_version(in_group, in_bucket);
  END IF;
  IF owned IS DISTINCT FROM in_version THEN
    PERFORM lunashard.refuse_stale(in_group, in_bucket, owned);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    PERFORM lunashard.refuse_old_snapshot();
  END IF;
  word := set_config('lunashard.guarded', in_group || '/' || in_bucket, true); -- PERFORM would be a query of its own
END $$;

CREATE OR REPLACE FUNCTION lunashard.guard_shard(in_version bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  reached bigint;
  leaving int;
  word text;
BEGIN
  IF NOT pg_try_advisory_xact_lock_shared(lunashard.shard_lock_key()) THEN
    RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = 'buckets of this shard are being moved', DETAIL = 'locked',
      HINT = 'Wait for a moment and run the statement again, on all shards.';
  END IF;
  SELECT s.version, s.in_transition INTO STRICT reached, leaving FROM lunashard.state s;
  IF reached IS DISTINCT FROM in_version OR leaving > 0 THEN
    PERFORM lunashard.refuse_stale_shard(in_version);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    PERFORM lunashard.refuse_old_snapshot();
  END IF;
  word := set_config('lunashard.guarded', '1', true) || set_config('lunashard.guarded_shard', '1', true);
END $$;

CREATE OR REPLACE FUNCTION lunashard.refuse_unguarded() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  IF coalesce(pg_catalog.current_setting('lunashard.guarded', true), '') IS NOT DISTINCT FROM '' THEN
    RAISE EXCEPTION USING ERRCODE = 'LS003',
      MESSAGE = pg_catalog.format('rows of %I.%I are being moved: a write needs its guard', TG_TABLE_SCHEMA, TG_TABLE_NAME),
      HINT = 'Write through Lunashard while a rebalance job is open.';
  END IF;
  RETURN NULL;
END $$;
]]

return { name = "lunashard", schemas = { "lunashard", "lunashard_staging" },
  migrations = { VERSION_1, VERSION_2, VERSION_3 } }
