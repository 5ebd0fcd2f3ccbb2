--- Which peers there are on this machine.
local process = require("lunashard.process")
local system = require("lunashard.core.system")

local peers = {}

local function output(...)
  local result = process.run({ argv = { ... }, timeout = 20 })
  return result and result.code == 0 and result.stdout:match("^%s*(%S.-)%s*$") or nil
end

local function version_of(program)
  return program and (output(program, "--version") or ""):match("%d[%d.]*") or nil
end

-- The first Python that has asyncpg: the one in PATH may not be Debian's.
local function find_python()
  for _, python in ipairs({ "/usr/bin/python3", "python3" }) do
    local version = output(python, "-c", "import asyncpg; print(asyncpg.__version__)")
    if version then
      local uvloop = output(python, "-c", "import uvloop; print(uvloop.__version__)")
      return python, version, uvloop
    end
  end
end

--- Look for all of them. Yields.
-- @string bindir of PostgreSQL
-- @treturn table `pgbench`, `psql`, `pgbouncer`: paths; `asyncpg`: the path of a Python that has it; `plproxy`,
--   `postgres_fdw`: true; all false where missing;
--   `versions`: name -> text; `reasons`, filled by `drop`
function peers.find(bindir)
  local found = { versions = {}, reasons = {} }
  for _, name in ipairs({ "pgbench", "psql" }) do
    found[name] = system.stat(bindir .. "/" .. name) and bindir .. "/" .. name or false
    found.versions[name] = version_of(found[name])
  end
  local python, asyncpg, uvloop = find_python()
  found.asyncpg = python or false -- what runs it
  found.versions.asyncpg = asyncpg
  found.versions.uvloop = uvloop
  local share = output("pg_config", "--sharedir") or "/usr/share/postgresql/15"
  for _, name in ipairs({ "plproxy", "postgres_fdw" }) do
    local control = io.open(("%s/extension/%s.control"):format(share, name))
    found[name] = control ~= nil
    if control then
      found.versions[name] = control:read("*a"):match("default_version = '([^']+)'")
      control:close()
    end
  end
  for _, path in ipairs({ "/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer" }) do
    found.pgbouncer = found.pgbouncer or system.stat(path) and path or false
  end
  found.versions.pgbouncer = version_of(found.pgbouncer)
  return found
end

--- Can this peer be measured?
-- @tparam table ctx
-- @string name
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string reason
function peers.check(ctx, name)
  if ctx.peers[name] then
    return true
  end
  return nil, ctx.peers.reasons[name] or name .. " is not installed"
end

--- Do without a peer that is installed and cannot be used.
function peers.drop(ctx, name, reason)
  ctx.peers[name], ctx.peers.reasons[name] = false, reason
end

return peers
