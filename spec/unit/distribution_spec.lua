local cli = require("spec.support.cli")
local distribution = require("lunashard.distribution")
local keyfile = require("lunashard.distribution.keyfile")
local samples = require("lunashard.plugin.samples")
local strategy = require("lunashard.strategy")
local values = require("lunashard.values")

local function shards(n, weights)
  local list = {}
  for i = 1, n do
    list[i] = { shard_id = "s" .. i, weight = weights and weights[i] }
  end
  return list
end

local function tally(spec, n, opts, weights)
  return distribution.new(strategy.bind(spec, shards(n, weights), { key_type = "int8" }), opts)
end

describe("a tally of keys", function()
  it("counts what the strategy says, shard by shard", function()
    local seed = os.time()
    local keys = samples.keys("int8", 3000, seed)
    local counted = tally("hash", 4)
    for _, key in ipairs(keys) do
      counted:add(key)
    end
    local report = counted:report()
    local expected = counted.bound:get_distribution(keys)
    local sum = 0
    for i, shard in ipairs(report.shards) do
      assert.equal("s" .. i, shard.shard_id)
      assert.equal(expected[shard.shard_id], shard.keys, "seed " .. seed)
      sum = sum + shard.share
    end
    assert.is_true(math.abs(sum - 1) < 1e-9)
    assert.equal(3000, report.keys)
    assert.equal(16384, report.buckets)
    assert.is_true(report.used_buckets <= 3000 and report.used_buckets > 2300)
    assert.is_true(report.balance.least <= 1 and report.balance.most >= 1)
  end)

  it("compares the shares with the weights", function()
    local counted = tally("rendezvous", 2, nil, { 3, 1 })
    for key = 1, 20000 do
      counted:add(key)
    end
    local report = counted:report()
    assert.same({ 0.75, 0.25 }, { report.shards[1].expected_share, report.shards[2].expected_share })
    assert.is_true(report.balance.deviation < 0.1, tostring(report.balance.deviation))
  end)

  it("finds the hottest bucket, also among more buckets than it can keep", function()
    local counted = tally({ "directory", entries = {}, default_shard = "s2" }, 2, { top = 1 })
    for key = 1, 200000 do
      counted:add(key)
      if key % 50 == 0 then
        counted:add(4711)
      end
    end
    local report = counted:report()
    local hot = report.hot_buckets[1]
    assert.equal(4711, hot.bucket)
    assert.equal("s2", hot.shard_id)
    assert.is_false(report.buckets_exact)
    assert.is_true(hot.keys >= 4000 and hot.keys <= 4100, tostring(hot.keys))
    assert.is_true(counted.n_buckets <= 65536)
  end)

  it("tells keys without a value and keys without a shard apart from the others", function()
    local counted = tally({ "range", ranges = { s1 = { 1, 10 } }, allow_gaps = true }, 1)
    for i, key in ipairs({ 1, values.null, 11, "x", 0 / 0, 5 }) do
      counted:add(key, "line " .. i)
    end
    counted:add(nil)
    local report = counted:report()
    assert.same({ 2, 2, 3 }, { report.keys, report.null_keys, report.failed_keys })
    assert.equal("line 3", report.failures[1].where)
    assert.equal("NO_SHARD", report.failures[1].code)
    assert.matches("3 keys are without a shard; the first: line 3: ", distribution.failure(report).message)
  end)

  it("says which rows are on another shard than their key's", function()
    local counted = tally("hash", 3)
    for key = 1, 100 do
      counted:add(key, nil, counted.bound:route(key))
    end
    counted:add(42, nil, "s2") -- it belongs to s1
    local report = counted:report()
    assert.equal(1, report.misplaced)
    assert.same({ { key = "42", at = "s2", belongs_to = "s1" } }, report.misplaced_examples)
    assert.equal(1, report.shards[2].misplaced)
    assert.equal(0, report.shards[1].misplaced)
  end)

  it("says which keys another version had elsewhere, and from where to where they went", function()
    local three, four = strategy.bind("consistent_hash", shards(3)), strategy.bind("consistent_hash", shards(4))
    local counted = distribution.new(four, { against = three })
    for key = 1, 10000 do
      counted:add(key)
    end
    local change = counted:report().against
    assert.equal(10000, change.compared)
    assert.is_true(math.abs(change.share - 0.25) < 0.06, tostring(change.share))
    local sum = 0
    for way, n in pairs(change.by) do
      assert.matches("^s[123]%->s4$", way)
      sum = sum + n
    end
    assert.equal(change.moved, sum)
    assert.equal(3, #change.examples)
  end)

  it("knows which strategies have to ask a shard", function()
    local needs = { "directory", table = "d", on = "s1", key_column = "k", shard_column = "s" }
    assert.is_true(distribution.needs_servers(strategy.bind(needs, shards(2))))
    assert.is_true(distribution.needs_servers(strategy.bind({ "first_of", needs, "hash" }, shards(2))))
    assert.is_false(distribution.needs_servers(strategy.bind({ "first_of", { "pins", [7] = "s1" }, "hash" }, shards(2))))
  end)
end)

describe("a file of keys", function()
  local dir

  setup(function()
    dir = cli.directory()
  end)

  teardown(function()
    cli.remove_all()
  end)

  local function read(content, columns)
    local reader = assert(keyfile.open(cli.write(dir, "keys", content), columns))
    local list, places = {}, {}
    local key, err = reader:read()
    while key ~= nil do
      list[#list + 1] = key == values.null and "NULL" or key
      places[#places + 1] = reader.line
      key, err = reader:read()
    end
    reader:close()
    return list, err, places
  end

  it("has a key on each line, whatever ends the lines", function()
    assert.same({ "1", "two", " 3" }, (read("1\ntwo\r\n 3")))
    assert.same({ "1", "2" }, (read("1\n2\n")))
    assert.same({}, (read("")))
  end)

  it("has NULL for an empty line and for \\N", function()
    local list, _, places = read("1\n\n\\N\n2\n")
    assert.same({ "1", "NULL", "NULL", "2" }, list)
    assert.same({ 1, 2, 3, 4 }, places)
  end)

  it("is read piece by piece, so that lines are whole wherever a piece ends", function()
    local lines = {}
    for i = 1, 30000 do
      lines[i] = ("%d"):format(i * 1234567 % 99991):rep(i % 3 + 1)
    end
    assert.same(lines, (read(table.concat(lines, "\n"))))
  end)

  it("may be CSV with named columns, quotes, line ends and commas inside", function()
    local content = '\239\187\191id,"the ""key""",x\r\n1,"a,b",2\r\n2,"c ""d""\ne",3\n3,,4\n4,"",5\n5\n'
    local list, err, places = read(content, { 'the "key"' })
    assert.same({ "a,b", 'c "d"\ne', "NULL", "", "NULL" }, list)
    assert.is_nil(err)
    assert.equal(6, places[4])
    assert.same({ "2", "3", "4", "5", "NULL" }, (read(content, { "x" })))
  end)

  it("may be CSV without names, and with several key columns", function()
    local list = read("1,a\n2,\n", { 1, 2 })
    assert.same({ "1", "a" }, list[1])
    assert.equal("2", list[2][1])
    assert.equal(values.null, list[2][2])
    assert.same({ "a", "NULL" }, (read("1,a\n2,\n", { 2 })))
  end)

  it("gives back what was written as CSV, for fields drawn by chance", function()
    local seed = os.time()
    local random = samples.random(seed)
    local pieces = { "a", "7", '"', ",", "\n", "\r\n", " ", "\\N", "é", "\\", "'" }
    for _ = 1, 200 do
      local width = random(3) + 1
      local wanted, lines = {}, {}
      local column = random(width) + 1
      for row = 1, random(20) + 1 do
        local fields = {}
        for i = 1, width do
          local text = {}
          for j = 1, random(5) do
            text[j] = pieces[random(#pieces) + 1]
          end
          text = table.concat(text)
          local is_null = text == "" and random(2) == 0
          local quoted = not is_null and (text == "" or text == "\\N" or text:find('[",\r\n]') or random(3) == 0)
          fields[i] = quoted and '"' .. text:gsub('"', '""') .. '"' or text
          if i == column then
            wanted[row] = is_null and "NULL" or text
          end
        end
        lines[row] = table.concat(fields, ",")
      end
      local ending = random(2) == 0 and "\n" or ""
      local content = table.concat(lines, random(2) == 0 and "\r\n" or "\n") .. ending
      if ending == "" and lines[#lines] == "" then -- a last line without anything in it is no record
        wanted[#wanted] = nil
      end
      local list, err = read(content, { column })
      assert.is_nil(err)
      assert.same(wanted, list, ("seed %d: %q"):format(seed, content))
    end
  end)

  it("that is none is refused with its name and line", function()
    for _, case in ipairs({
      { '1\n"2\n3', { 1 }, "keys:2: a quoted field has no end" },
      { '"1"x,2\n', { 1 }, "keys:1: there is more behind the end of a quoted field" },
      { ("x"):rep(2 * 1024 * 1024), nil, "keys:1: a line of more than 1 MiB" },
    }) do
      local _, err = read(case[1], case[2])
      assert.equal("INVALID", err.code)
      assert.is_truthy(err.message:find(case[3], 1, true), err.message)
    end
    local _, err = keyfile.open(cli.write(dir, "keys", "id,name\n"), { "nmae" })
    assert.matches('there is no column "nmae"; did you mean "name"?', err.message)
    _, err = keyfile.open(cli.write(dir, "keys", ""), { "id" })
    assert.matches("it is empty, but its first line should name the columns", err.message)
    _, err = keyfile.open(dir .. "/nothing")
    assert.matches("nothing: No such file", err.message)
    local reader = assert(keyfile.open(dir))
    _, err = reader:read()
    reader:close()
    assert.matches("Is a directory", err.message)
  end)
end)
