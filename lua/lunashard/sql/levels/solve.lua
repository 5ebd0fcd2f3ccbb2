--- From what filters say to what is known of every column.
-- A filter loses rows of its targets only: an ON condition says nothing of the side of an outer join that is kept. But
-- once the rows of one table are known to have a certain key, this is used wherever its columns appear; round by
-- round, until there is nothing new.
-- @module lunashard.sql.levels.solve

local solve = {}

-- Each domain holds for itself, so those beyond this many may be left out.
local MAX_DOMAINS = 16

local known

-- Counts what was learned: an answer of before is the answer still while it is the same.
local stamp = 0

-- What both of two terms are in.
local function common(one, other, assume)
  local ids, both = {}, {}
  for _, domain in ipairs(known(one, assume)) do
    ids[domain.id] = true
  end
  for _, domain in ipairs(known(other, assume)) do
    if ids[domain.id] then
      both[#both + 1] = domain
    end
  end
  return both
end

local function own_and_inner(term, assume)
  local all = {}
  for _, domain in ipairs(term.domains) do
    all[#all + 1] = domain
  end
  for _, domain in ipairs(known(term.inner, assume)) do
    all[#all + 1] = domain
  end
  return all
end

-- The domains that a term is in where it is not NULL.
function known(term, assume)
  if not term.arms and (not term.inner or term.item and term.item.assumed and not assume) then
    return term.domains
  elseif term.known_at ~= stamp then
    term.known = term.arms and common(term.arms[1], term.arms[2], assume) or own_and_inner(term, assume)
    term.known_at = stamp
  end
  return term.known
end

-- ---- groups of equal terms ----

local function find(parent, term)
  while parent[term] ~= term do
    parent[term] = parent[parent[term]]
    term = parent[term]
  end
  return term
end

local function group_terms(filter)
  local parent, order, by_source = {}, {}, {}
  local function enter(term)
    if not parent[term] then
      parent[term], order[#order + 1] = term, term
    end
  end
  for _, pair in ipairs(filter.equal) do
    enter(pair[1])
    enter(pair[2])
    parent[find(parent, pair[1])] = find(parent, pair[2])
  end
  for _, fact in ipairs(filter.facts) do
    enter(fact.term)
    if fact.domain.kind == "eq" then
      local other = by_source[fact.domain.id]
      if other then
        parent[find(parent, other)] = find(parent, fact.term)
      end
      by_source[fact.domain.id] = fact.term
    end
  end
  local groups, by_root = {}, {}
  for _, term in ipairs(order) do
    local root = find(parent, term)
    if not by_root[root] then
      by_root[root] = { terms = {}, domains = {} }
      groups[#groups + 1] = by_root[root]
    end
    table.insert(by_root[root].terms, term)
  end
  for _, fact in ipairs(filter.facts) do
    table.insert(by_root[find(parent, fact.term)].domains, fact.domain)
  end
  return groups
end

-- ---- what is said of an item, said of what it is made of ----

local add

local function push_down(level, inner, domain, state)
  if inner.arms then
    if level.kind ~= "union" or inner.level ~= level or not level.takes_filters then
      return
    end
    push_down(level.left, inner.arms[1], domain, state)
    push_down(level.right, inner.arms[2], domain, state)
  elseif level.kind == "select" and level.takes_filters and (not level.groups or level.groups[inner])
    and inner.item and inner.item.home == level then
    add(inner, domain, state)
  end
end

local function takes_pushes(item)
  local cte = item.cte
  return item.pushable or cte and cte.uses == 1 and not cte.recursive
end

function add(term, domain, state)
  if #term.domains >= MAX_DOMAINS then
    return
  end
  for _, one in ipairs(term.domains) do
    if one.id == domain.id then
      return
    end
  end
  stamp = stamp + 1
  term.domains[#term.domains + 1] = domain
  state.added[#state.added + 1] = term
  state.changed = true
  for _, part in pairs(term.parts or {}) do
    add(part, domain, state)
  end
  if term.inner and term.item and term.item.level and takes_pushes(term.item) then
    push_down(term.item.level, term.inner, domain, state)
  end
end

local function is_target(filter, term)
  if term.parts then
    for _, part in pairs(term.parts) do
      if not is_target(filter, part) then
        return false
      end
    end
    return next(term.parts) ~= nil
  end
  return term.item ~= nil and filter.targets[term.item] == true
end

local function say(domains, said, ids)
  for _, domain in ipairs(domains) do
    if not ids[domain.id] and #said < MAX_DOMAINS then
      ids[domain.id], said[#said + 1] = true, domain
    end
  end
end

local function apply(filter, state)
  for _, group in ipairs(filter.groups) do
    local said, ids = {}, {}
    say(group.domains, said, ids)
    for _, term in ipairs(group.terms) do
      say(known(term, state.assume), said, ids)
    end
    for _, term in ipairs(group.terms) do
      if is_target(filter, term) then
        for _, domain in ipairs(said) do
          add(term, domain, state)
        end
      end
    end
  end
end

local function run(filters, assume)
  stamp = stamp + 1
  local state = { assume = assume, added = {}, changed = true }
  local first, last, step = 1, #filters, 1
  while state.changed do
    state.changed = false
    for i = first, last, step do
      apply(filters[i], state)
    end
    first, last, step = last, first, -step -- else a chain of joins would be gone along one by one
  end
  return state
end

-- Recursion: what was taken to be true of the rows of the first round must be true of those of the next.
local function holds(ctes)
  for _, cte in ipairs(ctes) do
    local level = cte.recursive and cte.level
    if level and level.kind ~= "union" then
      return false
    elseif level then
      for i, entry in ipairs(level.left.outputs) do
        local other = level.right.outputs[i]
        local base = entry.term and known(entry.term, true) or {}
        if #base > 0 and (not other or not other.term or #common(entry.term, other.term, true) < #base) then
          return false
        end
      end
    end
  end
  return true
end

local function forget(state)
  for i = #state.added, 1, -1 do
    table.remove(state.added[i].domains)
  end
end

--- Find out what is known of every term.
-- @tparam table built what `build.run` gave
function solve.run(built)
  local filters = {}
  for _, level in ipairs(built.levels) do
    for _, filter in ipairs(level.filters) do
      filter.groups = group_terms(filter)
      filters[#filters + 1] = filter
    end
  end
  local state = run(filters, true)
  if not holds(built.ctes) then
    forget(state)
    run(filters, false)
  end
end

return solve
