--- SQL scripts as they are applied to shards: statements, and steps of them that are done or not as a whole.
-- A step is the longest run of statements that one transaction can hold, or a single statement that takes none, such as
-- CREATE INDEX CONCURRENTLY. By PostgreSQL's own parser; no server is asked.
-- @module lunashard.schema.script

local errors = require("lunashard.errors")
local parse = require("lunashard.sql.statement").parse
local scan = require("lunashard.sql.scan")
local system = require("lunashard.core.system")
local traits = require("lunashard.schema.traits")

local script = {}

local OF_OBJECTS = { CREATE = true, ALTER = true, DROP = true, REINDEX = true, REFRESH = true, COMMENT = true }
local BETWEEN = { OR = true, REPLACE = true, UNIQUE = true, TEMP = true, TEMPORARY = true, UNLOGGED = true, RECURSIVE = true }

local function invalid(name, line, format, ...)
  return nil, errors.new("INVALID", { message = ("%s:%d: %s"):format(name, line, format:format(...)) })
end

-- CREATE FUNCTION and CREATE PROCEDURE may have a body with semicolons in it: BEGIN ATOMIC ...; ...; END
local function may_have_body(words)
  local what = words[2] == "OR" and words[4] or words[2]
  return words[1] == "CREATE" and (what == "FUNCTION" or what == "PROCEDURE")
end

local function count_lines(text, from, to)
  local n, pos = 0, from
  while true do
    pos = text:find("\n", pos, true)
    if not pos or pos >= to then
      return n
    end
    n, pos = n + 1, pos + 1
  end
end

-- The statements of a text: `text`, `line`, `words` (the first few).
local function split(text)
  local list, pos, first, last = {}, 1, nil, nil
  local parens, body, words = 0, 0, {}
  local line, counted = 1, 1
  local function push()
    if first then
      line, counted = line + count_lines(text, counted, first), first
      list[#list + 1] = { text = text:sub(first, last), line = line, words = words }
    end
    first, parens, body, words = nil, 0, 0, {}
  end
  while true do
    local token, after, at = scan.next(text, pos)
    if token == nil then
      push()
      return list
    elseif token == ";" and parens <= 0 and body == 0 then
      push()
    else
      first, last = first or at, after - 1
      if #words < 5 then
        words[#words + 1] = token
      end
      if token == "(" then
        parens = parens + 1
      elseif token == ")" then
        parens = parens - 1
      elseif may_have_body(words) then
        local deeper = token == "BEGIN" or body > 0 and token == "CASE"
        body = body + (deeper and 1 or body > 0 and token == "END" and -1 or 0)
      end
    end
    pos = after
  end
end

-- `CREATE TABLE`, `ALTER TABLE`, `VACUUM`: what a statement is called in one line, without names and values.
local function title(words)
  if not OF_OBJECTS[words[1]] then
    return words[1]
  end
  local i = 2
  while BETWEEN[words[i]] do
    i = i + 1
  end
  local kind = words[i] == "MATERIALIZED" and words[i + 1] or words[i]
  return kind and kind:find("^%a") and words[1] .. " " .. kind or words[1]
end

--- The line of a script where an error is.
-- @tparam table statement
-- @tparam ?int position in characters of the statement's text, from 1
-- @treturn int
function script.line_of(statement, position)
  local characters, line = 1, statement.line
  for _, lead in statement.text:gmatch("()([%z\1-\127\194-\244])") do
    if characters >= (position or 1) then
      break
    end
    characters = characters + 1
    line = line + (lead == "\n" and 1 or 0)
  end
  return line
end

local function examine(statement, name)
  local first = statement.text:sub(1, 1)
  if first == "\\" then
    return invalid(name, statement.line, "a command of psql, not SQL: %s", statement.text:match("^[^\n]*"))
  end
  local parsed, err = parse(statement.text)
  if not parsed and err.code == "SQL" then
    return nil, errors.wrap(err, {
      code = "INVALID",
      message = ("%s:%d: %s"):format(name, script.line_of(statement, err.position), err.message),
    })
  end
  -- What is too long for the parser here is left to the server.
  local found, why = traits.of(parsed and parsed.ast[1].stmt, parsed)
  if not found then
    return invalid(name, statement.line, "%s", why)
  end
  for field, value in pairs(found) do
    statement[field] = value
  end
  statement.title, statement.words = title(statement.words), nil
  return statement
end

local function new_step(steps, settings, transactional)
  local step = { statements = {}, settings = {}, transactional = transactional, number = #steps + 1 }
  for i, setting in ipairs(settings) do
    step.settings[i] = setting
  end
  steps[#steps + 1] = step
  return step
end

-- A step is known by what it does, not by where it stands in the file.
local function finish(steps)
  local seen = {}
  for _, step in ipairs(steps) do
    local texts, titles = {}, {}
    for i, statement in ipairs(step.statements) do
      texts[i] = statement.text
      titles[i] = statement.title
    end
    local text = table.concat(texts, ";\n")
    seen[text] = (seen[text] or 0) + 1
    step.digest = system.sha256(text .. "\0" .. seen[text])
    step.line = step.statements[1].line
    step.title = #titles == 1 and titles[1] or ("%s and %d more"):format(titles[1], #titles - 1)
  end
  return steps
end

local function steps_of(statements)
  local steps, settings, open = {}, {}, nil
  for _, statement in ipairs(statements) do
    if not statement.transactional then
      table.insert(new_step(steps, settings, false).statements, statement)
      open = nil
    else
      open = open or new_step(steps, settings, true)
      table.insert(open.statements, statement)
      open = not statement.ends_step and open or nil
    end
    if statement.setting then
      settings[#settings + 1] = statement
    end
  end
  return finish(steps)
end

--- Read a script.
-- @string text
-- @string name of the file, for messages
-- @treturn[1] table `name`, `statements`, and `steps`: a list of `statements` (each with `text`, `line`, `title`,
--   `destroys`: what would be lost, in words, or nil), `transactional`, `settings` (statements before it that set the
--   session's parameters), `digest`, `title`, `line`, `number`
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`, with `name:line`
function script.read(text, name)
  text = text:gsub("^\239\187\191", "") -- a byte order mark
  local zero = text:find("%z")
  if zero then
    return invalid(name, 1 + count_lines(text, 1, zero), "a NUL byte")
  end
  local statements = split(text)
  for i, statement in ipairs(statements) do
    local examined, err = examine(statement, name)
    if not examined then
      return nil, err
    end
    statements[i] = examined
  end
  if #statements == 0 then
    return nil, errors.new("INVALID", { message = name .. ": there is no statement in it" })
  end
  return { name = name, statements = statements, steps = steps_of(statements) }
end

return script
