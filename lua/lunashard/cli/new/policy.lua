--- What `lunashard new policy` writes.
-- @module lunashard.cli.new.policy

return {
  plugin = [=[
-- $NAME: servers whose hosts are named backup... are never made primaries.
-- In the cluster file: choose_primary = "$NAME"

return {
  api = 1, kind = "policy", name = "$NAME",

  -- Before a switch or a promotion. The best candidate comes first; each has endpoint ("host:port"), host, port,
  -- reason, timeline, lsn; shard has shard_id, region, tags, ... Return the endpoint that is to be the primary,
  -- false for none of them, or nil to leave the choice as it is.
  choose_primary = function(candidates, shard)
    for _, candidate in ipairs(candidates) do
      if not string.find(candidate.host, "^backup") then
        return candidate.endpoint
      end
    end
    return false
  end,
}
]=],
  spec = [=[
local testing = require("lunashard.testing")

describe("the policy $NAME", function()
  local backup, db1 = { host = "backup1", endpoint = "backup1:5432" }, { host = "db1", endpoint = "db1:5432" }
  local shard = { shard_id = "shard1" }
  local plugin

  setup(function()
    plugin = testing.load($PATH)
  end)

  it("chooses the first candidate that is no backup", function()
    assert.equal("db1:5432", plugin.choose_primary({ backup, db1 }, shard))
  end)

  it("refuses when only backups are left", function()
    assert.is_false(plugin.choose_primary({ backup }, shard))
  end)
end)
]=],
}
