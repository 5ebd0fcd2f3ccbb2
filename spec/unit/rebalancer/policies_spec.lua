local policy = require("lunashard.policy")
local proposal = require("lunashard.rebalancer.proposal")

-- What a shipped policy plans, checked as every plan is.
local planners = setmetatable({}, { __index = function(_, name)
  return function(state, options)
    local planner, err = policy.planner(name, options)
    if not planner then
      return nil, err
    end
    return proposal.of(state, planner)
  end
end })

local function cluster(shards, buckets, owner_of, rows_of)
  local state = { group = "int8", shards = {}, buckets = {} }
  for i, id in ipairs(shards) do
    state.shards[i] = { shard_id = id, weight = 1 }
  end
  for i = 1, buckets do
    local rows = rows_of and rows_of(i) or 10
    state.buckets[i] = { bucket = i - 1, owner = owner_of(i), rows = rows, bytes = rows * 100 }
  end
  return state
end

local function three(buckets, rows_of, shards)
  return cluster(shards or { "s1", "s2", "s3", "s4" }, buckets, function(i)
    return "s" .. i % 3 + 1
  end, rows_of)
end

-- source -> destination -> { buckets, rows }; each bucket at most once.
local function ways(assignments)
  local found, seen = {}, {}
  for _, one in ipairs(assignments) do
    local item = one.bucket
    assert(not seen[item.bucket], "a bucket moves twice")
    assert(item.owner ~= one.destination, "a bucket moves to where it is")
    seen[item.bucket] = true
    found[item.owner] = found[item.owner] or {}
    local way = found[item.owner][one.destination] or { 0, 0 }
    found[item.owner][one.destination] = { way[1] + 1, way[2] + item.rows }
  end
  return found
end

local function refused(value, err, text)
  assert.is_nil(value)
  assert.equal("INVALID", err.code)
  assert.truthy(err.message:find(text, 1, true), err.message)
end

describe("following the strategy", function()
  it("gives a new shard of hash an even share from each other, and moves nothing between these", function()
    for _, n in ipairs({ 16386, 12, 100 }) do
      local found = ways(assert(planners.follow(three(n))))
      local total = 0
      for _, source in ipairs({ "s1", "s2", "s3" }) do
        for destination, way in pairs(found[source] or {}) do
          assert.equal("s4", destination)
          assert.is_true(math.abs(way[1] - n / 12) <= 1, ("%d of %d"):format(way[1], n))
          total = total + way[1]
        end
      end
      assert.is_true(math.abs(total - n / 4) <= 1, ("%d of %d"):format(total, n))
    end
  end)

  it("takes that share of the rows too, however unlike the buckets are", function()
    math.randomseed(7)
    local state = three(16386, function(i)
      return i % 5 == 0 and 0 or math.floor(-20 * math.log(1 - math.random()))
    end)
    local rows, moved = 0, 0
    for _, item in ipairs(state.buckets) do
      rows = rows + item.rows
    end
    for _, one in ipairs(planners.follow(state)) do
      moved = moved + one.bucket.rows
    end
    assert.is_true(math.abs(moved / rows - 0.25) < 0.005, ("%g"):format(moved / rows))
  end)

  it("weighs shards that have weights", function()
    local state = three(4000)
    state.shards[4].weight = 2
    local moved = #planners.follow(state)
    assert.is_true(math.abs(moved - 4000 * 2 / 5) <= 1, tostring(moved))
  end)

  it("gives two new shards their share each", function()
    local counts = {}
    for _, one in ipairs(planners.follow(three(1500, nil, { "s1", "s2", "s3", "s4", "s5" }))) do
      counts[one.destination] = (counts[one.destination] or 0) + 1
    end
    assert.same({ s4 = 300, s5 = 300 }, counts)
  end)

  it("deals out what shards own that are no more, and moves nothing else", function()
    local found = ways(planners.follow(three(3000, nil, { "s1", "s2" })))
    assert.is_nil(found.s1)
    assert.is_nil(found.s2)
    assert.same({ 500, 500 }, { found.s3.s1[1], found.s3.s2[1] })
  end)

  it("does nothing when every shard has something", function()
    assert.same({}, planners.follow(three(300, nil, { "s1", "s2", "s3" })))
  end)

  it("asks a strategy that has places of its own", function()
    local state = three(10)
    state.place = function(bucket)
      return bucket == 3 and "s4" or state.buckets[bucket + 1].owner
    end
    assert.same({ { bucket = state.buckets[4], destination = "s4" } }, planners.follow(state))
    state.place = function(bucket)
      if bucket == 9 then
        return nil, { message = "there is no bucket 9" }
      end
      return "s1"
    end
    local value, err = planners.follow(state)
    refused(value, err, "no place for bucket 9: there is no bucket 9")
    state.place = function()
      return "s5"
    end
    value, err = planners.follow(state)
    refused(value, err, 'there is no shard s5 that could get buckets')
  end)
end)

describe("draining a shard", function()
  it("moves all that it has, and nothing else, to who has the least", function()
    local state = three(900, nil, { "s1", "s3" })
    local found = ways(planners.drain(state, { shard = "s2" }))
    assert.same({ "s2" }, { next(found), next(found, (next(found))) })
    assert.same({ 150, 150 }, { found.s2.s1[1], found.s2.s3[1] })
  end)

  it("goes by the strategy's places where it has them", function()
    local state = three(9, nil, { "s1", "s3" })
    state.place = function()
      return "s3"
    end
    assert.same({ s2 = { s3 = { 3, 30 } } }, ways(planners.drain(state, { shard = "s2" })))
  end)

  it("is refused when there is no other shard", function()
    local value, err = planners.drain(cluster({}, 3, function()
      return "s1"
    end), { shard = "s1" })
    refused(value, err, "s1 is the only shard")
  end)
end)

describe("evening out", function()
  local function spread(state, assignments, field)
    local held = {}
    for _, item in ipairs(state.buckets) do
      held[item.owner] = (held[item.owner] or 0) + item[field]
    end
    for _, one in ipairs(assignments) do
      local item = one.bucket
      held[item.owner] = held[item.owner] - item[field]
      held[one.destination] = (held[one.destination] or 0) + item[field]
    end
    return held
  end

  it("brings every shard within 2 % of its share by rows, bytes or buckets, from any state", function()
    math.randomseed(11)
    for round = 1, 20 do
      local state = cluster({ "s1", "s2", "s3", "s4" }, 2000, function()
        return "s" .. math.ceil(math.random() ^ 2 * 4)
      end, function()
        return math.random(0, 40)
      end)
      for _, by in ipairs({ "rows", "bytes" }) do
        local assignments = assert(planners.even(state, { by = by }))
        ways(assignments)
        local held, total = spread(state, assignments, by), 0
        for _, value in pairs(held) do
          total = total + value
        end
        for id, value in pairs(held) do
          assert.is_true(math.abs(value - total / 4) <= total / 4 * 0.021, ("round %d: %s has %d of %d"):format(round, id,
            value, total))
        end
      end
    end
  end)

  it("moves nothing when all is even already", function()
    assert.same({}, planners.even(three(300, nil, { "s1", "s2", "s3" }), {}))
  end)

  it("moves no more than what is over", function()
    local state = cluster({ "s1", "s2" }, 100, function(i)
      return i <= 60 and "s1" or "s2"
    end)
    assert.same({ s1 = { s2 = { 10, 100 } } }, ways(planners.even(state, { tolerance = 0 })))
  end)

  it("takes weights", function()
    local state = cluster({ "s1", "s2" }, 90, function()
      return "s1"
    end)
    state.shards[2].weight = 2
    assert.equal(60, #planners.even(state, { tolerance = 0, by = "buckets" }))
  end)

  it("does not throw one giant bucket to and fro", function()
    local state = cluster({ "s1", "s2" }, 3, function()
      return "s1"
    end, function(i)
      return i == 1 and 1000 or 10
    end)
    local found = ways(planners.even(state, {}))
    assert.is_true(found.s1.s2[2] <= 20 or found.s1.s2[2] >= 1000)
  end)

  it("refuses to go by what nobody knows", function()
    local value, err = planners.even(three(3), { by = "row" })
    refused(value, err, 'not row; did you mean "rows"?')
  end)
end)

describe("explicit plans", function()
  it("pin buckets to a shard", function()
    local state = three(6)
    assert.same({ { bucket = state.buckets[2], destination = "s4" } }, planners.pin(state, { buckets = { 1 }, shard = "s4" }))
    local value, err = planners.pin(state, { buckets = { 1 }, shard = "s44" })
    refused(value, err, 'there is no shard s44 that could get buckets; did you mean "s4"?')
  end)

  it("take a list, in which buckets may be texts", function()
    local state = three(6)
    local assignments = assert(planners.list(state, { moves = { { buckets = { "0", 5 }, to = "s4" },
      { bucket = 1, to = "s3" } } }))
    local found = {}
    for _, one in ipairs(assignments) do
      found[one.bucket.bucket] = one.destination
    end
    assert.same({ [0] = "s4", [5] = "s4" }, found) -- 1 is on s3
  end)

  it("are refused when they name what is not there, or a bucket twice", function()
    local state = three(6)
    local function try(moves)
      return planners.list(state, { moves = moves })
    end
    for text, moves in pairs({
      ["must be a list"] = {},
      ["moves[1]: names no bucket"] = { { to = "s4" } },
      ["the group int8 has no bucket 6"] = { { bucket = 6, to = "s4" } },
      ["moves[2]: bucket 1 is named twice"] = { { bucket = 1, to = "s4" }, { bucket = 1, to = "s1" } },
      ["there is no shard nil"] = { { bucket = 1 } },
    }) do
      local value, err = try(moves)
      refused(value, err, text)
    end
  end)
end)

-- Shards s1, s2 in eu and s3, s4 in us; all that is of eu on s1, of us on s3.
local function regions(strict)
  local state = cluster({ "s1", "s2", "s3", "s4" }, 40, function(i)
    return i <= 30 and "s1" or "s3"
  end)
  for i, shard in ipairs(state.shards) do
    shard.region = i <= 2 and "eu" or "us"
  end
  for i, item in ipairs(state.buckets) do
    item.region = i <= 30 and "eu" or "us"
  end
  state.residency = strict
  return state
end

describe("by region", function()
  it("evens out inside each region, and across none", function()
    assert.same({ s1 = { s2 = { 15, 150 } }, s3 = { s4 = { 5, 50 } } }, ways(planners.by_region(regions(), {})))
  end)

  it("brings home what is in the wrong region", function()
    local state = regions()
    state.buckets[1].owner = "s4"
    local found = ways(planners.by_region(state, {}))
    assert.equal("s2", (next(found.s4)))
    assert.is_nil(found.s3.s1 or found.s3.s2)
  end)

  it("is refused when a shard has no region", function()
    local state = regions()
    state.shards[2].region = nil
    local value, err = planners.by_region(state, {})
    refused(value, err, "by_region: shard s2 has no region")
  end)
end)

describe("residency", function()
  it("is kept by whatever evens out or drains", function()
    assert.same({ s1 = { s2 = { 15, 150 } }, s3 = { s4 = { 5, 50 } } }, ways(planners.even(regions(true), {})))
    local state = regions(true)
    table.remove(state.shards, 1)
    local found = ways(planners.drain(state, { shard = "s1" }))
    assert.same({ s1 = { s2 = { 30, 300 } } }, found)
    table.remove(state.shards, 1)
    local value, err = planners.drain(state, { shard = "s1" })
    refused(value, err, "(region eu), now on s1, may live on no other shard")
  end)

  it("holds against everybody, and only where the strategy is strict", function()
    local value, err = planners.pin(regions(true), { buckets = { 3 }, shard = "s4" })
    refused(value, err, "pin: moves[1]: rows of bucket 3 may not leave the region eu, and s4 is in us")
    value, err = planners.follow((function()
      local state = regions(true)
      state.place = function()
        return "s4"
      end
      return state
    end)())
    refused(value, err, "may not leave the region eu")
    assert.equal(1, #assert(planners.pin(regions(), { buckets = { 3 }, shard = "s4" })))
  end)
end)

describe("by load", function()
  it("goes by the load and not by the rows", function()
    local state = cluster({ "s1", "s2" }, 20, function(i)
      return i <= 10 and "s1" or "s2"
    end)
    for i, item in ipairs(state.buckets) do
      item.load = i <= 4 and 10 or 0
    end
    local found = ways(planners.by_load(state, {}))
    assert.same({ s1 = { s2 = { 2, 20 } } }, found)
    for _, item in ipairs(state.buckets) do
      item.load = 0
    end
    local value, err = planners.by_load(state, {})
    refused(value, err, "by_load: no load was measured")
  end)
end)

describe("cost, capacity and allowed", function()
  it("say what a bucket weighs, what a shard can take and what may live where", function()
    local state = cluster({ "s1", "s2", "s3" }, 60, function()
      return "s1"
    end)
    local counts = {}
    for _, one in ipairs(assert(planners.even(state, { tolerance = 0, cost = function()
      return 1
    end, capacity = function(shard)
      return shard.shard_id == "s2" and 4 or 1
    end, allowed = function(bucket, shard)
      return shard.shard_id ~= "s3" or bucket.bucket < 5
    end }))) do
      counts[one.destination] = (counts[one.destination] or 0) + 1
      assert.is_true(one.destination ~= "s3" or one.bucket.bucket < 5)
    end
    assert.is_true(counts.s2 == 40 and (counts.s3 or 0) <= 5)
  end)

  it("empty a shard that can take nothing, and are refused when they make no sense", function()
    local state = cluster({ "s1", "s2" }, 4, function()
      return "s1"
    end)
    local function capacity(shard)
      return shard.shard_id == "s1" and 0 or 1
    end
    assert.same({ s1 = { s2 = { 4, 40 } } }, ways(planners.even(state, { capacity = capacity })))
    local value, err = planners.even(state, { cost = function()
      return 0 / 0
    end })
    refused(value, err, "even: the cost of bucket 0: expected a number, 0 or more, got nan")
    value, err = planners.even(state, { allowed = function()
      return false
    end })
    refused(value, err, "may live on no other shard")
  end)
end)

describe("giant buckets", function()
  local giants = require("lunashard.rebalancer.giants")

  it("are left where they are by whatever evens out, and refused by name elsewhere", function()
    local state = cluster({ "s1", "s2" }, 4, function()
      return "s1"
    end, function(i)
      return i == 1 and 3e6 or 1000
    end)
    local function closed(seconds)
      return giants.limit({ max_cutover = seconds })
    end
    giants.mark(state, closed(2))
    local assignments = assert(planners.even(state, { by = "buckets" }))
    assert.equal(2, #assignments)
    for _, one in ipairs(assignments) do
      assert.not_equal(0, one.bucket.bucket)
    end
    assert.same({ state.buckets[1] }, state.left)
    local made = require("lunashard.rebalancer.plan").make(state, assert(planners.pin(state, { buckets = { 0, 1 },
      shard = "s2" })))
    assert.same({ state.buckets[1] }, made.giants)
    local err = giants.refusal(made.giants, closed(2))
    assert.matches("^bucket 0 on s1 has 3000000 rows %(%d+ MiB%): when it changes hands its statements would wait for about "
      .. "[%d.]+ s, and max_cutover is 2 s$", err.message)
    local advised = tonumber(err.hint:match("%-%-max%-cutover (%d+)"))
    giants.mark(state, closed(advised))
    assert.is_nil(state.buckets[1].is_giant)
  end)

  it("may be larger where SQL tells the bucket of a row, for it stays open then", function()
    local item = { bucket = 7, owner = "s1", rows = 200000, bytes = 20e6 }
    local state, limit = { buckets = { item } }, giants.limit({ in_sql = true, max_cutover = 2 })
    giants.mark(state, limit)
    assert.is_nil(item.is_giant)
    item.rows, item.bytes = 5e6, 5e8
    giants.mark(state, limit)
    assert.is_true(item.is_giant)
    local err = giants.refusal({ item }, limit)
    assert.matches("^bucket 7 on s1 has 5000000 rows .* would take about %d+%.%d s, and there are 25 s$", err.message)
    assert.matches("^close the bucket while it is copied %(%-%-offline%)", err.hint)
    giants.mark(state, giants.limit({ in_sql = true, strategy = "offline" }))
    assert.is_nil(item.is_giant)
  end)
end)

describe("the pace", function()
  local function asked(options, stats)
    stats.time, stats.lag_seconds, stats.p95_ms = { hour = stats.hour or 12 }, stats.lag_seconds or 0, stats.p95_ms or 0
    return (assert(policy.handler({ "pace", p95_ms = options.p95_ms, lag_seconds = options.lag_seconds,
      from = options.from, to = options.to, longest = options.longest }, "throttle")))(stats)
  end

  it("slows down while a limit is exceeded, and recovers", function()
    assert.equal(0, asked({ p95_ms = 20 }, { throttle = 0, p95_ms = 10 }))
    assert.equal(0.02, asked({ p95_ms = 20 }, { throttle = 0, p95_ms = 30 }))
    assert.equal(0.4, asked({ p95_ms = 20 }, { throttle = 0.2, p95_ms = 30 }))
    assert.equal(5, asked({ lag_seconds = 3 }, { throttle = 4, lag_seconds = 10 }))
    assert.equal(0.1, asked({ lag_seconds = 3 }, { throttle = 0.2, lag_seconds = 1 }))
  end)

  it("knows no limit in the time window, also over midnight", function()
    for hour, pause in pairs({ [21] = 0.04, [22] = 0, [23] = 0, [0] = 0, [5] = 0, [6] = 0.04 }) do
      assert.equal(pause, asked({ p95_ms = 20, from = 22, to = 6 }, { throttle = 0.02, p95_ms = 90, hour = hour }))
    end
  end)
end)

describe("a plan that makes no sense", function()
  local plugins = require("lunashard.plugin.budget")

  -- What a policy of a user's comes to whose `plan` is this.
  local function proposed(plan, state)
    return proposal.of(state or three(9), { name = "mine", options = {}, made = {}, entry = { source = "mine.lua",
      contract = plugins.wrap({ kind = "policy", name = "mine", plan = plan }) } })
  end

  it("is refused whole, naming what is wrong", function()
    for _, case in ipairs({
      { 5, "mine: expected a list of moves such as { { bucket = 17, to = \"shard2\" } }, got 5" },
      { { a = 1 }, "mine: expected a list of moves" },
      { { 7 }, "mine: moves[1]: expected a table such as" },
      { { { bucket = 0, to = "s4" }, { bucket = 1, to = "s44" } }, 'moves[2]: there is no shard s44 that could get buckets; did '
        .. 'you mean "s4"?' },
      { { { bucket = 0, to = {} } }, "moves[1]: there is no shard a table" },
      { { { bucket = 99, to = "s4" } }, "moves[1]: the group int8 has no bucket 99" },
      { { { bucket = 0, from = "s2", to = "s4" } }, "moves[1]: bucket 0 is not on s2 but on s1" },
      { { { bucket = 0, to = "s4" }, { buckets = { 1, 0 }, to = "s3" } }, "moves[2]: bucket 0 is named twice" },
      { { { bukket = 0, to = "s4" } }, 'moves[1]: no such field: bukket; did you mean "bucket"?' },
    }) do
      local value, err = proposed(function()
        return case[1]
      end, case[3] or (function()
        local state = three(9)
        for _, item in ipairs(state.buckets) do
          item.owner = "s1"
        end
        return state
      end)())
      refused(value, err, case[2])
    end
  end)

  it("is refused when it raises, says why there is none, or never ends; and what it does to the state is nothing to us",
    function()
      local value, err = proposed(function(state)
        return state.nothing.there
      end)
      assert.is_nil(value)
      assert.equal("PLUGIN_FAILED", err.code)
      assert.matches("^policy mine: plan: .*policies_spec.lua:%d+: attempt to index field 'nothing'", err.message)
      value, err = proposed(function()
        return nil, "not on a Sunday"
      end)
      refused(value, err, "mine: not on a Sunday")
      value, err = proposed(function()
        while true do end -- luacheck: ignore
      end)
      assert.is_nil(value)
      assert.matches("^policy mine: plan: ran longer than 500 ms and was stopped at ", err.message)
      local state = three(9)
      value, err = proposed(function(seen)
        seen.buckets[1].owner, seen.shards[1].shard_id, state.residency = "s4", "s9", false
        return { { bucket = 0, from = "s4", to = "s9" } }
      end, state)
      refused(value, err, "there is no shard s9")
      assert.equal("s2", state.buckets[1].owner)
    end)

  it("may use helpers that do not do what is not allowed", function()
    local state = three(9)
    local assignments = assert(proposed(function(seen)
      assert(#seen.owned("s1") == 3 and seen.shard("s4").weight == 1)
      return seen.deal(seen.owned("s1"))
    end, state))
    assert.same({ s1 = { s4 = { 3, 30 } } }, ways(assignments))
    assert.equal(3, #assert(proposed(function(seen)
      return seen.even({ cost = function(bucket)
        return bucket.rows
      end })
    end, three(12))))
  end)
end)
