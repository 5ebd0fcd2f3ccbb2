local classify = require("lunashard.repl.classify")
local lua_source = require("lunashard.repl.lua_source")

describe("what a line of input is", function()
  local env

  before_each(function()
    env = setmetatable({ cluster = {}, users = 1 }, { __index = _G })
  end)

  local function kind(text)
    local read = classify.read(text, env)
    return read.more and "more " .. read.kind or read.problem and "wrong " .. read.kind or read.kind
  end

  local function each_is(expected, texts)
    for _, text in ipairs(texts) do
      assert.equal(expected, kind(text), text)
    end
  end

  it("is SQL when its first word is one of SQL", function()
    each_is("sql", { "commit;", "begin;", "rollback", "values (1), (2);", "select (1);", "Select 1;", "(select 1);",
      "-- a\nselect 1;", "/* shard: s1 */ select 1;", "do $$ begin end $$;", "table users;", "cluster users;",
      "show work_mem;", "select(1);", "BEGIN", "select ';' ;", "explain (analyze) select 1;", "select 1; select 2;",
      "copy (select 1) to stdout;", "set x = 1;", "create function f() returns int begin atomic select 1; end;" })
  end)

  it("is Lua otherwise, also where a word of SQL is a variable's name", function()
    each_is("lua", { "users", "x = 5", "cluster", "cluster.manager", "cluster:close()", "table", "table.concat({})",
      "set = 5", "do x = 1 end", "load 'return 1'", "call(x)", "return 1", "= 1 + 1", "--[[ a\n]] x = 1",
      "show, x = 1, 2" })
    env.show = 1
    each_is("lua", { "show" })
  end)

  it("waits for more where it is not complete", function()
    each_is("more lua", { "for i=1,2 do", "x = [[a", "f(", "1 +", "x = {", "function f()", "if x then", "local",
      "--[[ comment" })
    each_is("more sql", { "select 1", "select 'a' -- x", "select 'a;", "select $$;", "select 1; select 2", "select",
      "begin isolation level serializable", "rollback to x",
      "create function f() returns int begin atomic select case when true then 1 end;" })
  end)

  it("is wrong at once where no more can mend it", function()
    each_is("wrong lua", { 'x = "abc', "end", "x y", "1 1", "for x" .. " y" })
  end)

  it("is nothing when it is blank or a comment", function()
    each_is("empty", { "", "  \n ", "-- only this" })
    each_is("command", { "\\help", "  \\x" })
  end)

  it("splits SQL at its semicolons alone", function()
    assert.same({ "select ';';", "select $$;$$;", "-- c;\nselect 1" },
      (classify.split("select ';'; select $$;$$;; -- c;\nselect 1")))
    assert.same({ "create function f() returns int begin atomic select 1; select 2; end;", "select 3;" },
      (classify.split("create function f() returns int begin atomic select 1; select 2; end; select 3;")))
  end)

  it("is statements and an expression where a semicolon is between them on one line", function()
    local function value(text)
      local own = setmetatable({}, { __index = _G })
      local chunk, is_expression = lua_source.compile(text, "=line", own)
      assert.is_true(is_expression, text)
      return chunk()
    end
    assert.equal(5, value("x = 5; x"))
    assert.equal(6, value("local x = 5; local y = x + 1; y"))
    assert.equal("over", value("for i = 1, 2 do local a = i; end; 'over'"))
    assert.same({ 1, 2 }, value("a = 2; ({ { 1; a } })[1]"))
    each_is("more lua", { "x = 5;\nx", "for i = 1, 2 do x = 1; x", "x = 5; f(" })
    each_is("wrong lua", { "x = 5; end", "x y; x" })
  end)

  it("keeps local variables of the outermost level, and no others", function()
    local function kept(text)
      local own = setmetatable({}, { __index = _G })
      local chunk = assert(lua_source.compile(text, "=line", own))
      chunk()
      return own
    end
    assert.same({ x = 1, y = 2 }, kept("local x, y = 1, 2"))
    assert.same({ x = 3 }, kept("local x = 1 do local y = 2; x = x + y end"))
    assert.equal(120, kept("local function f(n) local m = n return n < 2 and 1 or m * f(n - 1) end").f(5))
    assert.same({ s = "local t = 1" }, kept("local s = 'local t = 1' -- local u = 2"))
    assert.same({ b = [[local c]] }, kept("local a local b = [[local c]]"))
    assert.same({ r = 2 }, kept("local r = 0 repeat local i = 1; r = r + i until r == 2"))
    assert.same({ x = 5 }, kept("local x x = 5"))
  end)

  it("names the place of an error as it was typed", function()
    local _, problem = lua_source.compile("local x = 1\nlocal y =\nend", "=line", {})
    assert.equal("line:3: unexpected symbol near 'end'", problem)
  end)
end)
