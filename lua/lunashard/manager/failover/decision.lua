--- Who is the primary of a shard: decided from what its endpoints were last seen to be. No I/O.
--
-- The timeline orders primaries. Every promotion begins a new one, so of two nodes that accept writes the one on the
-- higher timeline came later, and the other was left behind. What is known only grows: a timeline that was seen, also
-- by a standby that follows it, makes every primary on a lower one an old one for good, whoever answers at the moment.
-- That is why roles cannot flap. Silence alone changes nothing: a primary that misses probes stays the primary until
-- somebody else really accepts writes.
--
-- Nothing distinguishes two primaries on one timeline, so neither gets writes (`conflict`) until one of them is seen
-- to be something else, or has been gone for `limit` probes while the one that we had been writing to is there.
--
-- A former primary may hold what nobody else has. It is used again, for reads, when it is a standby on the present
-- timeline: then it was rewound or made anew. Standbys report their timeline late, as of their last restart point,
-- so of one that never was primary nothing is concluded from a low one.
-- @module lunashard.manager.failover.decision

local decision = {}

-- What one endpoint was seen to be: `name`, `alive` (its last probe was answered), `misses` (probes in a row that were
-- not), and, from its last answer, `in_recovery`, `timeline`, `system_identifier`, `started` (of the server; two names
-- of one server have the same).

--- What is known before anything was seen.
-- @string primary name of the configured primary
-- @treturn table `primary`, `fenced` (name -> `{ kind, text }`), and later `timeline`, `owner` (who was accepted
--   as primary of it), `system_identifier`, `conflict` (set of names), `refusal`
function decision.new(primary)
  return { configured = primary, primary = primary, fenced = {} }
end

local function find(seen, name)
  for _, one in ipairs(seen) do
    if one.name == name then
      return one
    end
  end
end

local function names(set, seen)
  local list = {}
  for _, one in ipairs(seen) do
    if set[one.name] then
      list[#list + 1] = one.name
    end
  end
  return table.concat(list, " and ")
end

local function all(seen, holds)
  for _, one in ipairs(seen) do
    if not holds(one) then
      return false
    end
  end
  return seen[1] ~= nil
end

-- ---- which database cluster this is ------------------------------------------

-- The configured primary says it; while it was never seen, the first that answers is believed for the moment.
local function identify(known, seen)
  if known.system_identifier then
    return known.system_identifier, true
  end
  local configured = find(seen, known.configured)
  if configured and configured.alive and configured.system_identifier then
    return configured.system_identifier, true
  end
  for _, one in ipairs(seen) do
    if one.alive and one.system_identifier then
      return one.system_identifier, false
    end
  end
end

-- Every endpoint is there and says the same other thing than before: it was made anew (pg_upgrade, a restored backup).
local function is_made_anew(known, seen)
  local first = seen[1]
  local function is_like_first(one)
    return one.alive and one.system_identifier ~= nil and one.system_identifier == first.system_identifier
  end
  if not known.system_identifier or not all(seen, is_like_first) then
    return false
  end
  if first.system_identifier ~= known.system_identifier then
    return true
  end
  return all(seen, function(one)
    return one.timeline ~= nil and one.timeline < (known.timeline or 0)
  end)
end

-- ---- the round -----------------------------------------------------------------

local function new_round(known, seen, limit, vetoed)
  local anew = is_made_anew(known, seen)
  if anew then
    local primary = known.primary
    known = decision.new(known.configured)
    known.primary = primary
  end
  local id, is_certain = identify(known, seen)
  local round = {
    known = known,
    seen = seen,
    limit = limit,
    vetoed = vetoed or {},
    made_anew = anew,
    system_identifier = id,
    id_is_certain = is_certain,
    fenced = {},
    top = known.timeline or 0,
  }
  for _, one in ipairs(seen) do
    local is_foreign = one.alive and one.system_identifier ~= nil and one.system_identifier ~= id
    one.is_ours = one.alive and not is_foreign and not round.vetoed[one.name]
    if is_foreign then
      round.fenced[one.name] = {
        kind = "foreign",
        text = ("its system identifier is %s, that of the shard %s: it is no copy of this shard"):format(
          one.system_identifier, id),
      }
    elseif round.vetoed[one.name] then
      round.fenced[one.name] = { kind = "vetoed", text = "choose_primary does not want it to be the primary" }
    elseif one.alive and one.timeline and one.timeline > round.top then
      round.top = one.timeline
    end
  end
  -- What was known of the timeline's primary holds for that timeline.
  if round.top == known.timeline then
    round.owner, round.conflict = known.owner, known.conflict
  end
  return round
end

-- Those that accept writes on the highest timeline, one for each server; those on lower ones are fenced.
local function find_leaders(round)
  local leaders, by_start = {}, {}
  local function consider(one)
    if not one.is_ours or one.in_recovery ~= false then
      return
    elseif (one.timeline or 0) < round.top then
      round.fenced[one.name] = {
        kind = "old_timeline",
        text = ("it accepts writes on timeline %d, but the shard is on timeline %d: an old primary, which needs "
          .. "pg_rewind or a new base backup"):format(one.timeline or 0, round.top),
      }
    elseif not one.started or not by_start[one.started] then
      leaders[#leaders + 1] = one
      by_start[one.started or one] = one
    end
  end
  local primary = find(round.seen, round.known.primary)
  if primary then
    consider(primary)
  end
  for _, one in ipairs(round.seen) do
    if one ~= primary then
      consider(one)
    end
  end
  return leaders
end

-- Has this member of a conflict stopped being a primary that could be written to?
local function is_settled(round, name)
  local one = find(round.seen, name)
  if not one then
    return true
  elseif one.alive then
    return not one.is_ours or one.in_recovery == true or (one.timeline or 0) < round.top
  end
  return one.misses >= round.limit
end

local function conflict_text(round)
  return ("%s accept writes on the same timeline (%d): writes are refused until only one of them does"):format(
    names(round.conflict, round.seen), round.top)
end

-- The one node that accepts writes may not be the one that we know to be the primary of this timeline:
-- nobody is promoted without a new timeline.
local function is_intruder(round, leader)
  if not round.owner or round.owner == leader.name then
    return false
  end
  local owner = find(round.seen, round.owner)
  return owner ~= nil and not owner.alive
end

-- Who is to be the primary, or nil and why writes are refused (nil, nil: nothing is known against the present one).
local function choose(round, leaders)
  if #leaders >= 2 then
    round.conflict = round.conflict or {}
    for _, one in ipairs(leaders) do
      round.conflict[one.name] = true
    end
    return nil, conflict_text(round)
  end
  local leader = leaders[1]
  for name in pairs(round.conflict or {}) do
    if not (leader and leader.name == name) and not is_settled(round, name) then
      round.conflict[leader and leader.name or name] = true
      return nil, conflict_text(round)
    end
  end
  if leader and is_intruder(round, leader) then
    round.conflict = { [leader.name] = true, [round.owner] = true }
    return nil, ("%s accepts writes on timeline %d, whose primary is %s, which does not answer: nobody promoted it, "
      .. "so writes are refused"):format(leader.name, round.top, round.owner)
  elseif leader then
    round.conflict = nil
    return leader
  end
  return nil
end

-- Why there is nobody to write to, as far as the present primary has said.
local function absence(round)
  local primary = find(round.seen, round.known.primary)
  if not primary then
    return nil
  elseif not primary.alive then
    return round.known.refusal -- silence takes nothing back
  elseif round.fenced[primary.name] then
    return ("there is no primary: %s is fenced: %s"):format(primary.name, round.fenced[primary.name].text)
  elseif primary.in_recovery then
    return ("there is no primary: %s is a standby, and no other endpoint accepts writes"):format(primary.name)
  end
end

-- Fences of before that this round said nothing of, and those of former primaries.
local function keep_fences(round, primary)
  local before = round.known.fenced
  local function former(name)
    return round.known.primary == name and primary ~= name and round.known.owner ~= nil
  end
  for _, one in ipairs(round.seen) do
    local name = one.name
    local fence = before[name]
    local follows = one.is_ours and one.in_recovery and (one.timeline or 0) >= round.top
    if name == primary or round.fenced[name] then -- luacheck: ignore 542
    elseif round.conflict and round.conflict[name] then
      round.fenced[name] = { kind = "conflict", text = "two endpoints accept writes on one timeline" }
    elseif fence and not follows and not (one.is_ours and fence.kind == "foreign")
      and not (one.is_ours and fence.kind == "vetoed") then
      round.fenced[name] = fence
    elseif former(name) and not follows then
      round.fenced[name] = {
        kind = "former",
        text = ("it was the primary before %s; it is used again once it is a standby on timeline %d"):format(primary,
          round.top),
      }
    end
  end
end

--- Decide.
-- @tparam table known from `new`, or the last decision; not changed
-- @tparam {table,...} seen what each endpoint was seen to be, in configured order
-- @number limit so many probes missed in a row mean gone
-- @tparam ?table vetoed names of endpoints that must not become primary
-- @treturn table what is known now: `primary` (name), `fenced` (name -> `{ kind, text }`; kinds: `old_timeline`, `conflict`,
--   `foreign`, `former`, `vetoed`), `refusal` (why writes are refused, or nil), `timeline`, `made_anew`
function decision.make(known, seen, limit, vetoed)
  local round = new_round(known, seen, limit, vetoed)
  known = round.known
  local conflict = {}
  for name in pairs(round.conflict or {}) do
    conflict[name] = true
  end
  round.conflict = round.conflict and conflict
  local leader, refusal = choose(round, find_leaders(round))
  local primary = leader and leader.name or known.primary
  if leader then
    round.owner, round.id_is_certain = leader.name, true
  elseif not refusal then
    refusal = absence(round)
  end
  keep_fences(round, primary)
  return {
    configured = known.configured,
    primary = primary,
    owner = round.owner,
    timeline = round.top > 0 and round.top or nil,
    system_identifier = round.id_is_certain and round.system_identifier or nil,
    conflict = round.conflict,
    fenced = round.fenced,
    refusal = refusal,
    made_anew = round.made_anew,
  }
end

return decision
