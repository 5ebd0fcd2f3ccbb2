--- What `lunashard new extractor` writes.
-- @module lunashard.cli.new.extractor

return {
  plugin = [=[
-- $NAME: the first parameter is the shard key, of statements on tables named tenant_...
-- In the cluster file: extractor = "$NAME"

return {
  api = 1, kind = "extractor", name = "$NAME",

  -- The key of a statement, or nil and in words why there is none. `statement` has sql, kind ("SELECT", ...),
  -- tables (a list of names) and ast (PostgreSQL's parse tree); nothing of it may be changed.
  extract = function(statement, params)
    for _, name in ipairs(statement.tables) do
      if not string.find(name, "^tenant_") then
        return nil, "table " .. name .. " is not one of the tenants'"
      end
    end
    if params == nil or params[1] == nil then
      return nil, "there is no first parameter"
    end
    return params[1]
  end,
}
]=],
  spec = [=[
local testing = require("lunashard.testing")

describe("the extractor $NAME", function()
  local plugin

  setup(function()
    plugin = testing.load($PATH)
  end)

  local function extract(table_name, params)
    return plugin.extract({ sql = "SELECT ...", kind = "SELECT", tables = { table_name } }, params)
  end

  it("takes the first parameter for the key", function()
    assert.equal(42, (extract("tenant_orders", { 42, "x" })))
  end)

  it("says why it finds none", function()
    local key, reason = extract("tenant_orders", {})
    assert.is_nil(key)
    assert.equal("there is no first parameter", reason)
    key, reason = extract("countries", { 42 })
    assert.is_nil(key)
    assert.matches("countries", reason)
  end)
end)
]=],
}
