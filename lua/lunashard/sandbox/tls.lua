--- A certificate authority and a server certificate, for a sandbox with TLS.
-- @module lunashard.sandbox.tls

local errors = require("lunashard.errors")
local server = require("lunashard.sandbox.server")
local system = require("lunashard.core.system")

local tls = {}

local DAYS = "30"

local function request(ctx, name, subject, ...)
  local base = ctx.dir .. "/data/" .. name
  local argv = { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes" }
  local more = { "-keyout", base .. ".key", "-out", base .. ".crt", "-subj", subject, "-days", DAYS, ... }
  for _, argument in ipairs(more) do
    argv[#argv + 1] = argument
  end
  return server.execute(ctx, argv)
end

--- Make the authority, and a certificate for localhost and 127.0.0.1; keys stay with the
-- servers' user, the authority's certificate goes to DIR/ca.crt. Yields.
-- @tparam table ctx `dir`, `user`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] lunashard.error `INVALID`
function tls.create(ctx)
  local ok, err = request(ctx, "ca", "/CN=Lunashard sandbox CA")
  if ok then
    local ca = ctx.dir .. "/data/ca"
    local names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    ok, err = request(ctx, "server", "/CN=localhost", "-CA", ca .. ".crt", "-CAkey", ca .. ".key", "-addext", names)
  end
  if not ok then
    return nil, err
  end
  local file, reason = io.open(ctx.dir .. "/data/ca.crt")
  if file then
    ok, reason = system.write_file(ctx.dir .. "/ca.crt", file:read("*a"), 420) -- 0644: no secret
    file:close()
  end
  if not file or not ok then
    return nil, errors.new("INVALID", { message = reason })
  end
  return true
end

return tls
