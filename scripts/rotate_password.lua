#!/usr/bin/env -S lunashard run
-- A new password for a role on all shards. The servers get only its SCRAM verifier, made here, so that neither their logs
-- nor pg_stat_statements ever hold the password; then a login with it is tried on each, and a passfile is brought up to date.

local bit = require("bit")
local lunashard = require("lunashard")
local script = require("lunashard.script")
local server = require("lunashard.script.server")
local statement = require("lunashard.router.statement")
local system = require("lunashard.core.system")

local READABLE_BY_OTHERS = 63 -- 0077
local LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
local LENGTH = 32

-- Who may: the role itself, a superuser, and one with CREATEROLE, but not for a superuser.
local RIGHTS = [[
  SELECT current_user AS me, EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1) AS there,
         (SELECT target.rolname = current_user::text OR me.rolsuper OR me.rolcreaterole AND NOT target.rolsuper
            FROM pg_roles AS target, pg_roles AS me WHERE target.rolname = $1 AND me.rolname = current_user) AS may]]

local function invalid(format, ...)
  return lunashard.errors.new("INVALID", { message = format:format(...) })
end

local function read_file(path)
  local info = system.stat(system.realpath(path) or path)
  if info and info.type == "file" and bit.band(info.mode, READABLE_BY_OTHERS) ~= 0 then
    error(invalid("--password-file %s: others may read it (mode %03o); chmod go-rwx it", path, info.mode), 0)
  end
  local file, reason = io.open(path, "rb")
  if not file then
    error(invalid("--password-file: %s", reason), 0)
  end
  local text = file:read("*l")
  file:close()
  return text
end

local function generated()
  local letters = {}
  while #letters < LENGTH do
    for byte in system.random_bytes(LENGTH):gmatch(".") do
      local n = byte:byte()
      if n < #LETTERS * 4 and #letters < LENGTH then -- so that every letter is as likely as the others
        n = n % #LETTERS + 1
        letters[#letters + 1] = LETTERS:sub(n, n)
      end
    end
  end
  return table.concat(letters)
end

local function new_password(job)
  local args = job.args
  if args.generate and args.password_file or not args.generate and not args.password_file then
    job:usage("give --password-file FILE, or --generate with --passfile FILE")
  elseif args.generate and not args.passfile then
    job:usage("--generate: nobody would know the password; --passfile FILE says where to write it")
  end
  local password = args.generate and generated() or args.password_file == "-" and io.read("*l") or read_file(args.password_file)
  if not password or password == "" then
    error(invalid("the new password is empty"), 0)
  elseif password:find("[%z\1-\31\127]") then
    error(invalid("the new password holds a control character"), 0)
  end
  return password
end

-- ---- the servers ------------------------------------------------------------------------

local function alter(job, lease, user, password, deadline)
  local found = assert(lease:execute(RIGHTS, { user }, { deadline = deadline })).rows[1]
  if not found.there then
    return nil, lunashard.errors.new("INVALID", { message = ("there is no role %s"):format(user), shard_id = lease.shard_id })
  elseif not found.may then
    return nil, lunashard.errors.new("SQL", { sqlstate = "42501", shard_id = lease.shard_id,
      message = ("%s may not change the password of %s: it takes %s itself, CREATEROLE or a superuser"):format(found.me, user,
        user) })
  elseif job.dry_run then
    return true
  end
  local verifier = assert(lease:encrypt_password(password))
  return lease:execute(("ALTER ROLE %s PASSWORD '%s'"):format(statement.quote_ident(user), verifier), nil,
    { simple = true, deadline = deadline })
end

-- A new login with the new password, on a connection that nothing else uses.
local function try_login(job, member, user, password)
  local own = assert(server.connect(job.cluster.path, member.shard_id, { host = member.primary.host, port = member.primary.port,
    user = user, password = password }))
  local ok, result, err = pcall(own.execute, own, "SELECT 1", nil, { deadline = lunashard.now() + 10 })
  own:close()
  if not ok then
    error(result, 0)
  end
  return result, err
end

-- ---- the passfile -------------------------------------------------------------------------

local function escaped(text)
  return (text:gsub("[\\:]", "\\%0"))
end

-- Lines for the servers that changed go to the top, where they are found first; those that said the same before are gone.
local function new_passfile(text, places, user, password)
  local lines, replaced = {}, {}
  for _, place in ipairs(places) do
    local key = ("%s:%d:*:%s:"):format(escaped(place.host), place.port, escaped(user))
    if not replaced[key] then
      lines[#lines + 1] = key .. escaped(password)
    end
    replaced[key] = true
  end
  for line in text:gmatch("[^\r\n]+") do
    local is_old = false
    for key in pairs(replaced) do
      is_old = is_old or line:sub(1, #key) == key
    end
    lines[#lines + 1] = not is_old and line or nil
  end
  return table.concat(lines, "\n") .. "\n"
end

local function write_passfile(path, places, user, password)
  local file = io.open(path, "rb")
  local before = file and file:read("*a") or ""
  if file then
    file:close()
  end
  local ok, reason = system.write_file(path, new_passfile(before, places, user, password), 384) -- 0600
  if not ok then
    error(lunashard.errors.new("INVALID", { exit_code = 1, message = ("--passfile %s; the servers have the new password "
      .. "already: write it there yourself"):format(reason) }), 0)
  end
end

-- Before anything is changed: can it be written?
local function check_passfile(path)
  local probe = path .. ".new"
  local ok, reason = system.write_file(probe, "", 384)
  if not ok then
    error(invalid("--passfile: %s", reason), 0)
  end
  system.unlink(probe)
end

return script.main({
  summary = "a new password for a role on all shards, never in plain text to a server",
  example = "lunashard run -c cluster.lua scripts/rotate_password.lua --generate --passfile ~/.pgpass --yes shop",
  writes = "change a role's password",
  severe = true,
  lock = "rotate_password",
  shards = true,
  arguments = function(parser)
    parser:option("--user", "whose password [the cluster file's user of the first shard]")
    parser:option("--password-file", "the first line of this file is the new password; - reads it from stdin")
      :target("password_file")
    parser:flag("--generate", "make one of 32 letters and digits")
    parser:option("--passfile", "write it to this passfile (see PostgreSQL's PGPASSFILE) for the servers that have it")
  end,
  run = function(job)
    local user = job.args.user or job.shards[1].user or os.getenv("USER")
    local password = new_password(job)
    if job.args.passfile then
      check_passfile(job.args.passfile)
    end
    local changed = {}
    job:each_shard(function(shard)
      local member = assert(job.manager:member(shard.shard_id))
      if member.write_refusal then
        return nil, lunashard.errors.new("SHARD_DOWN", { shard_id = shard.shard_id, message = member.write_refusal })
      end
      local deadline = lunashard.now() + 30
      local lease = assert(member.primary.pool:acquire(deadline))
      local ok, done, err = pcall(alter, job, lease, user, password, deadline)
      lease:release()
      if not ok or not done then
        error(ok and err or done, 0)
      elseif job.dry_run then
        return "ok", "may be changed"
      end
      changed[#changed + 1] = shard
      done, err = try_login(job, member, user, password)
      if not done then
        err.hint = "the password was changed, and a login with it does not work"
        return nil, err
      end
      return "changed", "a login works"
    end)
    if job.args.passfile and #changed > 0 then
      local places = {}
      table.sort(changed, function(a, b)
        return a.number < b.number
      end)
      for _, shard in ipairs(changed) do
        for _, endpoint in ipairs(assert(job.manager:member(shard.shard_id)).endpoints) do -- replicas have the same roles
          places[#places + 1] = { host = endpoint.host, port = endpoint.port }
        end
      end
      write_passfile(job.args.passfile, places, user, password)
      job:say("wrote the password for %d servers to %s", #places, job.args.passfile)
    end
    if job.summary:exit_code() ~= 0 and #changed > 0 then
      job:next("mend what failed, then run the same again for the other shards (--shard): these have the new password")
    end
    return true
  end,
})
