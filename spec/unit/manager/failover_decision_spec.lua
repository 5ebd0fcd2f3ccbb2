local decision = require("lunashard.manager.failover.decision")

local LIMIT = 3

-- Endpoints as probes see them: `{ "a", "primary", 1 }` accepts writes on timeline 1, `{ "b", "standby", 1 }` does not,
-- `{ "c", "gone", 2 }` has missed two probes.
local function see(...)
  local seen = {}
  for i, given in ipairs({ ... }) do
    local name, what, number = given[1], given[2], given[3]
    local one = { name = name, alive = what ~= "gone", misses = 0 }
    if what == "gone" then
      one.misses = number or LIMIT
    else
      one.in_recovery, one.timeline = what == "standby", number or 1
      one.system_identifier = given.id or "7000"
      one.started = given.started or name
    end
    seen[i] = one
  end
  return seen
end

-- A shard whose primary `a` was seen with its standbys `b` and `c`.
local function settled()
  return decision.make(decision.new("a"), see({ "a", "primary" }, { "b", "standby" }, { "c", "standby" }), LIMIT)
end

local function kinds(known)
  local found = {}
  for name, fence in pairs(known.fenced) do
    found[name] = fence.kind
  end
  return found
end

-- Several rounds in a row.
local function after(known, ...)
  for _, seen in ipairs({ ... }) do
    known = decision.make(known, seen, LIMIT)
  end
  return known
end

describe("who is primary", function()
  it("is the configured primary when it accepts writes, and its standbys are replicas", function()
    local known = settled()
    assert.equal("a", known.primary)
    assert.is_nil(known.refusal)
    assert.same({}, known.fenced)
    assert.equal(1, known.timeline)
  end)

  it("is not changed by a primary that only misses probes, however many", function()
    local known = settled()
    for misses = 1, 20 do
      known = after(known, see({ "a", "gone", misses }, { "b", "standby" }, { "c", "standby" }))
      assert.equal("a", known.primary)
      assert.same({}, known.fenced)
    end
    known = after(known, see({ "a", "primary" }, { "b", "standby" }, { "c", "standby" }))
    assert.equal("a", known.primary)
    assert.is_nil(known.refusal)
  end)

  it("becomes a standby that was promoted, at first sight, and the old one is fenced before it is back", function()
    local known = after(settled(), see({ "a", "gone", 1 }, { "b", "primary", 2 }, { "c", "standby", 1 }))
    assert.equal("b", known.primary)
    assert.is_nil(known.refusal)
    assert.same({ a = "former" }, kinds(known))
  end)

  it("stays with the promoted one when the old one comes back to accept writes", function()
    local known = after(settled(), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 1 }),
      see({ "a", "primary", 1 }, { "b", "primary", 2 }, { "c", "standby", 2 }))
    assert.equal("b", known.primary)
    assert.is_nil(known.refusal)
    assert.same({ a = "old_timeline" }, kinds(known))
    assert.is_truthy(known.fenced.a.text:find("timeline 1", 1, true))
  end)

  it("is nobody on an old timeline, also when the promoted one is gone again", function()
    local known = after(settled(), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 1 }),
      see({ "a", "primary", 1 }, { "b", "gone", 1 }, { "c", "standby", 1 }),
      see({ "a", "primary", 1 }, { "b", "gone", 9 }, { "c", "standby", 1 }))
    assert.equal("b", known.primary)
    assert.same({ a = "old_timeline" }, kinds(known))
  end)

  it("is nobody when a standby follows a later timeline than the one that accepts writes", function()
    local known = after(decision.new("a"), see({ "a", "primary", 1 }, { "b", "gone" }, { "c", "standby", 2 }))
    assert.equal("a", known.primary)
    assert.same({ a = "old_timeline" }, kinds(known))
    assert.is_truthy(known.refusal:find("a is fenced", 1, true), known.refusal)
  end)

  it("is found at the start when it is not the configured one", function()
    local known = after(decision.new("a"), see({ "a", "standby", 2 }, { "b", "primary", 2 }, { "c", "standby", 2 }))
    assert.equal("b", known.primary)
    assert.same({}, known.fenced)
    known = after(decision.new("a"), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 2 }))
    assert.equal("b", known.primary)
  end)

  it("is nobody while the primary was demoted and none was promoted, and writes are refused meanwhile", function()
    local known = after(settled(), see({ "a", "standby", 1 }, { "b", "standby" }, { "c", "standby" }))
    assert.equal("a", known.primary)
    assert.is_truthy(known.refusal:find("a is a standby", 1, true), known.refusal)
    known = after(known, see({ "a", "standby", 1 }, { "b", "standby" }, { "c", "primary", 2 }))
    assert.equal("c", known.primary)
    assert.is_nil(known.refusal)
  end)

  it("is still nobody when the one that was demoted falls silent, until it accepts writes again", function()
    local demoted = after(settled(), see({ "a", "standby" }, { "b", "standby" }, { "c", "standby" }))
    local silent = after(demoted, see({ "a", "gone" }, { "b", "standby" }, { "c", "standby" }))
    assert.equal(demoted.refusal, silent.refusal)
    assert.is_nil(after(silent, see({ "a", "primary" }, { "b", "standby" }, { "c", "standby" })).refusal)
    assert.is_nil(after(settled(), see({ "a", "gone" }, { "b", "standby" }, { "c", "standby" })).refusal)
  end)

  it("may go there and back again, for every promotion has its timeline", function()
    local known = after(settled(), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 2 }),
      see({ "a", "standby", 2 }, { "b", "gone" }, { "c", "standby", 2 }),
      see({ "a", "primary", 3 }, { "b", "gone" }, { "c", "standby", 2 }))
    assert.equal("a", known.primary)
    assert.same({ b = "former" }, kinds(known))
  end)
end)

describe("a fenced endpoint", function()
  local function promoted()
    return after(settled(), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 1 }))
  end

  it("is a replica again as a standby on the present timeline", function()
    local known = after(promoted(), see({ "a", "standby", 2 }, { "b", "primary", 2 }, { "c", "standby", 2 }))
    assert.same({}, known.fenced)
  end)

  it("stays fenced as a standby that did not follow, and while it does not answer", function()
    local known = after(promoted(), see({ "a", "standby", 1 }, { "b", "primary", 2 }, { "c", "standby", 2 }),
      see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 2 }))
    assert.is_truthy(known.fenced.a)
  end)

  it("is no standby that never was primary, whose timeline is only known late", function()
    assert.is_nil(promoted().fenced.c)
  end)

  it("is never used when it is another database cluster, whatever it says of itself", function()
    local known = after(settled(), see({ "a", "primary" }, { "b", "standby", 1, id = "9" }, { "c", "standby" }))
    assert.same({ b = "foreign" }, kinds(known))
    assert.is_truthy(known.fenced.b.text:find("7000", 1, true))
    known = after(known, see({ "a", "gone" }, { "b", "primary", 9, id = "9" }, { "c", "standby" }))
    assert.equal("a", known.primary)
    assert.equal(1, known.timeline)
    known = after(known, see({ "a", "gone" }, { "b", "gone" }, { "c", "standby" }))
    assert.same({ b = "foreign" }, kinds(known))
    known = after(known, see({ "a", "primary" }, { "b", "standby", 1 }, { "c", "standby" }))
    assert.same({}, known.fenced)
  end)

  it("is not the configured primary because a foreign replica answered before it", function()
    local known = after(decision.new("a"), see({ "a", "gone", 1 }, { "b", "standby", 1, id = "9" }),
      see({ "a", "primary", 1 }, { "b", "standby", 1, id = "9" }))
    assert.equal("a", known.primary)
    assert.same({ b = "foreign" }, kinds(known))
  end)

  it("is none of a shard that was made anew as a whole", function()
    local known = after(settled(), see({ "a", "gone" }, { "b", "primary", 2 }, { "c", "standby", 2 }),
      see({ "a", "primary", 1, id = "8" }, { "b", "standby", 1, id = "8" }, { "c", "gone" }))
    assert.is_truthy(known.fenced.a)
    known = after(known, see({ "a", "primary", 1, id = "8" }, { "b", "standby", 1, id = "8" },
      { "c", "standby", 1, id = "8" }))
    assert.is_true(known.made_anew)
    assert.equal("a", known.primary)
    assert.same({}, known.fenced)
    known = after(known, see({ "a", "primary", 1, id = "8" }, { "b", "standby", 1, id = "8" },
      { "c", "standby", 1, id = "8" }))
    assert.is_false(known.made_anew)
  end)
end)

describe("two endpoints that accept writes on one timeline", function()
  local function split()
    return after(settled(), see({ "a", "primary", 1 }, { "b", "primary", 1 }, { "c", "standby" }))
  end

  it("stop writes with an error that names both", function()
    local known = split()
    assert.is_truthy(known.refusal:find("a and b", 1, true), known.refusal)
    assert.equal("a", known.primary)
    assert.same({ b = "conflict" }, kinds(known))
  end)

  it("stop them also when neither was the primary before, and not others on a lower timeline", function()
    local known = after(settled(), see({ "a", "primary", 1 }, { "b", "primary", 2 }, { "c", "primary", 2 }))
    assert.is_truthy(known.refusal:find("b and c", 1, true), known.refusal)
    assert.same({ a = "old_timeline", b = "conflict", c = "conflict" }, kinds(known))
  end)

  it("stop them until one has been gone for long enough, not for one missed probe", function()
    local known = after(split(), see({ "a", "primary", 1 }, { "b", "gone", 1 }, { "c", "standby" }))
    assert.is_truthy(known.refusal)
    known = after(known, see({ "a", "primary", 1 }, { "b", "gone", LIMIT }, { "c", "standby" }))
    assert.is_nil(known.refusal)
    assert.equal("a", known.primary)
  end)

  it("stop them until one is a standby again", function()
    local known = after(split(), see({ "a", "primary", 1 }, { "b", "standby", 1 }, { "c", "standby" }))
    assert.is_nil(known.refusal)
    assert.same({}, known.fenced)
  end)

  it("stop them when the one that was there first is gone: the other was not promoted", function()
    local known = after(settled(), see({ "a", "gone" }, { "b", "primary", 1 }, { "c", "standby" }))
    assert.equal("a", known.primary)
    assert.is_truthy(known.refusal:find("b accepts writes on timeline 1", 1, true), known.refusal)
    known = after(known, see({ "a", "gone", 99 }, { "b", "primary", 1 }, { "c", "standby" }))
    assert.is_truthy(known.refusal)
    assert.equal("a", known.primary)
  end)

  it("are forgotten when one is promoted beyond the other", function()
    local known = after(split(), see({ "a", "gone", 1 }, { "b", "gone", 1 }, { "c", "primary", 2 }))
    assert.equal("c", known.primary)
    assert.is_nil(known.refusal)
    assert.same({ a = "former", b = "conflict" }, kinds(known))
  end)

  it("are one server when it is known by two names", function()
    local known = after(decision.new("vip"), see({ "vip", "primary", 1, started = "a" },
      { "a", "primary", 1, started = "a" }, { "b", "standby", 1 }))
    assert.equal("vip", known.primary)
    assert.is_nil(known.refusal)
    known = after(known, see({ "vip", "primary", 2, started = "b" }, { "a", "gone" }, { "b", "primary", 2, started = "b" }))
    assert.equal("vip", known.primary)
    assert.is_nil(known.refusal)
  end)
end)

describe("a veto", function()
  it("leaves everything as it was, as if the endpoint were not there", function()
    local known = decision.make(settled(), see({ "a", "primary", 1 }, { "b", "primary", 2 }, { "c", "standby" }), LIMIT,
      { b = true })
    assert.equal("a", known.primary)
    assert.equal(1, known.timeline)
    assert.is_nil(known.refusal)
    assert.same({ b = "vetoed" }, kinds(known))
    known = after(known, see({ "a", "primary", 1 }, { "b", "primary", 2 }, { "c", "standby" }))
    assert.equal("b", known.primary)
  end)
end)

describe("decisions on whatever may be seen", function()
  -- Of a random history these must hold in every round.
  it("never name a primary on a timeline below one that was seen, nor write to two", function()
    local seed = tonumber(os.getenv("LUNASHARD_SEED")) or os.time()
    math.randomseed(seed)
    for _ = 1, 300 do
      local known, highest = decision.new("a"), 0
      for _ = 1, 30 do
        local seen = {}
        for i, name in ipairs({ "a", "b", "c" }) do
          local what = ({ "primary", "standby", "gone" })[math.random(3)]
          seen[i] = { name, what, what == "gone" and math.random(5) or math.random(4) }
        end
        seen = see(unpack(seen))
        local before = known
        known = decision.make(known, seen, LIMIT)
        highest = known.made_anew and 0 or highest
        local leaders = 0
        for _, one in ipairs(seen) do
          highest = math.max(highest, one.alive and one.timeline or 0)
        end
        for _, one in ipairs(seen) do
          local leads = one.alive and one.in_recovery == false and one.timeline == highest
          leaders = leaders + (leads and 1 or 0)
          if one.name == known.primary and one.alive and not known.refusal then
            assert.is_true(leads, "seed " .. seed)
          elseif one.alive and one.in_recovery == false and one.name ~= known.primary then
            assert.is_truthy(known.fenced[one.name], "seed " .. seed)
          end
        end
        assert.is_true(leaders < 2 or known.refusal ~= nil, "seed " .. seed)
        if known.primary ~= before.primary then
          assert.equal(1, leaders, "seed " .. seed)
        end
      end
    end
  end)
end)
