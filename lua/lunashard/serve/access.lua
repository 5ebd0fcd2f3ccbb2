--- Who may read what `lunashard serve` answers.
-- Without a secret only this machine is answered, and only when it is asked by an address or as localhost: a page of
-- somebody else's, whose name was made to point here, is not. With a secret every request must bring it, but for the
-- health of the process and of the shards, which say yes or no.
-- @module lunashard.serve.access

local system = require("lunashard.core.system")
local task = require("lunashard.task")
local warn = require("lunashard.warn")

local access = {}

local LEAST = 16 -- characters of a secret
local USER = "lunashard" -- with a token as the password, for browsers
local TELL_EVERY = 10 -- seconds

local function is_loopback(host)
  return host:match("^127%.%d+%.%d+%.%d+$") ~= nil or host == "::1"
end

--- Split where to listen.
-- @string text such as `127.0.0.1:9180`, `[::1]:9180`, `localhost:9180` or `:9180`, which is everywhere
-- @treturn[1] string a numeric address
-- @treturn[1] number port
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function access.address(text)
  local host, port = text:match("^%[([%x:.]+)%]:(%d+)$")
  if not host then
    host, port = text:match("^([^:%[%]]*):(%d+)$")
  end
  if not host or tonumber(port) > 65535 then
    return nil, ("%q is not an address and a port, such as 127.0.0.1:9180 or [::1]:9180"):format(text)
  end
  local names = { [""] = "0.0.0.0", ["*"] = "0.0.0.0", localhost = "127.0.0.1" }
  return names[host] or host, tonumber(port)
end

--- What must hold for a server on this address.
-- @tparam table options `host`, and `auth`: a token, or `user:password`
-- @treturn[1] table for `check`
-- @treturn[2] nil
-- @treturn[2] string why there must be no such server
function access.rules(options)
  local secret = options.auth
  if not secret then
    if is_loopback(options.host) then
      return {}
    end
    return nil, ("refusing to listen on %s without a secret: everybody who gets there could read; give one with --http-auth "
      .. "FILE or LUNASHARD_HTTP_AUTH, a token or user:password"):format(options.host)
  end
  local is_pair = secret:find(":", 1, true) ~= nil
  if #(secret:match(":(.*)$") or secret) < LEAST or secret:find("[%c]") then
    return nil, ("the secret for HTTP must have %d characters or more, all in one line"):format(LEAST)
  end
  local rules = { refused = 0, told = -TELL_EVERY }
  rules.basic = "Basic " .. system.base64(is_pair and secret or USER .. ":" .. secret)
  rules.bearer = not is_pair and "Bearer " .. secret or rules.basic
  return rules
end

local function tell(rules, request)
  rules.refused = rules.refused + 1
  if task.now() - rules.told < TELL_EVERY then
    return
  end
  warn.emit(("HTTP: %d request%s without the right secret, the last from %s"):format(rules.refused,
    rules.refused == 1 and "" or "s", request.peer))
  rules.told, rules.refused = task.now(), 0
end

local function is_authorized(rules, given)
  -- Both are compared, however the first comes out.
  local basic, bearer = system.is_same(given, rules.basic), system.is_same(given, rules.bearer)
  return basic or bearer
end

-- An address cannot be made to point elsewhere, as a name can.
local function is_own_name(host)
  host = host:lower():gsub(":%d+$", "")
  return host:match("^%d+%.%d+%.%d+%.%d+$") or host:match("^%[[%x:.]+%]$") or host == "localhost"
end

--- May this request be answered?
-- @tparam table rules
-- @tparam table request
-- @tparam ?boolean is_open it asks for what needs no secret
-- @treturn[1] nil when it may
-- @treturn[2] number status
-- @treturn[2] string why not
-- @treturn[2] ?table headers
function access.check(rules, request, is_open)
  local given = request.headers
  if not rules.basic then
    if given.host and not is_own_name(given.host) then
      return 421, "ask for this by its address, or as localhost"
    end
    return nil
  elseif is_open or is_authorized(rules, given.authorization or "") then
    return nil
  end
  if given.authorization then
    tell(rules, request)
  end
  return 401, "this takes the secret", { ["WWW-Authenticate"] = 'Basic realm="lunashard", charset="UTF-8"' }
end

return access
