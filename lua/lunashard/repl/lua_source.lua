--- Lua as it is typed: is it complete, and whose are its local variables?
-- @module lunashard.repl.lua_source

local find, sub = string.find, string.sub

local lua_source = {}

local OPENS = { ["do"] = true, ["if"] = true, ["function"] = true, ["repeat"] = true }
local BRACKETS = { ["("] = 1, ["{"] = 1, ["["] = 1, [")"] = -1, ["}"] = -1, ["]"] = -1 }
local CLOSES = { ["end"] = true, ["until"] = true }

local function after_long(text, pos, level)
  local _, last = find(text, "]" .. level .. "]", pos, true)
  return (last or #text) + 1
end

local function after_quoted(text, pos, quote)
  while true do
    local at = find(text, "[\\\n" .. quote .. "]", pos)
    if not at then
      return #text + 1
    elseif sub(text, at, at) ~= "\\" then
      return at + 1
    end
    pos = at + 2
  end
end

-- The next token: what it is (a word, or one character; `?` for a literal), its first position and the one after it.
local function next_token(text, pos)
  while true do
    pos = find(text, "%S", pos)
    if not pos then
      return nil
    elseif sub(text, pos, pos + 1) ~= "--" then
      break
    end
    local _, open, level = find(text, "^%-%-%[(=*)%[", pos)
    pos = open and after_long(text, open + 1, level) or find(text, "\n", pos, true) or #text + 1
  end
  local _, last = find(text, "^[%a_][%w_]*", pos)
  if last then
    return sub(text, pos, last), pos, last + 1
  end
  local _, open, level = find(text, "^%[(=*)%[", pos)
  local c = sub(text, pos, pos)
  if open then
    return "?", pos, after_long(text, open + 1, level)
  elseif c == '"' or c == "'" then
    return "?", pos, after_quoted(text, pos + 1, c)
  end
  _, last = find(text, "^%.?%d[%w.]*", pos)
  if last then
    return "?", pos, last + 1
  end
  return c, pos, pos + 1
end

-- After `local`: the position after the last of its names, and whether values follow; nil for `local function`.
local function after_names(text, pos)
  local token, _, after = next_token(text, pos)
  while token and find(token, "^[%a_]") and token ~= "function" do
    local names_end = after
    token, _, after = next_token(text, after)
    if token ~= "," then
      return names_end, token == "="
    end
    token, _, after = next_token(text, after)
  end
  return nil, token == "function"
end

--- The text with the local variables of its outermost level made variables of its environment, which outlive the line.
-- Lines stay lines and nothing else moves, so that messages name the right place.
-- @string text
-- @treturn string
function lua_source.with_locals_kept(text)
  local parts, copied, depth, pos = {}, 1, 0, 1
  while true do
    local token, first, after = next_token(text, pos)
    if not token then
      break
    elseif OPENS[token] then
      depth = depth + 1
    elseif CLOSES[token] then
      depth = depth - 1
    elseif token == "local" and depth == 0 then
      local names_end, is_followed = after_names(text, after)
      if names_end or is_followed then
        parts[#parts + 1] = sub(text, copied, first - 1) .. "     "
        copied = after
      end
      if names_end and not is_followed then
        parts[#parts + 1] = sub(text, after, names_end - 1) .. " = nil"
        copied = names_end
      end
    end
    pos = after
  end
  parts[#parts + 1] = sub(text, copied)
  return table.concat(parts)
end

-- `x = 5; x` on one line: statements, and an expression after the last semicolon. To Lua it is not complete.
local function statements_and_expression(text)
  local depth, pos, split = 0, 1, nil
  while not find(text, "\n", 1, true) do
    local token, first, after = next_token(text, pos)
    if not token then
      break
    elseif OPENS[token] or BRACKETS[token] == 1 then
      depth = depth + 1
    elseif CLOSES[token] or BRACKETS[token] then
      depth = depth - 1
    elseif token == ";" and depth == 0 then
      split = first
    end
    pos = after
  end
  if split then
    return lua_source.with_locals_kept(sub(text, 1, split)) .. " return " .. sub(text, split + 1)
  end
end

local function is_cut_off(problem)
  return find(problem, "near '<eof>'$") ~= nil
end

--- Compile what was typed, as an expression when it is one.
-- @string text
-- @string name of the chunk
-- @tparam table env
-- @treturn[1] func
-- @treturn[1] boolean true: an expression, or several
-- @treturn[2] nil
-- @treturn[2] ?string what is wrong; nil when more lines may mend it
function lua_source.compile(text, name, env)
  -- The end of the last line belongs to it: a quote must be closed before it.
  local expression = find(text, "^%s*=") and text:gsub("=", "", 1) or text
  local chunk, cut_off = load("return " .. expression .. "\n", name, "t", env)
  if chunk then
    return chunk, true
  end
  local problem
  chunk, problem = load(lua_source.with_locals_kept(text) .. "\n", name, "t", env)
  if chunk then
    return chunk, find(text, "^%s*return%f[^%w_]") ~= nil
  end
  local both = statements_and_expression(text)
  chunk = both and load(both .. "\n", name, "t", env)
  if chunk then
    return chunk, true
  elseif is_cut_off(cut_off) or is_cut_off(problem) then
    return nil, nil
  end
  return nil, problem
end

return lua_source
