--- Chance that repeats itself: each user has dice of its own, so that what one of them draws does not depend on what others
-- drew before, nor on when.
-- @module spec.chaos.dice

local dice = {}

local Dice = {}
Dice.__index = Dice

local MODULUS = 2147483647 -- of Lehmer's generator: products stay below 2^53

--- @int seed
-- @string name what is drawn with them
-- @treturn Dice
function dice.new(seed, name)
  local state = seed % 2147483629 + 17
  for i = 1, #name do
    state = (state * 31 + name:byte(i)) % MODULUS
  end
  local self = setmetatable({ state = math.max(state, 1) }, Dice)
  for _ = 1, 10 do
    self:real()
  end
  return self
end

--- @treturn number from 0 up to, but not, 1
function Dice:real()
  self.state = self.state * 16807 % MODULUS
  return self.state / MODULUS
end

--- @treturn number between two
function Dice:between(low, high)
  return low + self:real() * (high - low)
end

--- @treturn number a whole one
function Dice:int(low, high)
  return low + math.floor(self:real() * (high - low + 1))
end

--- @treturn any one of a list
function Dice:pick(list)
  return list[self:int(1, #list)]
end

--- @number share
-- @treturn boolean
function Dice:chance(share)
  return self:real() < share
end

return dice
