local sockets = require("spec.support.sockets")
local system = require("lunashard.core.system")

describe("system", function()
  local dir

  before_each(function()
    dir = os.tmpname()
    os.remove(dir)
    assert(system.mkdir(dir, 448))
  end)

  after_each(function()
    for _, name in ipairs(assert(system.listdir(dir))) do
      assert(system.unlink(dir .. "/" .. name))
    end
    assert(system.rmdir(dir))
  end)

  local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
  end

  it("writes a file with its mode, whatever the bytes", function()
    local path = dir .. "/secret"
    assert(system.write_file(path, "a\0b\n", 384))
    assert.equal("a\0b\n", read(path))
    local stat = assert(system.stat(path))
    assert.equal("file", stat.type)
    assert.equal(384, stat.mode)
    assert.equal(4, stat.size)
    assert.equal(system.getuid(), stat.uid)
  end)

  it("replaces a file as a whole and leaves no temporary one", function()
    local path = dir .. "/file"
    assert(system.write_file(path, "old", 384))
    local reader = assert(io.open(path))
    assert(system.write_file(path, "new", 420))
    assert.equal("old", reader:read("*a")) -- who has it open keeps the old one
    reader:close()
    assert.equal("new", read(path))
    assert.same({ "file" }, system.listdir(dir))
  end)

  it("does not follow a symbolic link that stands where a file is to be written", function()
    assert(system.write_file(dir .. "/target", "precious", 384))
    os.execute(("ln -s %s/target %s/link"):format(dir, dir))
    assert.equal("link", system.stat(dir .. "/link").type)
    assert(system.write_file(dir .. "/link", "other", 384))
    assert.equal("precious", read(dir .. "/target"))
  end)

  it("names the path, the reason and the error of what fails", function()
    local ok, reason, name = system.write_file(dir .. "/none/file", "x", 384)
    assert.is_nil(ok)
    assert.equal(dir .. "/none/file: No such file or directory", reason)
    assert.equal("ENOENT", name)
    assert.equal("EEXIST", select(3, system.mkdir(dir, 448)))
    assert.equal("ENOENT", select(3, system.stat(dir .. "/none")))
    assert.equal("ENOENT", select(3, system.listdir(dir .. "/none")))
    assert.equal("ENOENT", select(3, system.unlink(dir .. "/none")))
    assert.equal("ENOENT", select(3, system.realpath(dir .. "/none")))
    assert.equal("ENOENT", select(3, system.rename(dir .. "/none", dir .. "/other")))
  end)

  it("gives a free port, and none that is taken", function()
    local port = assert(system.free_port())
    assert.is_true(port > 1023 and port <= 65535)
    assert.equal(port, system.free_port(port))
    local server = sockets.silent_server()
    assert.is_nil((system.free_port(server.port)))
    server.close()
  end)

  it("gives bytes that differ every time", function()
    local seen = {}
    for _ = 1, 100 do
      local bytes = system.random_bytes(16)
      assert.equal(16, #bytes)
      assert.is_nil(seen[bytes])
      seen[bytes] = true
    end
  end)

  it("never signals a process group or init", function()
    for _, pid in ipairs({ 0, -1, 1 }) do
      assert.has_error(function()
        system.kill(pid, 0)
      end)
    end
    assert.is_true(system.kill(system.getpid(), 0))
  end)

  it("knows users by name and by id", function()
    local root = assert(system.user("root"))
    assert.same(root, system.user(0))
    assert.equal(0, root.uid)
    assert.is_nil(system.user("no-such-user"))
  end)

  it("encodes in base64, and gives SHA-256 so", function()
    assert.equal("", system.base64(""))
    assert.equal("YQ==", system.base64("a"))
    assert.equal("AP8K", system.base64("\0\255\n"))
    assert.equal(("YWJj"):rep(100), system.base64(("abc"):rep(100)))
    assert.equal("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", system.sha256("abc"))
    assert.equal("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", system.sha256(""))
  end)

  it("compares secrets as they are", function()
    assert.is_true(system.is_same("a\0b", "a\0b"))
    assert.is_true(system.is_same("", ""))
    for _, pair in ipairs({ { "a", "" }, { "", "a" }, { "aa", "a" }, { "a", "aa" }, { "a\0b", "a\0c" }, { "ab", "aB" } }) do
      assert.is_false(system.is_same(pair[1], pair[2]))
    end
  end)

  it("sends datagrams to Unix sockets, and says where there is none", function()
    local path = os.tmpname()
    os.remove(path)
    local ok, reason, name = system.send_datagram(path, "text")
    assert.is_nil(ok)
    assert.equal(path .. ": No such file or directory", reason)
    assert.equal("ENOENT", name)
    assert.is_nil((system.send_datagram(("x"):rep(200), "text")))
    local heard = sockets.datagrams(path)
    finally(function()
      heard.close()
      os.remove(path)
    end)
    assert.is_true(system.send_datagram(path, "READY=1"))
    assert.equal("READY=1\n", heard.read())
  end)
end)
