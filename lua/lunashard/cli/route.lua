--- `lunashard route`: which shard, bucket and server a key belongs to.
-- @module lunashard.cli.route

local cli = require("lunashard.cli")
local errors = require("lunashard.errors")
local json_text = require("lunashard.json_text")
local opening = require("lunashard.cli.opening")
local output = require("lunashard.cli.output")
local table_text = require("lunashard.table_text")
local typed = require("lunashard.cli.typed")

local command = {}

local COLUMNS = { "key", "bucket", "shard", "server" }

command.examples = {
  "lunashard route 42 43 44",
  "lunashard route --table users --explain 42",
  "lunashard route --json - <keys.txt",
}

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:argument("key", "42, text, 'text', or {1,2} with a value for each column of a composite one; - reads one from each "
    .. "line of stdin. Before one that begins with -, write --"):args("+"):target("keys")
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:option("--table", "the table whose keys they are")
  parser:flag("--read", "where reads go: replicas, when there are some")
  parser:flag("--explain", "how that is found, by the code that executes statements")
  parser:flag("--json", "JSON on stdout, also on failure")
end

local function keys_of(args)
  local texts = {}
  for _, text in ipairs(args.keys) do
    if text == "-" then
      for line in io.lines() do
        texts[#texts + 1] = line:match("^%s*(.-)%s*$")
      end
    else
      texts[#texts + 1] = text
    end
  end
  return texts
end

local function explain(router, text, args)
  return router:explain(nil, nil, { routing_key = typed.value(text), table = args.table, read_only = args.read or nil })
end

local function row_of(text, explained)
  return {
    key = text,
    bucket = tostring(explained.bucket),
    shard = explained.shard_id,
    server = explained.endpoints[explained.shard_id],
  }
end

local function found(router, texts, args)
  local rows, list, failed, last = {}, {}, 0, nil
  for _, text in ipairs(texts) do
    local explained, err = explain(router, text, args)
    if explained then
      rows[#rows + 1] = row_of(text, explained)
      local plain = explained:to_table()
      plain.given = text
      list[#list + 1] = plain
      if args.explain and not args.json then
        output.write(#rows > 1 and "\n" or "", text, ":\n  ", (tostring(explained):gsub("\n", "\n  ")), "\n")
      end
    else
      failed, last = failed + 1, err
      cli.say("route: %s: %s", text, tostring(err))
      list[#list + 1] = { given = text, error = errors.to_table(err) }
    end
  end
  return rows, list, failed, last
end

local function run(router, args)
  local rows, list, failed, last = found(router, keys_of(args), args)
  if args.json then
    output.json({ keys = json_text.list(list) })
  elseif not args.explain and #rows > 0 then
    output.write((table_text.render(COLUMNS, rows)))
  end
  if #list == 0 then
    cli.usage_error("there is no key on stdin")
  end
  return failed > 0 and errors.exit_code(last) or cli.exit.ok
end

--- Run it. Yields. Connects nowhere, unless the strategy has to ask a table.
-- @tparam table args
-- @treturn number exit code: not 0 when one of the keys belongs nowhere
function command.run(args)
  local router, manager = opening.router(args, { offline = true })
  if not router then
    return output.failure("route", manager, args)
  end
  local ok, code
  if require("lunashard.distribution").needs_servers(manager.strategy) then
    ok, code = manager:initialize()
    if not ok then
      return output.failure("route", code, args)
    end
  end
  ok, code = pcall(run, router, args)
  manager:shutdown()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
