local complete = require("lunashard.repl.complete")

local cluster = {
  manager = { shards = { { shard_id = "shard1" }, { shard_id = "shard2" } },
    options = { tables = { users = { shard_key = "user_id" }, countries = { reference = true } } } },
  router = {
    execute = function()
      error("a server was asked for a completion")
    end,
  },
}

describe("completion", function()
  local completer, env

  before_each(function()
    local Router = { execute = print, explain = print }
    Router.__index = Router
    env = setmetatable({ router = setmetatable({ own = 1 }, Router), alpha = { beta = { gamma = 1, ["not a name"] = 2 } },
      text = "a string" }, { __index = { print = print, pairs = pairs } })
    completer = complete.new({ env = env, cluster = cluster, manager = cluster.manager })
  end)

  after_each(function()
    completer:close()
  end)

  -- What the line may become.
  local function lines(text)
    local from, items = completer:candidates(text, #text)
    local list = {}
    for i, item in ipairs(items) do
      list[i] = text:sub(1, from - 1) .. item
    end
    return table.concat(list, " | ")
  end

  it("knows globals, fields and methods, without calling anything", function()
    setmetatable(env.alpha, { __index = function()
      error("called")
    end })
    assert.equal("alpha", lines("alp"))
    assert.equal("x = alpha.beta.gamma", lines("x = alpha.beta.g"))
    assert.equal("router.execute | router.explain", lines("router.e"))
    assert.equal("router:execute | router:explain", lines("router:"))
    assert.equal("pairs", lines("pa"))
    assert.equal("", lines("alpha.missing.x"))
    assert.equal("text:find | text:format", lines("text:f"))
    assert.equal("table | text | then | true | truncate", lines("t"))
  end)

  it("knows shards and tables where a text is begun", function()
    assert.equal("manager:get_shard_status('shard1 | manager:get_shard_status('shard2",
      lines("manager:get_shard_status('sh"))
    assert.equal('f("users', lines('f("us'))
  end)

  it("knows commands and what they take", function()
    assert.equal("\\watch", lines("\\wa"))
    assert.equal("\\use key | \\use shard1 | \\use shard2", lines("\\use "))
    assert.equal("  \\pools", lines("  \\poo"))
  end)

  it("knows keywords, tables and columns, in the letters that were begun with", function()
    assert.equal("SELECT", lines("SEL"))
    assert.equal("select", lines("sele"))
    assert.equal("select * from users where", lines("select * from users wher"))
    assert.equal("SELECT * FROM countries | SELECT * FROM users", lines("SELECT * FROM "))
    assert.equal("select * from users u where u.user_id", lines("select * from users u where u."))
    assert.equal("select * from users AS u where u.user_id", lines("select * from users AS u where u."))
    assert.equal("SELECT user_id", lines("SELECT user"):match("SELECT user_id"))
  end)

  it("takes whatever is typed", function()
    for _, text in ipairs({ "", " ", "\\", ".", ":", "a.", ":b", "'", "\"\\", "select", "select ", "(", "日", "\255.\254", "x..y",
      "a:b.c", "%d+", "[[", "from ." }) do
      local from, items = completer:candidates(text, #text)
      assert.is_true(from >= 1 and from <= #text + 1, text)
      assert.is_table(items)
    end
  end)
end)
