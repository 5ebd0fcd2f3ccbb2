--- Dealing the rows of a bulk load out to the shards.
-- Strategies with a bucket map route in C, row by row as they are written; for others the keys of a batch
-- go through the strategy first.
-- @module lunashard.router.copy_split

local core = require("lunashard.core.copy")
local errors = require("lunashard.errors")
local options = require("lunashard.options")
local reference = require("lunashard.router.reference")
local routing = require("lunashard.router.routing")

local null = require("lunashard.values").null

local copy_split = {}

local Split = {}
Split.__index = Split

-- `public.countries` is also what is declared as `countries`, and the other way round.
local function declared_name(manager, name)
  local plain = name:gsub('"', "")
  for _, one in ipairs({ name, plain, plain:match("^public%.(.+)$") or "public." .. plain }) do
    if manager.tables[one] then
      return one
    end
  end
end

-- Where in a row the shard key is; or nil and what is wrong.
local function key_positions(manager, declared, columns, opts)
  local key = opts.key or (declared and manager.tables[declared].shard_key) or manager.strategy.shard_key
  if key == nil then
    return nil, "option key: expected the shard key's column, for the strategy names none"
  end
  local at = {}
  for i, column in ipairs(columns) do
    at[column] = i
  end
  local positions = {}
  for i, column in ipairs(type(key) == "table" and key or { key }) do
    positions[i] = at[column]
    if not at[column] then
      local near = errors.nearest(column, columns)
      return nil, ("the shard key %s is not among the columns%s"):format(options.describe(column),
        near and (", did you mean %q?"):format(near) or "")
    end
  end
  return positions
end

-- Which shards there may be rows for, by output.
local function shard_ids_of(strategy)
  local list = {}
  for i, shard in ipairs(strategy.shards) do
    list[i] = shard.shard_id
  end
  return list
end

local function new(self)
  self.splitter = core.splitter(self.columns, self.broadcast and 1 or #self.shard_ids, self.positions,
    self.strategy and self.strategy.map, self.format, self.header)
  return self
end

-- By the first key it is known which strategy routes.
local function with_strategy(self, strategy)
  if strategy.has_unknown then
    return nil, errors.new("STALE_MAP", {
      message = "whose some buckets are, is not known while the catalog and some shards cannot be reached",
    })
  end
  self.strategy = strategy
  self.shard_ids = shard_ids_of(strategy)
  for i, shard_id in ipairs(self.shard_ids) do
    self.output_of[shard_id] = i
  end
  if self.format and not strategy.key_type then
    return nil, errors.new("INVALID", {
      message = "bytes do not tell a number from a text: declare the type of the shard key, as tables."
        .. (self.key_table or "<name>") .. ".type or the strategy's key_type",
    })
  elseif not strategy.map then
    return new(self)
  end
  local types = strategy.key_type
  local n = type(types) == "table" and #types or 1
  if n ~= #self.positions then
    return nil, errors.new("INVALID", {
      message = ("the shard key has %d columns, but option key names %d"):format(n, #self.positions),
    })
  end
  return new(self)
end

--- How rows find their shards.
-- @tparam Manager manager
-- @string table_name
-- @tparam {string,...} columns
-- @tparam table opts those of `copy_in`
-- @treturn[1] Split
-- @treturn[2] nil
-- @treturn[2] string|lunashard.error misuse, or why not
function copy_split.new(manager, table_name, columns, opts)
  local declared = declared_name(manager, opts.table or table_name)
  local self = setmetatable({
    manager = manager,
    columns = columns,
    format = opts.format,
    header = opts.header,
    key_table = declared or opts.table,
    output_of = {},
  }, Split)
  if declared and routing.is_reference(manager, declared) then
    local members, err = reference.writers(manager)
    self.broadcast, self.shard_ids = true, {}
    for i, member in ipairs(members or {}) do
      self.shard_ids[i] = member.shard_id
    end
    return members and new(self), err
  elseif opts.shard_id or opts.routing_key ~= nil then
    local member, err = routing.resolve(manager, { shard_id = opts.shard_id, routing_key = opts.routing_key,
      table = opts.table })
    if not member then
      return nil, err
    end
    self.shard_ids = { member.shard_id }
    return new(self)
  end
  local message
  self.positions, message = key_positions(manager, declared, columns, opts)
  if not self.positions then
    return nil, message
  elseif self.format then
    local strategy, err = manager:strategy_for(self.key_table, "")
    if not strategy then
      return nil, err
    end
    return with_strategy(self, strategy)
  end
  return self
end

-- A row's number in front of the message instead of its key's, which is counted within a batch.
local function at_row(err, before)
  if not err.index then
    return err
  end
  local fields = {}
  for name, value in pairs(err) do
    fields[name] = value
  end
  fields.index = before + err.index
  fields.message = err.message:gsub("^key %d+:", ("row %d:"):format(fields.index))
  return errors.new(err.code, fields)
end

-- The output of each key, by a strategy in Lua.
local function outputs_of(self, keys, before)
  local shard_ids, err = self.strategy:route_many(keys)
  if not shard_ids then
    return nil, at_row(err, before)
  end
  local outputs = {}
  for i, shard_id in ipairs(shard_ids) do
    outputs[i] = self.output_of[shard_id]
  end
  return outputs
end

local function value_of(self, row, position)
  if type(row) ~= "table" then
    return nil
  elseif row[1] == nil and type(next(row)) == "string" then
    return row[self.columns[position]]
  end
  return row[position]
end

local function key_of(self, row)
  if #self.positions == 1 then
    return value_of(self, row, self.positions[1])
  end
  local key = {}
  for i, position in ipairs(self.positions) do
    local value = value_of(self, row, position)
    key[i] = value == nil and null or value
  end
  return key
end

local function outputs_of_rows(self, list, from, to)
  local keys = {}
  for i = from, to do
    if type(list[i]) ~= "table" then
      error(("row %d: expected a table, got a %s"):format(self:count() + i - from + 1, type(list[i])), 0)
    end
    local key = key_of(self, list[i])
    keys[i - from + 1] = key == nil and null or key
  end
  return outputs_of(self, keys, self:count())
end

-- A row by name has a name that is no column: say which, and what may be meant.
local function unknown_column(self, row)
  local known = {}
  for _, column in ipairs(self.columns) do
    known[column] = true
  end
  for name in pairs(row) do
    if not known[name] then
      local near = errors.nearest(name, self.columns)
      return ("row %d: it has a value for %s, which is not among the columns%s"):format(self:count() + 1,
        options.describe(name), near and ("; did you mean %q?"):format(near) or "")
    end
  end
end

--- Deal rows out.
-- @tparam {table,...} list
-- @int from
-- @int to
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `index`
function Split:rows(list, from, to)
  if to < from then
    return true
  elseif not self.splitter then
    local strategy, err = self.manager:strategy_for(self.key_table, key_of(self, list[from]))
    local ok
    if strategy then
      ok, err = with_strategy(self, strategy)
    end
    if not ok then
      return nil, err
    end
  end
  local outputs
  if self.strategy and not self.strategy.map then
    local err
    outputs, err = outputs_of_rows(self, list, from, to)
    if not outputs then
      return nil, err
    end
  end
  local ok, err = self.splitter:rows(list, from, to, outputs)
  if type(err) == "number" then
    error(unknown_column(self, list[err]), 0)
  end
  return ok, err
end

--- Deal bytes out.
-- @tparam ?string bytes nil: there are no more
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error with `index`
function Split:text(bytes)
  if not self.strategy or self.strategy.map then
    return self.splitter:text(bytes)
  end
  local before = self:count()
  local keys, err = self.splitter:keys(bytes)
  local outputs
  if keys then
    outputs, err = outputs_of(self, keys, before)
  end
  if not outputs then
    return nil, err
  end
  self.splitter:place(outputs)
  return true
end

--- How many rows were dealt out.
-- @treturn number
function Split:count()
  return self.splitter and self.splitter:count() or 0
end

--- Which row did a shard get as its n-th?
-- @string shard_id
-- @int n
-- @treturn ?number the row's number; nil when it is not known any more
function Split:row_of(shard_id, n)
  for i, one in ipairs(self.shard_ids) do
    if one == shard_id then
      return self.splitter:row_of(self.broadcast and 1 or i, n)
    end
  end
end

--- Hand over what waits: for each shard when it is enough, or when the shard has nothing to do. Yields.
-- @tparam Job job of @{lunashard.router.copy_load}
-- @int enough bytes
-- @treturn boolean false once any shard has failed
function Split:drain(job, enough)
  if not self.splitter then
    return true
  elseif self.broadcast then
    local bytes = self.splitter:size(1) > 0 and self.splitter:take_string(1)
    for _, shard_id in ipairs(bytes and self.shard_ids or {}) do
      if not job:push(shard_id, bytes) then
        return false
      end
    end
    return true
  end
  for i, shard_id in ipairs(self.shard_ids) do
    local size = self.splitter:size(i)
    if size > 0 and (size >= enough or job:is_idle(shard_id)) and not job:push(shard_id, self.splitter:take(i)) then
      return false
    end
  end
  return true
end

return copy_split
