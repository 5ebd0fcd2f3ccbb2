--- What lies in the schema `lunashard_catalog`: the map, who serves, and what is being moved.
-- Routers are caches of it; what a shard really owns at this moment, it says itself (see `shard_schema`).
--
-- Every change of the map takes a number from `lunashard_catalog.next_version()`, which locks the cluster's row to the
-- end of the transaction, and notes it in `changed`: numbers are committed in their order, so that whoever has seen
-- version n gets all that is newer by `changed > n`. Notifications on `lunashard_map` (the payload is the map's version) and
-- `lunashard_job` (the job's number) are hints and nothing else.
-- @module lunashard.catalog.catalog_schema
-- @local

local VERSION_1 = [[
CREATE SCHEMA lunashard_catalog;
REVOKE ALL ON SCHEMA lunashard_catalog FROM PUBLIC;

CREATE TABLE lunashard_catalog.migration (
  version int PRIMARY KEY,
  applied_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE lunashard_catalog.cluster (
  single bool PRIMARY KEY DEFAULT true CHECK (single),
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  name text,
  map_version bigint NOT NULL DEFAULT 0, -- 0: not to be used yet, for the map is not complete
  guard_epoch bigint NOT NULL DEFAULT 0,
  guards bool NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE lunashard_catalog.shard (
  shard_id text PRIMARY KEY,
  host text NOT NULL,
  port int NOT NULL,
  database text NOT NULL,
  position int NOT NULL,
  state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'draining', 'removed'))
);

CREATE TABLE lunashard_catalog.placement_group (
  name text PRIMARY KEY,
  strategy text NOT NULL,
  fingerprints text[] NOT NULL, -- of every version of the strategy that gives the same buckets
  key_type text NOT NULL,
  buckets int, -- null: the group is open, those that are not listed are at version 1 where the strategy says
  shards jsonb NOT NULL, -- for an open group: the shards that its strategy places unlisted buckets over, for ever
  changed bigint NOT NULL DEFAULT 1
);

CREATE TABLE lunashard_catalog.grouped_table (
  name text PRIMARY KEY,
  grp text NOT NULL REFERENCES lunashard_catalog.placement_group ON DELETE CASCADE,
  shard_key text[] NOT NULL
);

CREATE TABLE lunashard_catalog.bucket (
  grp text NOT NULL REFERENCES lunashard_catalog.placement_group ON DELETE CASCADE,
  bucket text NOT NULL,
  shard_id text NOT NULL REFERENCES lunashard_catalog.shard,
  version bigint NOT NULL DEFAULT 1 CHECK (version > 0),
  changed bigint NOT NULL DEFAULT 1,
  PRIMARY KEY (grp, bucket)
);
CREATE INDEX bucket_changed ON lunashard_catalog.bucket (changed);
CREATE INDEX bucket_shard ON lunashard_catalog.bucket (shard_id);

CREATE TABLE lunashard_catalog.job (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  grp text NOT NULL REFERENCES lunashard_catalog.placement_group ON DELETE CASCADE,
  kind text NOT NULL,
  strategy text NOT NULL,
  status text NOT NULL DEFAULT 'pending' CHECK (status IN
    ('pending', 'running', 'paused', 'completed', 'failed', 'cancelled', 'rolled_back')),
  options jsonb NOT NULL DEFAULT '{}',
  token bigint NOT NULL DEFAULT 0,
  total_rows bigint NOT NULL DEFAULT 0,
  total_migrated bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  finished_at timestamptz,
  error_message text
);

CREATE TABLE lunashard_catalog.move (
  job bigint NOT NULL REFERENCES lunashard_catalog.job ON DELETE CASCADE,
  seq int NOT NULL,
  source text NOT NULL REFERENCES lunashard_catalog.shard,
  destination text NOT NULL REFERENCES lunashard_catalog.shard,
  buckets text[] NOT NULL,
  state text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'capturing', 'copying', 'catchup', 'fencing',
    'fenced', 'verified', 'merged', 'flipped', 'done', 'aborted')),
  cursor jsonb NOT NULL DEFAULT '{}',
  rows_estimated bigint NOT NULL DEFAULT 0,
  rows_copied bigint NOT NULL DEFAULT 0,
  bytes bigint NOT NULL DEFAULT 0,
  pause_seconds double precision,
  started_at timestamptz,
  finished_at timestamptz,
  error_message text,
  PRIMARY KEY (job, seq)
);

-- Who routes; a lease ends by this server's clock.
CREATE TABLE lunashard_catalog.router (
  router_id uuid PRIMARY KEY,
  name text NOT NULL,
  lease_until timestamptz NOT NULL,
  acknowledged bigint NOT NULL DEFAULT 0,
  shards text[] NOT NULL DEFAULT '{}'
);

CREATE TABLE lunashard_catalog.event (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  job bigint,
  seq int,
  kind text NOT NULL,
  message text NOT NULL
);

CREATE FUNCTION lunashard_catalog.next_version() RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp
AS $$ UPDATE lunashard_catalog.cluster SET map_version = map_version + 1 RETURNING map_version $$;

CREATE FUNCTION lunashard_catalog.tell_map() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_notify('lunashard_map', NEW.map_version::text);
  RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER UPDATE ON lunashard_catalog.cluster
  FOR EACH ROW EXECUTE FUNCTION lunashard_catalog.tell_map();

CREATE FUNCTION lunashard_catalog.tell_job() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_notify('lunashard_job', NEW.id::text);
  RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OF status ON lunashard_catalog.job
  FOR EACH ROW EXECUTE FUNCTION lunashard_catalog.tell_job();

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA lunashard_catalog FROM PUBLIC;
]]

local VERSION_2 = [[
-- Its reference tables have the rows that those of the others have: writes to them go there, too.
ALTER TABLE lunashard_catalog.shard ADD joined bool NOT NULL DEFAULT false;
UPDATE lunashard_catalog.shard s SET joined = state <> 'removed' AND (
  EXISTS (SELECT FROM lunashard_catalog.bucket b WHERE b.shard_id = s.shard_id)
  OR EXISTS (SELECT FROM lunashard_catalog.placement_group g, jsonb_array_elements(g.shards) one
              WHERE g.buckets IS NULL AND one->>'shard_id' = s.shard_id));

ALTER TABLE lunashard_catalog.cluster
  ADD guards_changed timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- of this server, when the leases in `router` were known to be all there are
  ADD timeline text NOT NULL DEFAULT substring(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
]]

return { name = "lunashard_catalog", schemas = { "lunashard_catalog" }, migrations = { VERSION_1, VERSION_2 } }
