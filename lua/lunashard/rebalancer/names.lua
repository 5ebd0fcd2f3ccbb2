--- What the things are called that a job makes on shards, and how SQL texts for them are put together.
-- All of it lies in the schema `lunashard_staging` but for the triggers. Tables of a group are numbered by their names.
-- @module lunashard.rebalancer.names
-- @local

local quote_ident = require("lunashard.strategy.placement").quote_ident

local names = {}

local function staged(letter, row, ...)
  return "lunashard_staging." .. letter .. table.concat({ ("%d"):format(row.job), ... }, "_")
end

--- On the destination: the rows of a move, before they are anybody's.
function names.staging(row, n)
  return staged("s", row, ("%d"):format(row.seq), n)
end

--- On the source: the rows of a move, after they have left.
function names.holding(row, n)
  return staged("h", row, ("%d"):format(row.seq), n)
end

--- On a source: the keys of all rows that a job moves, by bucket.
function names.keys(row, n)
  return staged("k", row, n)
end

--- On a source: the keys that were written since.
function names.dirty(row, n)
  return staged("d", row, n)
end

--- The trigger function that notes them.
function names.capture(row, n)
  return staged("c", row, n)
end

--- A regular expression for the relations of a job.
-- @tparam number job
-- @treturn string
function names.pattern(job)
  return ("^[shkd]%d_"):format(job)
end

--- A trigger of a job; they all begin so.
-- @string what
function names.trigger(row, what)
  return ("lunashard_%d_%s"):format(row.job, what)
end

--- A text as an SQL literal.
-- @string text
-- @treturn string
function names.literal(text)
  return "'" .. text:gsub("'", "''") .. "'"
end

--- Texts as the literal of an array, of no type yet.
-- @tparam {string,...} list
-- @treturn string
function names.array(list)
  local quoted = {}
  for i, text in ipairs(list) do
    quoted[i] = '"' .. text:gsub('[\\"]', "\\%0") .. '"'
  end
  return names.literal("{" .. table.concat(quoted, ",") .. "}")
end

--- Numbers as the literal of an array.
-- @tparam {number,...} list
-- @treturn string
function names.numbers(list)
  local texts = {}
  for i, number in ipairs(list) do
    texts[i] = ("%.0f"):format(number)
  end
  return "'{" .. table.concat(texts, ",") .. "}'"
end

--- A list of SQL pieces from a pattern, in which `%s` stands for a column's quoted name and `%d` for its number.
-- @tparam {string,...} columns
-- @string pattern
-- @string[opt=", "] separator
-- @treturn string
function names.each(columns, pattern, separator)
  local pieces = {}
  for i, column in ipairs(columns) do
    local quoted, number = quote_ident(column), tostring(i)
    pieces[i] = pattern:gsub("%%([sd])", function(what)
      return what == "s" and quoted or number
    end)
  end
  return table.concat(pieces, separator or ", ")
end

--- How many rows, and what they say, in one text that is the same for the same rows on two servers.
-- xor alone would not see pairs; sums alone would not see what makes up for each other.
-- @string relation SQL of a relation whose column `h` is each row's hash
-- @treturn string a query with the columns `rows` and `checksum`
function names.checksum(relation)
  return ([[
    SELECT count(*) AS rows, concat_ws(' ', count(*), coalesce(bit_xor(h), 0), coalesce(sum(h >> 32), 0),
      coalesce(sum(h & 4294967295), 0)) AS checksum FROM %s]]):format(relation)
end

--- The hash of a row, the same whatever the order of its columns.
-- @string alias of the table
-- @tparam {string,...} columns
-- @treturn string
function names.hash(alias, columns)
  local sorted = { unpack(columns) }
  table.sort(sorted)
  return ("hashtextextended(ROW(%s)::text, 0)"):format(names.each(sorted, alias .. ".%s"))
end

--- Keys as a relation of typed columns k1, k2, ...
-- @tparam table one the table
-- @tparam {table,...} columns a list of texts for each column of its key
-- @treturn string
function names.relation(one, columns)
  local arrays, casts = {}, {}
  for i, key_type in ipairs(one.key_types) do
    arrays[i] = names.array(columns[i]) .. "::text[]"
    casts[i] = ("u.k%d::%s AS k%d"):format(i, key_type, i)
  end
  return ("(SELECT %s FROM unnest(%s) AS u(%s))"):format(table.concat(casts, ", "), table.concat(arrays, ", "),
    names.each(one.key, "k%d"))
end

--- The condition that a row is of a move's buckets.
-- @tparam table context `bucket_of`
-- @tparam table row the move
-- @tparam table one the table
-- @string alias
-- @treturn string
function names.is_moving(context, row, one, alias)
  return ("%s = ANY (%s::text[])"):format(context.bucket_of(one, alias), names.array(row.buckets))
end

return names
