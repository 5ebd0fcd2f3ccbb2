--- The reference of all commands, made from the arguments that they declare: as Markdown, and as a page for man.
-- @module lunashard.cli.manual

local tree = require("lunashard.cli.tree")

local manual = {}

--- What each exit code means.
manual.EXIT_CODES = {
  { 0, "done" },
  { 1, "failed" },
  { 2, "the command line, a value or a file cannot be used, or it was not confirmed; nothing was done" },
  { 3, "there are differences, or something to see to; only with --exit-code" },
  { 4, "it failed on some of the shards" },
  { 5, "another run holds the lock" },
  { 130, "ended by signal 2 (Ctrl-C); 128 + n by signal n: 143 by SIGTERM, 141 when the reader of stdout has gone" },
}

local ENVIRONMENT = {
  { "LUNASHARD_CLUSTER", "the cluster file, when -c does not name it" },
  { "NO_COLOR", "no colours, whatever the terminal" },
  { "PAGER", "what shows long results of the REPL" },
  { "LUNASHARD_HTTP_AUTH", "the secret of serve, see serve --help" },
  { "TMPDIR", "where sandboxes are made" },
}

--- The help of a command.
-- @tparam {string,...} words such as `{ "schema", "apply" }`
-- @treturn ?string nil when there is no such command
function manual.help(words)
  local text
  tree.walk(tree.root(), function(parser, own)
    if table.concat(own, " ") == table.concat(words, " ") then
      text = parser:get_help()
    end
  end)
  return text
end

--- The reference as Markdown: the help of every command.
-- @treturn string
function manual.markdown()
  local parts = { "# The commands of lunashard\n" }
  tree.walk(tree.root(), function(parser, words)
    parts[#parts + 1] = ("%s lunashard %s\n\n```text\n%s\n```\n"):format(("#"):rep(#words + 1), table.concat(words, " "),
      parser:get_help())
  end)
  parts[#parts + 1] = "## Exit codes\n\n| code | |\n|---|---|"
  for _, one in ipairs(manual.EXIT_CODES) do
    parts[#parts + 1] = ("| %d | %s |"):format(one[1], one[2])
  end
  return table.concat(parts, "\n") .. "\n"
end

-- Text as troff takes it.
local function plain(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("^([.'])", "\\&%1"):gsub("\n([.'])", "\n\\&%1"))
end

local function add(lines, format, ...)
  lines[#lines + 1] = select("#", ...) > 0 and format:format(...) or format
end

local function add_list(lines, list)
  for _, one in ipairs(list) do
    add(lines, ".TP\n.B %s\n%s", plain(tostring(one[1])), plain(one[2]))
  end
end

local function add_elements(lines, elements)
  for _, element in ipairs(elements) do
    if not element._hidden then
      local label = table.concat(element:_get_label_lines(), " "):gsub("%s+", " "):gsub("^ ", "")
      add(lines, ".TP\n.B %s\n%s", plain(label),
        plain(element:_get_description():gsub("\n", " ")))
    end
  end
end

--- The page for man.
-- @string version
-- @treturn string troff
function manual.page(version)
  local lines = {}
  add(lines, '.TH LUNASHARD 1 "" "lunashard %s" "User Commands"', plain(version))
  add(lines, ".SH NAME\nlunashard \\- a Lua-scriptable sharding runtime for PostgreSQL")
  add(lines, ".SH SYNOPSIS\n.B lunashard\n.I COMMAND\n[arguments]")
  add(lines, ".SH DESCRIPTION\nRows live on several PostgreSQL servers; a Lua script says where a key belongs. lunashard sends "
    .. "each statement there, asks all shards at once when it must, and combines their answers.\n.PP\n"
    .. "stdout is data; logs, progress and questions go to stderr. With \\-\\-json the data is JSON, also on failure.")
  add(lines, ".SH COMMANDS")
  tree.walk(tree.root(), function(parser, words)
    add(lines, '.SS "lunashard %s"\n%s', plain(table.concat(words, " ")), plain(parser:_get_description()))
    add_elements(lines, parser._arguments)
    add_elements(lines, parser._options)
    if parser._epilog and #words == 1 then
      add(lines, ".PP\n.nf\n%s\n.fi", plain(parser._epilog))
    end
  end)
  add(lines, '.SH "EXIT STATUS"')
  add_list(lines, manual.EXIT_CODES)
  add(lines, ".SH ENVIRONMENT")
  add_list(lines, ENVIRONMENT)
  return table.concat(lines, "\n") .. "\n"
end

return manual
