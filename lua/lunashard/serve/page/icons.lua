--- Signs for how something is: a shape of its own for each, so that none needs its colour.
-- @module lunashard.serve.page.icons

local html = require("lunashard.serve.page.html")

local icons = {}

local SHAPES = {
  ok = '<circle cx="8" cy="8" r="7"/><path class="cut" d="M4.6 8.2l2.4 2.4 4.4-4.8"/>',
  warn = '<path d="M8 1.2 15.4 14.4H.6z"/><path class="cut" d="M8 6v4.2M8 11.9v.6"/>',
  bad = '<path d="M5 1h6l4 4v6l-4 4H5l-4-4V5z"/><path class="cut" d="M5.4 5.4l5.2 5.2M10.6 5.4l-5.2 5.2"/>',
  busy = '<circle cx="8" cy="8" r="7"/><path class="cut" d="M4.6 8h6.4M8.2 5.2 11 8l-2.8 2.8"/>',
  idle = '<circle class="hollow" cx="8" cy="8" r="6"/>',
}

--- A sign. What it means is said in words beside it.
-- @string level `ok`, `warn`, `bad`, `busy` or `idle`
-- @treturn Fragment
function icons.of(level)
  return html.fill('<svg class="icon %s" viewBox="0 0 16 16" aria-hidden="true">%s</svg>', level, html.raw(SHAPES[level]))
end

--- A sign and the words for it.
-- @string level
-- @param text
-- @treturn Fragment
function icons.state(level, text)
  return html.fill('<span class="state %s">%s%s</span>', level, icons.of(level), text)
end

return icons
