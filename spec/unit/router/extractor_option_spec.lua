local failure = require("spec.support.cluster").failure
local lunashard = require("lunashard")

local TABLES = { users = { shard_key = "user_id", type = "int8" }, countries = { reference = true } }

local function options(more)
  local given = {
    shards = {
      { shard_id = "shard1", host = "db1", database = "app", user = "app" },
      { shard_id = "shard2", host = "db2", database = "app", user = "app" },
    },
    strategy = { "range", shard_key = "user_id", ranges = { shard1 = { nil, 99 }, shard2 = { 100 } } },
    tables = TABLES,
  }
  for name, value in pairs(more or {}) do
    given[name] = value
  end
  return given
end

local function new(extractor)
  local manager = lunashard.manager(options({ extractor = extractor }))
  return lunashard.router(manager), manager
end

local function shard_of(router, sql, params)
  return assert(router:explain(sql, params)).shard_id
end

describe("the option extractor", function()
  local BY_COLUMN = "SELECT name FROM users WHERE user_id = $1"
  local NO_COLUMN = "SELECT name FROM users WHERE name = $1"

  it("takes a name, a name with arguments, an extractor, a list of these, and false", function()
    assert.equal("shard2", shard_of(new(), BY_COLUMN, { 120 }))
    assert.equal("shard2", shard_of(new("by_column"), BY_COLUMN, { 120 }))
    assert.equal("shard2", shard_of(new({ "by_param", 1 }), NO_COLUMN, { 120 }))
    assert.equal("shard1", shard_of(new(lunashard.extractor.by_param(2)), NO_COLUMN .. " OR age = $2", { 120, 5 }))
    assert.equal("shard1", shard_of(new({ lunashard.extractor.by_comment(), lunashard.extractor.by_column() }),
      "/* shard_key: 7 */ " .. NO_COLUMN, { "x" }))
    failure("NO_KEY", new(false):explain(BY_COLUMN, { 120 }))
  end)

  it("is the router's own before it is the manager's", function()
    local _, manager = new("by_comment")
    local own = lunashard.router({ shard_manager = manager, extractor = "by_column" })
    assert.equal("shard2", shard_of(own, BY_COLUMN, { 120 }))
    assert.is_nil(shard_of(lunashard.router(manager), BY_COLUMN, { 120 }))
  end)

  it("is refused when it names none, with the nearest name", function()
    for _, wrong in ipairs({ "by_colum", { "by_colum" } }) do
      local ok, message = pcall(new, wrong)
      assert.is_false(ok)
      assert.is_truthy(message:find('extractor.*"by_column"'), message)
      ok, message = pcall(lunashard.router, { shard_manager = select(2, new()), extractor = wrong })
      assert.is_false(ok)
      assert.is_truthy(message:find('router: extractor.*"by_column"'), message)
    end
    for _, wrong in ipairs({ 7, true, {}, { "by_param", "x" }, { "by_param" } }) do
      local ok, message = pcall(new, wrong)
      assert.is_false(ok)
      assert.is_truthy(message:find("extractor", 1, true) or message:find("by_param", 1, true), message)
    end
  end)

  it("changes with a reload, and a wrong one changes nothing", function()
    local router, manager = new()
    assert.is_nil(shard_of(router, NO_COLUMN, { 120 }))
    assert(manager:reload(options({ extractor = { "by_param", 1 } })))
    assert.equal("shard2", shard_of(router, NO_COLUMN, { 120 }))
    failure("INVALID", manager:reload(options({ extractor = "by_nothing" })))
    assert.equal("shard2", shard_of(router, NO_COLUMN, { 120 }))
    assert.same({}, assert(manager:reload(options({ extractor = { "by_param", 1 } }))))
  end)

  it("knows the tables that a reload declares", function()
    local router, manager = new()
    failure("NO_KEY", router:explain("DELETE FROM things WHERE user_id = 120"))
    local tables = { things = { shard_key = "user_id", type = "int8" } }
    for name, declared in pairs(TABLES) do
      tables[name] = declared
    end
    assert(manager:reload(options({ tables = tables })))
    assert.equal("shard2", shard_of(router, "DELETE FROM things WHERE user_id = 120"))
  end)
end)

describe("a user's extractor", function()
  local function register(extract)
    lunashard.extractor.register({ api = 1, kind = "extractor", name = "of_spec", extract = extract })
    return new("of_spec")
  end

  it("is asked with the statement and the parameters of each call", function()
    local router = register(function(statement, params)
      return statement.kind == "SELECT" and statement.tables[1] == "users" and params[1].tenant or nil, "it has no tenant"
    end)
    local sql = "SELECT name FROM users WHERE doc = $1"
    assert.equal("shard1", shard_of(router, sql, { { tenant = 7 } }))
    assert.equal("shard2", shard_of(router, sql, { { tenant = 700 } }))
    local plan = assert(router:explain(sql, { {} }))
    assert.same({ "shard1", "shard2" }, plan.shards)
    assert.is_truthy(plan.reason:find("it has no tenant", 1, true), plan.reason)
  end)

  it("that finds no key has a write refused, for its reason", function()
    local router = register(function()
      return nil, "the moon is wrong"
    end)
    local err = failure("NO_KEY", router:explain("UPDATE users SET name = 'x'"))
    assert.is_truthy(err.message:find("the moon is wrong", 1, true), err.message)
  end)

  it("that fails, or gives what is no key, is an error and no guess", function()
    local router = register(function()
      error("broken")
    end)
    local err = failure("PLUGIN_FAILED", router:explain("UPDATE users SET name = 'x'"))
    assert.is_truthy(err.message:find("broken", 1, true), err.message)
    for _, wrong in ipairs({ true, {}, print, 0 / 0, 1.5, "seven" }) do
      router = register(function()
        return wrong
      end)
      local made, problem = router:explain("UPDATE users SET name = 'x'")
      assert.is_nil(made)
      assert.is_true(problem.code == "INVALID" or problem.code == "NULL_KEY" or problem.code == "PLUGIN_FAILED",
        tostring(problem))
    end
  end)

  it("that says another key than the statement's columns is refused", function()
    local router = register(function()
      return 7
    end)
    failure("KEY_MISMATCH", router:explain("DELETE FROM users WHERE user_id = 8"))
    failure("KEY_MISMATCH", router:explain("INSERT INTO users (user_id) VALUES (7), ($1)", { 8 }))
    assert.equal("shard1", shard_of(router, "DELETE FROM users WHERE user_id = 7"))
  end)

  it("is questioned by the caller's routing_key", function()
    local router = register(function(_, params)
      return params[1]
    end)
    failure("KEY_MISMATCH", router:explain("UPDATE users SET name = 'x' WHERE name = $1", { 8 }, { routing_key = 7 }))
    assert(router:explain("UPDATE users SET name = 'x' WHERE name = $1", { "7" }, { routing_key = 7 }))
  end)
end)
