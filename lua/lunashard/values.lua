--- Values on their way to SQL and back.
--
-- SQL to Lua: bool is a boolean; int2, int4, float4 and float8 are numbers; int8 is a number up to
-- 2^53 and `int64_t` cdata beyond, so that no digit is lost; numeric is an exact string; bytea is the
-- raw bytes; one-dimensional arrays of these are tables, with `null` for NULL elements; all else is
-- the server's text. A NULL column is an absent field.
--
-- Lua to SQL: numbers (integral ones print without exponent), `int64_t` and `uint64_t` cdata,
-- booleans, strings, `bytea(s)`, and lists as arrays. `nil` in the middle of parameters is `null`, or
-- a list with `n` set.
-- @module lunashard.values

local cjson = require("cjson")
local core = require("lunashard.core.pool")
local errors = require("lunashard.errors")

local values = {}

--- SQL's NULL, where a Lua nil cannot stand. The same value as `cjson.null`.
values.null = core.null

--- Mark bytes as bytea: they travel in binary, NUL bytes included.
-- @function bytea
-- @string bytes
-- @treturn table
values.bytea = core.bytea

--- A Lua value as JSON text, for json and jsonb parameters.
-- @param value anything that lua-cjson encodes
-- @treturn string
function values.json(value)
  return cjson.encode(value)
end

local JSON_TYPES = { json = true, jsonb = true }

--- Replace the JSON texts in a result by what they say.
-- @tparam table result as a pool returns it
-- @treturn[1] table the same result
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID` when lua-cjson refuses a text, for its depth for example
function values.decode_json(result)
  for i, name in ipairs(result.columns) do
    if JSON_TYPES[result.column_types[i]] then
      for _, row in ipairs(result.rows) do
        if row[name] ~= nil then
          local ok, value = pcall(cjson.decode, row[name])
          if not ok then
            return nil, errors.new("INVALID", { message = ("column %s cannot be decoded: %s"):format(name, value) })
          end
          row[name] = value
        end
      end
    end
  end
  return result
end

return values
