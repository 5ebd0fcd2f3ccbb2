--- `lunashard serve`: keeps a cluster open, watches over it and answers over HTTP.
-- @module lunashard.cli.serve

local access = require("lunashard.serve.access")
local bit = require("bit")
local cli = require("lunashard.cli")
local log = require("lunashard.serve.log")
local serve = require("lunashard.serve")
local system = require("lunashard.core.system")
local warn = require("lunashard.warn")

local command = {}

command.examples = {
  "lunashard serve -c cluster.lua",
  "lunashard serve --http :9180 --http-auth /etc/lunashard/secret --log-format json",
}

local READABLE_BY_OTHERS = 7 -- 0007

local function address(text)
  local host, port = access.address(text)
  if not host then
    return nil, port
  end
  return { host = host, port = port }
end

local function seconds(text)
  local number = tonumber(text)
  if not number or number <= 0 or number ~= number or number > 3600 then
    return nil, ("%q is not a number of seconds, up to 3600"):format(text)
  end
  return number
end

local function whole(text)
  local number = tonumber(text)
  if not number or number < 0 or number % 1 ~= 0 then
    return nil, ("%q is not a whole number"):format(text)
  end
  return number
end

--- Declare the arguments.
-- @param parser
function command.configure(parser)
  parser:option("-c --cluster", "cluster file [LUNASHARD_CLUSTER]")
  parser:option("--http", "address and port to answer on, or `none` [127.0.0.1:9180]", "127.0.0.1:9180")
    :convert(function(text)
      if text == "none" then
        return {}
      end
      return address(text)
    end)
  parser:option("--http-auth", "file with a token, or user:password, that requests must bring [LUNASHARD_HTTP_AUTH]; "
    .. "needed to answer other machines"):target("auth")
  parser:option("--socket", "path of the local socket for `repl --attach`, or `none` "
    .. "[$XDG_RUNTIME_DIR/lunashard/NAME.sock, or below /tmp]")
  parser:option("--log-format", "`text` or `json`: one line on stderr for each event [text]", "text")
    :choices({ "text", "json" }):target("log_format")
  parser:option("--stop-timeout", "seconds that a job has to end when this is to stop [10]"):target("stop_timeout")
    :convert(seconds)
  parser:option("--min-shards", "/readyz says yes with so many healthy shards [more than half]"):convert(whole)
end

-- The secret, or nil and what is wrong.
local function read_secret(path)
  if not path then
    local given = os.getenv("LUNASHARD_HTTP_AUTH")
    return given ~= "" and given or nil
  end
  local real, reason = system.realpath(path)
  local info = real and system.stat(real)
  if not info then
    return nil, reason
  elseif bit.band(info.mode, READABLE_BY_OTHERS) ~= 0 then
    return nil, ("%s: others may read it (mode %03o); chmod o-rwx it"):format(path, info.mode)
  end
  local file, why = io.open(real, "rb")
  local text = file and file:read("*a")
  if file then
    file:close()
  end
  if not text then
    return nil, why or path .. ": cannot be read"
  end
  return (text:gsub("%s+$", ""))
end

local function run(args)
  local path = cli.cluster_path(args)
  local secret, problem = read_secret(args.auth)
  if problem then
    warn.emit(("serve: --http-auth: %s"):format(problem))
    return cli.exit.failed
  end
  local service, err = serve.open({
    cluster = path,
    host = args.http.host,
    port = args.http.port,
    auth = secret,
    socket = args.socket ~= "none" and (args.socket or true) or nil,
    must_attach = args.socket ~= nil,
    min_shards = args.min_shards,
    stop_timeout = args.stop_timeout,
  })
  if not service then
    warn.emit(("serve: %s"):format(err.message))
    return cli.exit.failed
  end
  local ok, raised = pcall(service.run, service)
  service:close()
  if not ok then
    error(raised, 0)
  end
  return cli.exit.ok
end

--- Run it. Yields until it is stopped.
-- @tparam table args
-- @treturn number exit code: 0 when it was stopped by SIGTERM or SIGINT, 1 when it could not begin
function command.run(args)
  local close_log = log.open(args.log_format)
  local ok, code = pcall(run, args)
  close_log()
  if not ok then
    error(code, 0)
  end
  return code
end

return command
