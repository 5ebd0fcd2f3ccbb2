--- The first of several extractors that finds something: `first_of { by_comment(), by_column() }`.
-- What an extractor refuses for another reason than that it found no key is refused.
-- @module lunashard.extractors.first_of

local plugin = { api = 1, kind = "extractor", name = "first_of" }

function plugin.new(...)
  local list = { ... }
  if #list == 1 and type(list[1]) == "table" and getmetatable(list[1]) == nil then
    list = list[1]
  end
  if #list == 0 then
    error("first_of needs at least one extractor", 3)
  end
  local extractor = require("lunashard.extractor") -- which knows this one
  local members = {}
  for i, given in ipairs(list) do
    members[i] = given and extractor.find(given) or error("first_of: false is no extractor", 3)
  end
  return members
end

local function found_nothing(plan)
  return plan.kind == "all" or plan.kind == "refused" and plan.code == "NO_KEY"
end

local plan_from

-- One that has to be asked may leave it to those after it.
local function asked_in_turn(plan, members, i, statement, manager)
  return {
    kind = "dynamic", write = plan.write, extractor = plan.extractor, table = plan.table, reason = plan.reason,
    ask = function(_, params)
      local answer, err = plan.ask(plan, params)
      if not answer then
        return nil, err
      elseif not found_nothing(answer) or i == #members then
        return answer
      end
      return plan_from(members, i + 1, statement, manager)
    end,
  }
end

function plan_from(members, first, statement, manager)
  local plan
  for i = first, #members do
    plan = members[i]:plan(statement, manager)
    if plan.kind == "dynamic" then
      return asked_in_turn(plan, members, i, statement, manager)
    elseif not found_nothing(plan) then
      return plan
    end
  end
  return plan -- the last one's reason
end

function plugin.plan(members, statement, manager)
  return plan_from(members, 1, statement, manager)
end

function plugin.extract(statement, params, members)
  local reasons = {}
  for i, member in ipairs(members) do
    local key, reason = member.entry.contract.extract(statement, params, member.options)
    if key ~= nil then
      return key
    end
    reasons[i] = tostring(reason)
  end
  return nil, table.concat(reasons, "; ")
end

return plugin
