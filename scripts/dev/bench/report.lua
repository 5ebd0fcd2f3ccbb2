--- The table of a run, as text or as Markdown.
local report = {}

local UNITS = {
  per_second = function(value)
    return value >= 1e4 and ("%.0fk/s"):format(value / 1e3) or ("%.0f/s"):format(value)
  end,
  seconds = function(value)
    if value >= 1e-3 then
      return ("%.2f ms"):format(value * 1e3)
    elseif value >= 1e-6 then
      return ("%.2f us"):format(value * 1e6)
    end
    return ("%.1f ns"):format(value * 1e9)
  end,
  bytes = function(value)
    return value >= 1024 * 1024 and ("%.1f MiB"):format(value / 1024 / 1024) or ("%.0f bytes"):format(value)
  end,
}

local HEAD = { "work", "against", "ours", "peer", "ratio (least to greatest)", "target", "holds" }

local function cells(row)
  local format = UNITS[row.unit]
  local list = { row.work, row.against or "", "", "", "", row.target or "none", "" }
  if row.ours then
    list[3] = format(row.ours.median)
    if not row.against then -- nothing to divide by: the spread of our own figure
      list[5] = ("(%s to %s)"):format(format(row.ours.min), format(row.ours.max))
    end
  end
  if row.ratio then
    list[4] = format(row.peer.median)
    list[5] = ("%.2f (%.2f to %.2f)"):format(row.ratio.median, row.ratio.min, row.ratio.max)
  end
  if row.failed then
    list[7] = "failed: " .. row.failed
  elseif row.peer_missing then
    list[7] = "peer missing: " .. row.peer_missing
  elseif row.peer_failed then
    list[7] = "peer failed: " .. row.peer_failed
  elseif row.holds ~= nil then
    list[7] = row.holds and "yes" or "NO"
  end
  return list
end

local WIDTHS = { 46, 40 } -- of the columns that are wrapped

-- Break a text into lines of at most so many characters.
local function wrap(text, width)
  local lines, line = {}, ""
  for word in text:gmatch("%S+") do
    if line ~= "" and #line + 1 + #word > width then
      lines[#lines + 1] = line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return lines
end

local function plain(all)
  local widths = {}
  for _, list in ipairs(all) do
    for i, cell in ipairs(list) do
      widths[i] = math.max(widths[i] or 0, math.min(#cell, WIDTHS[i] or 40))
    end
  end
  local out = {}
  for _, list in ipairs(all) do
    local wrapped, height = {}, 1
    for i, cell in ipairs(list) do
      wrapped[i] = wrap(cell, widths[i])
      height = math.max(height, #wrapped[i])
    end
    for line = 1, height do
      local parts = {}
      for i = 1, #list do
        local text = wrapped[i][line] or ""
        parts[i] = text .. (" "):rep(widths[i] - #text)
      end
      out[#out + 1] = (table.concat(parts, "  "):gsub("%s+$", ""))
    end
  end
  return table.concat(out, "\n") .. "\n"
end

local function markdown(all)
  local out = {}
  for n, list in ipairs(all) do
    local parts = {}
    for i, cell in ipairs(list) do
      parts[i] = cell:gsub("|", "\\|")
    end
    out[#out + 1] = "| " .. table.concat(parts, " | ") .. " |"
    if n == 1 then
      out[#out + 1] = "|" .. ("---|"):rep(#list)
    end
  end
  return table.concat(out, "\n") .. "\n"
end

local function versions_text(versions)
  local names, list = {}, {}
  for name in pairs(versions) do
    names[#names + 1] = name
  end
  table.sort(names)
  for i, name in ipairs(names) do
    list[i] = name .. " " .. versions[name]
  end
  return table.concat(list, ", ")
end

local FOOT = "%s: %s, %d cores, %d MiB, %s. Medians of %d round%s, %d s each where that is a choice, ours and the "
  .. "peer's in turn. %s. %s.\n"

--- The table with what it was measured on.
-- @tparam table run as in build/bench.json
-- @tparam boolean as_markdown
-- @treturn string
function report.text(run, as_markdown)
  local all = { HEAD }
  for _, row in ipairs(run.rows) do
    all[#all + 1] = cells(row)
  end
  local m = run.machine
  local foot = FOOT:format(run.date, m.cpu, m.cores, m.memory_mib, m.system, run.rounds,
    run.rounds == 1 and "" or "s", run.seconds, run.settings, versions_text(run.versions))
  return (as_markdown and markdown or plain)(all) .. "\n" .. foot
end

return report
