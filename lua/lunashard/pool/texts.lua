--- What a pool knows of the statements that it runs: may they share connections?
-- Every text starts on a connection of its own. From its third success on it is looked at, by the parser and in
-- the database's catalog, and from then on goes where it may, until the catalog may have changed.
-- @module lunashard.pool.texts

local core = require("lunashard.core.pool")
local parsing = require("lunashard.sql")
local task = require("lunashard.task")

local texts = {}

-- A statement is looked at when it has been run so often: what runs once or twice pays nothing.
local LOOK_AFTER = 3
local LOOK_TIMEOUT = 2 -- seconds
local MAX_TEXTS = 2048

-- Other commands may change what statements do.
local HARMLESS = {}
for _, command in ipairs({ "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT",
  "RELEASE", "START TRANSACTION", "SET", "RESET", "SHOW", "COPY", "EXPLAIN", "FETCH", "LISTEN", "UNLISTEN", "NOTIFY",
  "LOCK TABLE", "TRUNCATE TABLE", "VACUUM", "ANALYZE", "PREPARE", "DEALLOCATE", "DECLARE CURSOR", "CLOSE CURSOR",
  "DISCARD ALL" }) do
  HARMLESS[command] = true
end

-- What was concluded may be wrong: nothing is shared before it has been looked at anew.
local function doubt(self)
  for query, text in pairs(self.texts) do
    text:share("alone")
    self.met[query] = { text = text, uses = LOOK_AFTER - 1 }
  end
  self.texts, self.pure = {}, {}
end

--- Give a pool its fields for this.
-- @tparam Pool self
-- @tparam boolean pipeline may statements share connections at all?
function texts.open(self, pipeline)
  self.pipeline = pipeline
  self.texts = {} -- by SQL: those that have been looked at
  self.met = {} -- by SQL: `{ text, uses }` of those that have not
  self.pure = {} -- by SQL: true for those that were found to do nothing but read
  self.small = {} -- by SQL: were the rows few? See `note_size`
  self.n_texts = 0
  self.looking = 0 -- tasks that find out about statements
  self.catalog = parsing.catalog(function(query, params)
    local result, err = self:execute(query, params, { deadline = task.now() + LOOK_TIMEOUT, read_only = true,
      pipeline = false })
    return result and result.rows, err
  end, { changed = function()
    doubt(self)
  end })
end

--- What is known of SQL that has not been looked at.
-- @tparam Pool self
-- @string query
-- @treturn table `text`, `uses`
function texts.meet(self, query)
  local known = self.met[query]
  if not known then
    if self.n_texts >= MAX_TEXTS then -- programs that write values into their SQL
      self.texts, self.met, self.n_texts = {}, {}, 0
      self.pure, self.small = {}, {}
    end
    known = { text = core.text(query), uses = 0 }
    self.met[query], self.n_texts = known, self.n_texts + 1
  end
  return known
end

local function judge(self, query, known)
  local class, _, repeatable = parsing.sharing(query, self.catalog)
  if class and self.met[query] == known then
    known.text:share(class, repeatable)
    self.met[query], self.texts[query] = nil, known.text
    self.pure[query] = repeatable or nil
  end
end

local function refresh(self)
  self.catalog:refresh()
end

-- The look asks the server: in a task of its own, so that nobody's statement waits for it.
local function look(self, fn, ...)
  self.looking = self.looking + 1
  task.spawn(function(...)
    local ok, err = pcall(fn, self, ...)
    self.looking = self.looking - 1
    if not ok then
      error(err, 0)
    end
  end, ...)
end

--- A command was done: forget what it may have changed.
-- @tparam Pool self
-- @string command
-- @treturn boolean it may have changed what statements do
function texts.note(self, command)
  if not HARMLESS[command] then
    self.catalog:forget()
    return true
  end
  return false
end

--- A statement has succeeded that has not been looked at: count that, and look when it is time.
-- One that may change what others do is never looked at, so that every run of it is noted.
-- @tparam Pool self
-- @string query
-- @tparam table known from @{meet}
-- @string command
function texts.learn(self, query, known, command)
  if texts.note(self, command) then
    return
  end
  known.uses = known.uses + 1
  if known.uses >= LOOK_AFTER and self.pipeline then
    known.uses = 0 -- should the look fail, so many more come before the next one
    look(self, judge, query, known)
  end
end

-- So many rows are few.
local SMALL_ROWS = 100

--- A read that was streamed gave so many rows. When these are few it is looked at like one that was executed.
-- @tparam Pool self
-- @string query
-- @int n_rows
function texts.note_size(self, query, n_rows)
  if n_rows <= SMALL_ROWS and self.small[query] ~= false and not self.texts[query] then
    self.small[query] = true
    texts.learn(self, query, texts.meet(self, query), "SELECT")
  end
end

--- May this read be executed instead of streamed? It gave few rows, and to run it once more would do no harm.
-- @tparam Pool self
-- @string query
-- @treturn boolean
function texts.is_small(self, query)
  return self.small[query] == true and self.pure[query] == true
end

--- It gave many rows after all.
-- @tparam Pool self
-- @string query
function texts.note_large(self, query)
  self.small[query] = false
end

--- What is known of the database has grown old: ask anew.
-- @tparam Pool self
function texts.refresh(self)
  if not self.catalog.busy then
    look(self, refresh)
  end
end

return texts
