--- Does a table say the same in one database and on the shards? Ranges are compared by counts and checksums, and row by row
-- where these differ, twice, so that a write that is under way is not taken for a difference.
-- @module lunashard.script.compare

local errors = require("lunashard.errors")
local parallel = require("lunashard.parallel")
local task = require("lunashard.task")

local compare = {}

local CHUNK, SETTLE = 5000, 1

local function on_shards(self, fn)
  local outcome = parallel.each(self.job.shards, function(shard)
    local ok, result = pcall(fn, shard.shard_id)
    if not ok and (not errors.is(result) or result.code == "CANCELED") then
      error(result, 0)
    end
    return ok and result or nil, result
  end)
  for i in ipairs(self.job.shards) do
    if outcome.errors[i] then
      error(outcome.errors[i], 0)
    end
  end
  return outcome.results
end

-- Where a chunk that begins after this key ends; nil when it is the last one.
local function chunk_end(self, after, size)
  local where, params = self:range(after)
  return self:ask_source(("SELECT %s FROM %s AS t%s ORDER BY %s OFFSET %d LIMIT 1"):format(self.keys, self.quoted_source,
    where, self.ordered, size - 1), params)[1]
end

local function sums_differ(self, after, upto, report)
  local where, params = self:range(after, upto)
  local sum = ("coalesce(sum(%s::numeric), 0)"):format(self.hash)
  local sums, rows = {}, 0
  for i, found in ipairs(on_shards(self, function(shard_id)
    return self:ask_shard(shard_id, ("SELECT count(*) AS n, %s::text AS sum FROM %s AS t%s"):format(sum, self.quoted, where),
      params)[1]
  end)) do
    sums[i], rows = found.sum, rows + tonumber(found.n)
  end
  local all = { unpack(params) }
  all[#all + 1] = sums
  local own = self:ask_source(("SELECT count(*) AS n, %s = (SELECT sum(x::numeric) FROM unnest($%d::text[]) AS x) AS same "
    .. "FROM %s AS t%s"):format(sum, #all, self.quoted_source, where), all)[1]
  report.source_rows, report.shard_rows = report.source_rows + tonumber(own.n), report.shard_rows + rows
  return tonumber(own.n) ~= rows or not own.same
end

local function key_of(self, row)
  local parts = {}
  for i = 1, #self.key do
    parts[i] = row["k" .. i]
  end
  return table.concat(parts, ", "), parts
end

-- Every key of a range that is not the same on both sides: key -> `{ what, key, columns, shard, mark }`.
local function rows_that_differ(self, after, upto)
  local where, params = self:range(after, upto)
  local text = ("SELECT %s, %s::text AS hash FROM %%s AS t%s"):format(self.keys, self.hash, where)
  local theirs, found = {}, {}
  for i, rows in ipairs(on_shards(self, function(shard_id)
    return self:ask_shard(shard_id, text:format(self.quoted), params)
  end)) do
    for _, row in ipairs(rows) do
      local shard_id, name, key = self.job.shards[i].shard_id, key_of(self, row)
      if theirs[name] then
        found[name] = { what = "twice", key = name, columns = key, mark = row.hash,
          shard = theirs[name].shard .. ", " .. shard_id }
      end
      theirs[name] = { hash = row.hash, shard = shard_id, key = key }
    end
  end
  for _, row in ipairs(self:ask_source(text:format(self.quoted_source), params)) do
    local name, key = key_of(self, row)
    local other = theirs[name]
    if not other then
      found[name] = { what = "missing", key = name, columns = key, mark = row.hash }
    elseif other.hash ~= row.hash and not found[name] then
      found[name] = { what = "different", key = name, columns = key, shard = other.shard, mark = row.hash }
    end
    theirs[name] = nil
  end
  for name, other in pairs(theirs) do
    found[name] = { what = "extra", key = name, columns = other.key, shard = other.shard, mark = other.hash }
  end
  return found
end

-- What differs twice, with the same row in the source, is no write under way.
local function settled(first, second)
  local list, moving = {}, 0
  for name, one in pairs(first) do
    local again = second[name]
    if again and again.what == one.what and again.mark == one.mark then
      list[#list + 1] = again
    else
      moving = moving + 1
    end
  end
  table.sort(list, function(a, b)
    return a.key < b.key
  end)
  return list, moving
end

--- Compare all rows, range by range. Yields. Raises what goes wrong.
-- @tparam Pair self see `lunashard.script.pair`
-- @tparam[opt] table opts `chunk`: rows of a range [5000]; `settle`: seconds after which what differs is looked at once more [1];
--   `on_doubt()`: something differs and will be looked at once more; `on_range(report)`; `on_difference(difference)`: `what`
--   (`missing` on the shards, `extra` there, `different`, `twice`), `key` (a text), `columns` (the same as a list), `shard`
-- @treturn table `source_rows`, `shard_rows`, `ranges`, `differing` (ranges), `differences`, `moving` (rows that changed
--   meanwhile), and how many are `missing`, `extra`, `different`, `twice`
function compare.run(self, opts)
  opts = opts or {}
  local report = { source_rows = 0, shard_rows = 0, ranges = 0, differing = 0, differences = 0, moving = 0, missing = 0,
    extra = 0, different = 0, twice = 0 }
  local after
  repeat
    local last = chunk_end(self, after, opts.chunk or CHUNK)
    local upto
    if last then
      upto = {}
      for i = 1, #self.key do
        upto[i] = last["k" .. i]
      end
    end
    report.ranges = report.ranges + 1
    if sums_differ(self, after, upto, report) then
      local first = rows_that_differ(self, after, upto)
      if next(first) then
        if opts.on_doubt then
          opts.on_doubt()
        end
        task.sleep(opts.settle or SETTLE)
      end
      local list, moving = settled(first, next(first) and rows_that_differ(self, after, upto) or {})
      report.differing, report.moving = report.differing + (#list > 0 and 1 or 0), report.moving + moving
      for _, one in ipairs(list) do
        report.differences = report.differences + 1
        report[one.what] = report[one.what] + 1
        if opts.on_difference then
          opts.on_difference(one)
        end
      end
    end
    after = upto
    if opts.on_range then
      opts.on_range(report)
    end
  until not upto
  return report
end

return compare
