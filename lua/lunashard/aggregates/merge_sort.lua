--- Rows of all shards in one order: `merge_sort "created_at desc, id"`.
-- Each shard's rows must already be in that order (the statement says ORDER BY); a shard whose
-- rows are not is named in a `NOT_MERGEABLE` error. Text needs `{ collate = "C" }`.
-- @module lunashard.aggregates.merge_sort

local merge = require("lunashard.order.merge")
local merged = require("lunashard.order.merged")
local options = require("lunashard.options")
local order = require("lunashard.order")

local plugin = { api = 1, kind = "aggregate", name = "merge_sort", returns = "rows" }

function plugin.new(by, how)
  how = options.check(how, { collate = "string" }, "merge_sort")
  return { items = order.parse(by, how.collate, 3) }
end

function plugin.init(made)
  return { items = made.items, sources = {}, by_shard = {} }
end

-- Rows of one shard come in its order, though those of several may come interleaved.
function plugin.step(acc, row, shard_id, types)
  local key = shard_id or false
  local source = acc.by_shard[key]
  if source == nil then
    source = { shard_id = shard_id, types = types, rows = {} }
    acc.by_shard[key] = source
    acc.sources[#acc.sources + 1] = source
  end
  source.rows[#source.rows + 1] = row
  return acc
end

-- From the servers rows come as they were received, and are compared before they become tables.
function plugin.keeps()
  return true
end

function plugin.keep(acc, kept)
  acc.kept = { kept }
  return acc
end

local function append(to, list)
  for _, one in ipairs(list) do
    to[#to + 1] = one
  end
end

function plugin.merge(a, b)
  append(a.sources, b.sources)
  if b.kept then
    a.kept = a.kept or {}
    append(a.kept, b.kept)
  end
  return a
end

function plugin.finish(acc)
  if acc.kept then
    return merged.all(acc.items, acc.kept)
  end
  local sources = {}
  for i, source in ipairs(acc.sources) do
    local at = 0
    sources[i] = {
      shard_id = source.shard_id,
      types = source.types,
      next = function()
        at = at + 1
        return source.rows[at]
      end,
    }
  end
  local rows, next_row = {}, merge.rows(acc.items, sources)
  while true do
    local row, err = next_row()
    if row == nil then
      if err ~= nil then
        return nil, err
      end
      return rows
    end
    rows[#rows + 1] = row
  end
end

function plugin.types(acc)
  if acc.kept then
    return order.types(acc.kept[1])
  end
  return acc.sources[1] and acc.sources[1].types
end

return plugin
