local cli = require("spec.support.cli")
local process = require("lunashard.process")
local pty = require("spec.support.pty")

local CLUSTER = [[
return {
  name = "many",
  shards = {
    { shard_id = "eu-1", host = "127.0.0.1", port = 1, database = "app", user = "app" },
    { shard_id = "eu-2", host = "127.0.0.1", port = 1, database = "app", user = "app" },
    { shard_id = "us", host = "127.0.0.1", port = 1, database = "app", user = "app" },
  },
  strategy = { "hash", shard_key = "user_id" },
  tables = { users = { shard_key = "user_id", type = "int8" }, countries = { reference = true } },
}
]]

describe("a command line that is typed in a shell", function()
  local dir, terminal

  setup(function()
    dir = cli.directory()
    cli.write(dir, "my cluster.lua", CLUSTER)
    cli.write(dir, "script.lua", "return true")
    for _, shell in ipairs({ "bash", "zsh", "fish" }) do
      local result = cli.run({ "completion", shell })
      assert.equal(0, result.code, result.stderr)
      cli.write(dir, "completion." .. shell, result.stdout)
    end
  end)

  after_each(function()
    if terminal then
      terminal:close()
      terminal = nil
    end
  end)

  teardown(function()
    cli.remove_all()
  end)

  -- The words that are offered at the end of a line, each with a blank after it.
  local function offered(...)
    local result = cli.run({ "completion", "words", ... }, { cwd = dir })
    assert.equal(0, result.code, result.stderr)
    return (result.stdout:gsub("\t[^\n]*", ""):gsub("\n", " "))
  end

  local function has(shell)
    if cli.binary:find("/asan/", 1, true) then
      return false -- the shells' part is no C, and each word starts the program
    end
    local there = process.run({ argv = { shell, "-c", "exit" }, timeout = 20 }) ~= nil
    if not there then
      assert(not os.getenv("LUNASHARD_CI"), shell .. " is not installed")
      pending(shell .. " is not installed")
    end
    return there
  end

  -- A shell as a person has it, which knows the program by its name.
  local function start(argv, ready)
    terminal = pty.spawn(argv, { cwd = dir, columns = 120, env = {
      HOME = dir, PATH = cli.binary:match("^(.*)/") .. ":" .. os.getenv("PATH"), PS1 = "typed> ", ZDOTDIR = dir,
    } })
    terminal:see("typed>")
    terminal:type(ready .. "; echo re''ady\r")
    terminal:see("\nready\n")
  end

  local function check_by_typing()
    local function completes(typed, line)
      terminal:type(typed)
      terminal:see_line("typed> " .. line)
      terminal:type("\21") -- Ctrl-U
      terminal:see_line("typed>")
    end
    completes("lunashard sche\tdi\t--ag\te\t", "lunashard schema diff --against e")
    completes("lunashard sql -c my\\ cluster.lua --shard e\t", "lunashard sql -c my\\ cluster.lua --shard eu-")
    completes("lunashard sql -c my\\ cluster.lua --shard=u\t", "lunashard sql -c my\\ cluster.lua --shard=us")
    completes("lunashard sql -c 'my cluster.lua' --table c\t", "lunashard sql -c 'my cluster.lua' --table countries")
    completes("lunashard sql -c my\t", "lunashard sql -c my\\ cluster.lua")
    completes("lunashard run scr\t", "lunashard run script.lua")
    terminal:type("lunashard sql -c my\\ cluster.lua --shard eu\t\t\t")
    terminal:see("eu-1")
    terminal:see("eu-2")
  end

  it("may go on with commands, actions, options and values, by what stands before", function()
    assert.equal("schema ", offered("sch"))
    assert.equal("apply diff ", offered("schema", ""))
    assert.equal("--canary ", offered("schema", "apply", "--ca"))
    assert.equal("json jsonl ", offered("sql", "--format", "j"))
    assert.equal("--format=json --format=jsonl ", offered("sql", "--format=j"))
    assert.equal("buckets bytes rows ", offered("rebalance", "plan", "--even", ""))
    assert.equal("apply ", offered("help", "schema", "a"))
    assert.equal(":files ", offered("run", "-c", "x.lua", ""))
    assert.equal(":files ", offered("run", "script.lua", "an", "argument", ""))
    assert.equal("", offered("no", "such", "command"))
    assert.equal("", offered("schema", "apply", "--parallel", ""))
  end)

  it("may name the shards and tables of its cluster file, which is asked nothing where it cannot be read", function()
    assert.equal("eu-1 eu-2 us ", offered("sql", "-c", "my\\ cluster.lua", "--shard", ""))
    assert.equal("eu-1 eu-2 ", offered("schema", "diff", "--cluster=my cluster.lua", "--against", "eu"))
    assert.equal("countries users ", offered("distribution", "-c", "'my cluster.lua'", "--table", ""))
    assert.equal("", offered("sql", "-c", "missing.lua", "--shard", ""))
  end)

  it("is completed in bash", function()
    if has("bash") then
      start({ "bash", "--norc", "--noprofile", "-i" }, "bind 'set bell-style none'; source ./completion.bash")
      check_by_typing()
    end
  end)

  it("is completed in zsh", function()
    if has("zsh") then
      start({ "zsh", "-f", "-i" }, "autoload -U compinit; compinit -D -u; unsetopt beep; source ./completion.zsh")
      check_by_typing()
    end
  end)

  it("is completed in fish", function()
    if not has("fish") then
      return
    end
    local lines = { "lunashard schema d", "lunashard sql -c my\\ cluster.lua --shard e",
      "lunashard sql -c 'my cluster.lua' --table=u", "lunashard run scr", "lunashard schema apply --ca" }
    local script = "source completion.fish; for line in $argv; complete -C $line; end"
    local result = assert(process.run({ argv = { "fish", "--no-config", "-c", script, unpack(lines) }, cwd = dir, timeout = 20,
      env = { HOME = dir, PATH = cli.binary:match("^(.*)/") .. ":" .. os.getenv("PATH") } }))
    assert.equal(0, result.code, result.stderr)
    assert.equal("diff\tcompare the shards' schemas with one of them\neu-1\t127.0.0.1:1\neu-2\t127.0.0.1:1\n"
      .. "--table=users\tby user_id\nscript.lua\n--canary\tthe shard that goes first\n", result.stdout)
  end)

  it("is not completed for other shells", function()
    assert.equal(2, cli.run({ "completion", "tcsh" }).code)
    assert.equal(2, cli.run({ "completion", "bash", "more" }).code)
  end)
end)
