--- Which steps of which change a shard has: `lunashard.schema_step`, on each shard.
-- A step that a transaction holds is written down in that same transaction. Any other is written down as begun before and
-- as done afterwards, so that a run which was killed in between is known.
-- @module lunashard.schema.ledger

local errors = require("lunashard.errors")

local ledger = {}

local EXISTS = "SELECT to_regclass('lunashard.schema_step') IS NOT NULL AS there, "
  .. "to_regnamespace('lunashard') IS NOT NULL AS schema"

local TABLE = [[
  CREATE TABLE IF NOT EXISTS lunashard.schema_step (
    change text NOT NULL,
    digest text NOT NULL,
    step int NOT NULL,
    title text NOT NULL,
    is_done boolean NOT NULL,
    applied_by text NOT NULL DEFAULT current_user,
    begun_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (change, digest))]]

local READ = "SELECT digest, is_done FROM lunashard.schema_step WHERE change = $1"

local WRITE = [[
  INSERT INTO lunashard.schema_step AS s (change, digest, step, title, is_done, ended_at)
  VALUES ($1, $2, $3, $4, $5, CASE WHEN $5 THEN clock_timestamp() END)
  ON CONFLICT (change, digest) DO UPDATE
    SET step = $3, title = $4, is_done = $5, applied_by = current_user,
        begun_at = CASE WHEN s.is_done THEN clock_timestamp() ELSE s.begun_at END,
        ended_at = CASE WHEN $5 THEN clock_timestamp() END]]

local function create(lease, has_schema, how)
  local ok, err = true, nil
  if not has_schema then
    ok, err = lease:execute("CREATE SCHEMA IF NOT EXISTS lunashard", nil, how)
  end
  if ok then
    ok, err = lease:execute(TABLE, nil, how)
  end
  if ok then
    return true
  end
  return nil, errors.wrap(err, {
    hint = "steps that are done are kept in lunashard.schema_step: GRANT CREATE ON DATABASE to the user, or create the "
      .. "schema lunashard for it",
  })
end

--- Read what a shard has. Yields.
-- @tparam Lease lease
-- @string change
-- @tparam table how `deadline`; `create`: make the table when there is none
-- @treturn[1] table digest -> `"done"` or `"begun"`
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function ledger.read(lease, change, how)
  local pass_on = { deadline = how.deadline }
  local found, err = lease:execute(EXISTS, nil, pass_on)
  if not found then
    return nil, err
  end
  local there = found.rows[1].there
  if not there and how.create then
    there, err = create(lease, found.rows[1].schema, pass_on)
    if not there then
      return nil, err
    end
  end
  local states = {}
  if there then
    local result
    result, err = lease:execute(READ, { change }, pass_on)
    if not result then
      return nil, err
    end
    for _, row in ipairs(result.rows) do
      states[row.digest] = row.is_done and "done" or "begun"
    end
  end
  return states
end

--- Write down a step. Yields.
-- @tparam Lease lease
-- @string change
-- @tparam table step
-- @tparam boolean is_done
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function ledger.write(lease, change, step, is_done, deadline)
  return lease:execute(WRITE, { change, step.digest, step.number, step.title, is_done }, { deadline = deadline })
end

--- Strike out a step that was begun and has certainly failed. Yields.
-- @tparam Lease lease
-- @string change
-- @tparam table step
-- @tparam ?number deadline
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] lunashard.error
function ledger.strike(lease, change, step, deadline)
  return lease:execute("DELETE FROM lunashard.schema_step WHERE change = $1 AND digest = $2 AND NOT is_done",
    { change, step.digest }, { deadline = deadline })
end

return ledger
