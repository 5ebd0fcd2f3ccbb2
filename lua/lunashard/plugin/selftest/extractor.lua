--- The self-test of extractors, on statements of all sorts.
-- @module lunashard.plugin.selftest.extractor

local errors = require("lunashard.errors")
local samples = require("lunashard.plugin.samples")
local statement = require("lunashard.sql.statement")

local test = {}

local NOT_TRIED = "it was not tried: "

-- What its users may pass to it.
local ARGUMENTS = { {}, { {} }, { 1 }, { "user_id" } }

local STATEMENTS = {
  { sql = "SELECT * FROM users WHERE user_id = $1", params = { 42 } },
  { sql = "SELECT * FROM users WHERE name = 'O''Brien' /* shard_key: 42 */", params = {} },
  { sql = "INSERT INTO users (user_id, name) VALUES ($1, $2)", params = { 42, "ann" } },
  { sql = "UPDATE users SET name = $2 WHERE user_id = $1", params = { "42", "ann" } },
  { sql = "DELETE FROM users" },
}

local KEYS = { number = true, string = true, cdata = true, table = true, boolean = false }

-- As `lunashard.extractor` asks it.
local function call(contract, options, sample)
  local parsed = assert(statement.parse(sample.sql))
  local asked = { sql = sample.sql, kind = parsed.kind:upper(), tables = { "users" }, ast = parsed.ast[1].stmt }
  return contract.extract(asked, sample.params and { unpack(sample.params) } or {}, options)
end

local function describe(key)
  return key == nil and "no key" or samples.describe(key)
end

-- true; or nil and what is wrong.
local function try(contract, options)
  for _, sample in ipairs(STATEMENTS) do
    local key, reason = call(contract, options, sample)
    if key == nil and reason == nil then
      return nil, ("%s: extract returns nil: to say that there is no key, return nil and the reason"):format(sample.sql)
    elseif key ~= nil and not KEYS[type(key)] then
      return nil, ("%s: extract returns a %s, which is no key"):format(sample.sql, type(key))
    end
    local again = call(contract, options, sample)
    if describe(again) ~= describe(key) then
      return nil, ("%s: the key is %s, and asked again %s"):format(sample.sql, describe(key), describe(again))
    end
  end
  return true
end

--- Try an extractor.
-- @tparam table contract
-- @treturn[1] boolean true
-- @treturn[1] ?string why it could not be tried, when it fails with all of the sample statements
-- @treturn[2] nil
-- @treturn[2] string what is wrong, in one line
function test.check(contract)
  local why
  for _, arguments in ipairs(ARGUMENTS) do
    local ok, fine, message = pcall(function()
      local options = arguments[1]
      if contract.new then
        options = contract.new(unpack(arguments))
      end
      return try(contract, options)
    end)
    if ok then
      return fine, message
    elseif errors.is(fine, "CANCELED") then
      error(fine, 0)
    elseif errors.is(fine) and fine.limit then
      return nil, fine.message
    end
    why = why or errors.is(fine) and fine.message or tostring(fine)
  end
  return true, NOT_TRIED .. (why:gsub("%s*\n%s*", " "))
end

return test
