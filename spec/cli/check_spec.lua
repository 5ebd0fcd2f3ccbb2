local cjson = require("cjson.safe")
local cli = require("spec.support.cli")
local system = require("lunashard.core.system")

local dir

local function check(...)
  return cli.run({ "check", ... }, { cwd = dir })
end

-- A strategy in the plug-in folder with these functions' bodies.
local function strategy(parts)
  for _, folder in ipairs({ "/plugins", "/plugins/strategies" }) do
    if not system.stat(dir .. folder) then
      assert(system.mkdir(dir .. folder, 493))
    end
  end
  cli.write(dir, "plugins/strategies/tier.lua", ([[
local sum = 0
return {
  api = 1, kind = "strategy", name = "tier", %s
  new = function(options, shards) %s end,
  bucket = function(state, key) %s end,
  place = function(state, bucket, shards) %s end,
}
]]):format(parts.head or "", parts.new or "return options", parts.bucket or "return tonumber(key % 64)",
    parts.place or "return shards[bucket % #shards + 1].shard_id"))
  return "plugins/strategies/tier.lua"
end

-- The lines that a file's check prints.
local function findings(path, ...)
  local result = check(path, ...)
  assert.equal("", result.stderr)
  assert.equal(1, result.code)
  return result.stdout
end

describe("lunashard check", function()
  before_each(function()
    dir = cli.directory()
  end)

  after_each(function()
    cli.remove_all()
  end)

  it("says that all is well with each plug-in that `new` writes, and what it was tried with", function()
    local files = {}
    for _, kind in ipairs({ "aggregate", "extractor", "policy", "strategy" }) do
      local made = cli.run({ "new", kind, "mine" }, { cwd = dir })
      files[#files + 1] = made.stdout:match("^[^\n]*")
    end
    local result = check(unpack(files))
    assert.equal("", result.stderr)
    assert.equal(0, result.code, result.stdout)
    assert.matches("plugins/aggregates/mine.lua: ok: aggregate mine", result.stdout, 1, true)
    assert.matches("plugins/strategies/mine.lua: ok: strategy mine, tried with 3 shards and int8 keys\n", result.stdout, 1,
      true)
  end)

  it("finds all I/O, clocks, randomness and globals of a file, with their lines, without running it", function()
    local path = strategy({
      bucket = "io.open('ran', 'w')\n return math.random(64)",
      place = "sum = os.time()\n counter = 1\n return shrads[1].shard_id",
    })
    local out = findings(path)
    local expected = { "5: .*io", "6: .*math%.random", "7: .*os", "8: .*counter.*local", "9: .*shrads" }
    local n = 0
    for line in out:gmatch("[^\n]+") do
      n = n + 1
      assert.matches("^plugins/strategies/tier%.lua:" .. expected[n], line)
    end
    assert.equal(#expected, n, out)
    assert.is_nil(system.stat(dir .. "/ran"))
  end)

  it("names the line of a syntax error", function()
    assert.matches("^plugins/strategies/tier.lua:5: [^\n]*near[^\n]*\n$", findings(strategy({ bucket = "return (" })))
  end)

  it("names the field that breaks the contract", function()
    local out = findings(strategy({ head = "plcae = 1," }))
    assert.matches("^plugins/strategies/tier.lua:3: [^\n]*plcae[^\n]*place[^\n]*\n$", out)
  end)

  it("tries a strategy: unknown shards, answers that change, failures on some keys", function()
    assert.matches("^plugins/strategies/tier.lua: self%-test: [^\n]*shard9[^\n]*\n$",
      findings(strategy({ place = "return 'shard9'" })))
    assert.matches("^plugins/strategies/tier.lua: self%-test: [^\n]+\n$",
      findings(strategy({ bucket = "sum = sum + 1 return sum % 7" })))
    assert.matches("^plugins/strategies/tier.lua: self%-test: [^\n]*key 0[^\n]*\n$",
      findings(strategy({ bucket = "return key == 0 and {} or 1" })))
  end)

  it("ends with what never ends", function()
    assert.matches("^plugins/strategies/tier.lua: self%-test: [^\n]*longer than[^\n]*\n$",
      findings(strategy({ bucket = "while true do end" })))
    assert.matches("^plugins/strategies/tier.lua: [^\n]*longer than[^\n]*\n$",
      findings(strategy({ head = "options = (function() while true do end end)()," })))
  end)

  it("tries it with the shards, options and key type that are named", function()
    local path = strategy({
      new = "return { at = assert(options.at, 'at is missing'), n = #shards }",
      bucket = "return #key % 64",
      place = "return shards[state.n - state.at].shard_id",
    })
    assert.matches("at is missing", findings(path, "--key-type", "text"), 1, true)
    local result = check(path, "--shards", "5", "--key-type", "text", "--options", "at = 2")
    assert.equal(0, result.code, result.stdout)
    assert.matches("tried with 5 shards and text keys", result.stdout, 1, true)
    assert.equal(1, check(path, "--key-type", "int8", "--options", "at = 2").code)
  end)

  it("tries it as a cluster file uses it", function()
    local path = strategy({
      new = "local all = ('x'):rep(80 * 2^20) return assert(options.of, 'of is missing')",
      bucket = "return #key % 64",
      place = "return state[bucket % 2 + 1]",
    })
    assert.matches("memory", findings(path, "--key-type", "text", "--options", "of = { 'shard1', 'shard2' }"), 1, true)
    local file = cli.write(dir, "cluster.lua", [[return {
      plugin_memory = 500 * 2^20,
      shards = { { shard_id = "north", host = "h", database = "d" }, { shard_id = "south", host = "h", database = "d" } },
      strategy = { "tier", shard_key = "tenant", of = { "north", "south" } },
      tables = { tenants = { shard_key = "tenant", type = "text" }, sites = { shard_key = "site", type = "uuid" } },
      plugins = "plugins",
    }]])
    local result = check(path, "-c", file)
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.matches("tried with 2 shards and text and uuid keys", result.stdout, 1, true)
  end)

  it("tries keys of several columns", function()
    local path = strategy({ bucket = "return lunashard.hash(key[1], 64)" })
    local file = cli.write(dir, "cluster.lua", [[return {
      shards = { { shard_id = "north", host = "h", database = "d" } },
      strategy = { "tier" },
      tables = { visits = { shard_key = { "tenant", "day" }, type = { "int8", "date" } } },
    }]])
    local result = check(path, "-c", file)
    assert.equal(0, result.code, result.stdout .. result.stderr)
    assert.matches("tried with 1 shard and int8, date keys", result.stdout, 1, true)
  end)

  it("gives JSON that can be parsed, on success and on failure", function()
    local path = strategy({})
    local result = check(path, "--json")
    assert.equal(0, result.code, result.stdout)
    assert.same({ ok = true, files = { { ok = true, file = path, kind = "strategy", name = "tier",
      tried_with = { shards = 3, key_types = { "int8" } }, findings = {} } } }, cjson.decode(result.stdout))
    assert.truthy(result.stdout:find('"findings":[]', 1, true), result.stdout)
    strategy({ bucket = "return os.clock()" })
    local report = assert(cjson.decode(findings(path, "--json")))
    assert.is_false(report.ok)
    assert.equal(5, report.files[1].findings[1].line)
  end)

  it("says why a file cannot be read", function()
    assert.matches("^none%.lua: No such file or directory\n$", findings("none.lua"))
    assert(system.mkdir(dir .. "/folder.lua", 493))
    assert.matches("^folder%.lua: is a directory, not a file\n$", findings("folder.lua"))
    cli.write(dir, "compiled.lua", "\27LJ\2")
    assert.matches("^compiled%.lua: is compiled code", findings("compiled.lua"))
    cli.write(dir, "latin.lua", "-- a\nlocal s = 'caf\233'\n")
    assert.matches("^latin%.lua:2: the byte 0xe9 is not UTF%-8\n$", findings("latin.lua"))
  end)

  it("names the required file that is wrong", function()
    local path = strategy({ head = 'options = require("lib.names"),' })
    assert(system.mkdir(dir .. "/plugins/lib", 493))
    cli.write(dir, "plugins/lib/names.lua", "return {\n'a'\n'b' }")
    assert.matches("^plugins/strategies/tier%.lua:[^\n]*plugins/lib/names%.lua:3: [^\n]*\n$", findings(path))
    cli.write(dir, "plugins/lib/names.lua", "return { 'a' }")
    assert.equal(0, check(path).code)
  end)

  it("wants at least one file, and options that make sense", function()
    assert.equal(2, check().code)
    assert.equal(2, check("x.lua", "--shards", "0").code)
    assert.equal(2, check("x.lua", "--options", "a b").code)
    assert.equal(2, check("x.lua", "--key-type", "int9").code)
  end)
end)
