--- Small charts of the last minutes, as inline SVG that stretches with its box.
-- Lines differ in width and dashes as well as in colour; words and numbers are HTML beside them, so that they do not
-- stretch with it.
-- @module lunashard.serve.page.chart

local html = require("lunashard.serve.page.html")

local chart = {}

local HEIGHT = 100

--- The next round number.
-- @number n
-- @number least
-- @treturn number
function chart.ceiling(n, least)
  n = math.max(n, least)
  local power = 10 ^ math.floor(math.log10(n))
  for _, factor in ipairs({ 1, 1.5, 2, 3, 4, 5, 6, 8 }) do
    if n <= factor * power * 1.0000001 then
      return factor * power
    end
  end
  return 10 * power
end

--- The largest number in some lists.
-- @tparam {{number,...},...} lists
-- @treturn number 0 when there is none
function chart.max(lists)
  local max = 0
  for _, values in ipairs(lists) do
    for _, value in ipairs(values) do
      if type(value) == "number" and value > max then
        max = value
      end
    end
  end
  return max
end

-- Runs of numbers; what is no number is a gap. A number between two gaps is a dot.
local function runs(values, width)
  local list, run = {}, nil
  local shift = width - #values
  for i, value in ipairs(values) do
    if type(value) == "number" then
      if not run then
        run = {}
        list[#list + 1] = run
      end
      run[#run + 1] = { x = shift + i - 1, value = value }
    else
      run = nil
    end
  end
  return list
end

local function y_of(value, top)
  return (("%.1f"):format(HEIGHT - HEIGHT * math.min(value / top, 1)):gsub("%.0$", ""))
end

local function path(values, width, top)
  local parts = {}
  for _, run in ipairs(runs(values, width)) do
    for i, point in ipairs(run) do
      parts[#parts + 1] = ("%s%d %s"):format(i == 1 and "M" or "L", point.x, y_of(point.value, top))
    end
    if #run == 1 then
      parts[#parts + 1] = "h0.01"
    end
  end
  return table.concat(parts)
end

local function area(values, width, top)
  local parts = {}
  for _, run in ipairs(runs(values, width)) do
    parts[#parts + 1] = ("M%d %d"):format(run[1].x, HEIGHT)
    for _, point in ipairs(run) do
      parts[#parts + 1] = ("L%d %s"):format(point.x, y_of(point.value, top))
    end
    parts[#parts + 1] = ("L%d %dZ"):format(run[#run].x, HEIGHT)
  end
  return table.concat(parts)
end

--- Draw lines over each other.
-- @tparam table given `series`: a list, each with `values` (the latest last) and `class`, and `filled` for an area below
--   it; `width`: how many values fit; `top`: the number at the upper edge; `label`: what is seen, in words
-- @treturn Fragment
function chart.lines(given)
  local parts = {}
  local last = given.width - 1
  for _, series in ipairs(given.series) do
    if series.filled then
      parts[#parts + 1] = html.fill('<path class="area %s" d="%s"/>', series.class, area(series.values, given.width, given.top))
    end
  end
  for _, series in ipairs(given.series) do
    parts[#parts + 1] = html.fill('<path class="line %s" d="%s"/>', series.class, path(series.values, given.width, given.top))
  end
  return html.fill('<svg class="%s" viewBox="0 0 %s %s" preserveAspectRatio="none" role="img" aria-label="%s">%s</svg>',
    given.class or "plot", last, HEIGHT, given.label, parts)
end

--- A bar of a share.
-- @number share 0 to 1
-- @string class
-- @treturn Fragment
function chart.bar(share, class)
  return html.fill('<span class="bar %s" aria-hidden="true"><i style="width:%s%"></i></span>', class,
    ("%.1f"):format(100 * math.max(0, math.min(share, 1))))
end

return chart
