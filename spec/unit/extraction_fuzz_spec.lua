-- Statements of a corpus, mutated at random: whatever comes, an extractor gives a plan or an error, and what it says of a
-- statement it says of every other way to write it. LUNASHARD_FUZZ is how many; LUNASHARD_SEED repeats a run. What was
-- ever found to be read wrongly stays in the corpus.
local errors = require("lunashard.errors")
local extraction = require("lunashard.extraction")
local extractor = require("lunashard.extractor")
local lunashard = require("lunashard")
local scan = require("lunashard.sql.scan")
local statement = require("lunashard.sql.statement")
local system = require("lunashard.core.system")

local CORPUS = "spec/corpus/statements"
local ROUNDS = tonumber(os.getenv("LUNASHARD_FUZZ") or "") or 400
local SEED = tonumber(os.getenv("LUNASHARD_SEED") or "") or os.time()

local KINDS = {
  key = true, keys = true, range = true, rows = true, shard = true, all = true, reference = true, refused = true,
}
local CODES = { NO_KEY = true, NULL_KEY = true, KEY_MISMATCH = true, INVALID = true }

describe("an extractor", function()
  local texts, manager, random, default = {}, nil, nil, nil
  local WORDS = { "users", "user_id", "orders", "countries", "items", "$1", "$99999", "-1", "0", "NULL", "IN (1, 2)",
    "= ANY ($1)", "(", ")", ",", ";", "'", '"', "$$", "/*", "*/", "--", "/* shard_key: 1 */", "\n", "::int8", "::text[]",
    "NOT", "AND", "OR", "=", "BETWEEN", "LEFT JOIN", "ON true", "USING (user_id)", "WITH RECURSIVE", "LATERAL", "SELECT",
    "VALUES (1), (2)", "UNION ALL", "EXISTS", "*", "AS x(a)", "DEFAULT", "ä", "\239\191\191", "E'\\'", "9223372036854775808",
    "1e5", ".5", "DISTINCT ON (x)", "LIMIT 1", "FOR UPDATE", "GROUP BY 1", "OVER ()", "[1]", "INTO", "SET user_id =" }

  local function new_manager(tables)
    local shards = {}
    for i = 1, 3 do
      shards[i] = { shard_id = "s" .. i, host = "localhost", database = "app" }
    end
    return lunashard.manager({ shards = shards, strategy = { "hash" }, tables = tables })
  end

  setup(function()
    for _, name in ipairs(assert(system.listdir(CORPUS))) do
      local file = assert(io.open(CORPUS .. "/" .. name, "rb"))
      texts[#texts + 1] = file:read("*a"):gsub("\n$", "")
      file:close()
    end
    table.sort(texts)
    manager = new_manager({
      users = { shard_key = "user_id", type = "int8" }, orders = { shard_key = "user_id", type = "int8" },
      logs = { shard_key = "name", type = "text" }, files = { shard_key = "id", type = "uuid" },
      days = { shard_key = "day", type = "date" }, countries = { reference = true },
      items = { shard_key = { "tenant", "region" }, type = { "int8", "text" } },
      ["Größe"] = { shard_key = "Schlüssel", type = "int8" },
    })
    default = extractor.find(nil)
    math.randomseed(SEED)
    random = math.random
  end)

  local function pick(list)
    return list[random(#list)]
  end

  -- The text with one token or more changed, or some bytes.
  local function mutate(text)
    for _ = 1, random(3) do
      local tokens = scan.tokens(text)
      local kind = random(8)
      local token = tokens[1] and pick(tokens)
      if not token or kind == 1 then
        local at = random(0, #text)
        text = text:sub(1, at) .. string.char(random(1, 255)) .. text:sub(at + 1)
      elseif kind == 2 then
        text = text:sub(1, token.first - 1) .. text:sub(token.last + 1)
      elseif kind == 3 then
        text = text:sub(1, token.last) .. " " .. token.text .. text:sub(token.last + 1)
      elseif kind == 4 then
        local other = pick(scan.tokens(pick(texts)))
        text = text:sub(1, token.first - 1) .. other.text .. text:sub(token.last + 1)
      elseif kind == 5 then
        text = text:sub(1, token.first - 1) .. "(" .. pick(texts) .. ")" .. text:sub(token.last + 1)
      elseif kind == 6 then
        text = text:sub(1, random(0, #text)) .. pick(texts):sub(random(1, 60))
      else
        text = text:sub(1, token.first - 1) .. " " .. pick(WORDS) .. " " .. text:sub(token.last + (kind == 7 and 1 or 0))
      end
    end
    return text
  end

  local VALUES = { 42, "42", 42LL, -1, 0, "", "x", lunashard.null, { 1, 2 }, {}, 1.5, 0 / 0, 2 ^ 63, true, "2024-02-29" }

  local function some_params()
    local params = {}
    for i = 1, random(0, 4) do
      params[i] = pick(VALUES)
    end
    return params
  end

  local function text_of(keys, n)
    local parts = {}
    for i = 1, n do
      parts[i] = type(keys[i]) == "table" and text_of(keys[i], #keys[i]) or tostring(keys[i])
    end
    return table.concat(parts, " ")
  end

  -- Kind and keys of a statement in one text; or the code of the error.
  local function said(sql, params)
    local plan, err = extraction.plan(default, manager, sql)
    if plan and plan.kind == "dynamic" then
      plan, err = extraction.ask(plan, params)
    end
    if not plan then
      assert.is_true(errors.is(err), sql)
      return err.code, nil, err
    end
    assert.is_true(KINDS[plan.kind], tostring(plan.kind))
    assert.is_string(plan.reason)
    assert.is_true(plan.kind ~= "refused" or CODES[plan.code], plan.code)
    if plan.kind == "key" or plan.kind == "keys" or plan.kind == "rows" then
      local keys, n = extraction.keys(plan, params)
      return plan.kind .. " " .. tostring(plan.table) .. " " .. (keys and text_of(keys, n) or n.code), plan
    elseif plan.kind == "range" then
      return plan.kind .. text_of({ extraction.bounds(plan, params) }, 2), plan
    end
    return plan.kind .. " " .. tostring(plan.table) .. " " .. tostring(plan.code or plan.shard_id), plan
  end

  -- The same statement: other blanks, comments between, other case of keywords.
  local function rewritten(sql)
    local parts, pos = {}, 1
    for _, token in ipairs((scan.tokens(sql))) do
      local between = sql:sub(pos, token.first - 1)
      parts[#parts + 1] = between
      if between:find("^%s+$") then
        parts[#parts + 1] = pick({ "", "\n", " /* x */ ", " /* ä 'shard_key: 1 */ ", " -- it's\n" })
      end
      local text = sql:sub(token.first, token.last)
      parts[#parts + 1] = token.kind == "word" and text:find("^%a+$") and pick({ text, text:upper() }) or text
      pos = token.last + 1
    end
    return table.concat(parts) .. sql:sub(pos)
  end

  it("has an answer to any text, and the same to each way of writing it", function()
    for round = 1, ROUNDS do
      local sql = mutate(pick(texts))
      local params = some_params()
      local where = ("seed %d, round %d: %s"):format(SEED, round, sql)
      local ok, answer, _, err = pcall(said, sql, params)
      assert.is_true(ok, where .. "\n" .. tostring(answer))
      if answer == "SQL" then
        assert.equal("42601", err.sqlstate, where)
      else
        assert.same(select(2, scan.tokens(sql)), scan.comments(sql), where)
      end
      if answer == "SQL" then
        assert.is_number(err.position, where)
      elseif not sql:find("%z") then
        local other = rewritten(sql)
        local _, again, _, other_err = pcall(said, other, params)
        -- Texts that go on over several lines are the one thing that other blanks may change.
        if not (other_err and other_err.code == "SQL") then
          assert.equal(answer, again, where .. "\n" .. other)
        end
      end
    end
  end)

  it("splits a statement into ones that are about its keys, one by one", function()
    local split = 0
    for round = 1, ROUNDS do
      local sql = round <= #texts and texts[round] or mutate(pick(texts))
      local params = { 11, 12, 13, 14 }
      local _, plan = said(sql, params)
      if plan and plan.split then
        local keys, n = extraction.keys(plan, params)
        for i = 1, n do
          local part, own = plan.split({ i }, params)
          local where = ("seed %d, round %d: %s\n%s"):format(SEED, round, sql, part)
          assert.is_truthy(statement.parse(part), where)
          local other = assert(extraction.ask(assert(extraction.plan(default, manager, part)), own))
          local found, m = extraction.keys(other, own)
          assert.same({ 1, text_of({ keys[i] }, 1) }, { m, text_of(found, m) }, where)
          split = split + 1
        end
      end
    end
    assert.is_true(split > 0)
  end)
end)
