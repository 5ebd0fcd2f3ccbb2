--- Chromium without a window, told what to do through its DevTools protocol.
-- It comes with `make deps-dev`. Where it is missing specs are pending, but not in CI.
-- @module spec.support.browser

local cjson = require("cjson.safe")
local process = require("lunashard.process")
local task = require("lunashard.task")

local browser = {}

local TIMEOUT = 30

local Browser = {}
Browser.__index = Browser

--- Where it is. Raises in CI when it is nowhere.
-- @treturn ?string
function browser.find()
  for _, name in ipairs({ "chromium", "chromium-browser", "google-chrome" }) do
    local found = process.run({ argv = { "sh", "-c", "command -v " .. name } })
    if found and found.code == 0 then
      return (found.stdout:gsub("%s+$", ""))
    end
  end
  if os.getenv("LUNASHARD_CI") then
    error("chromium is missing: make deps-dev")
  end
end

-- The answer to a command among all that the browser has said; messages end with a zero byte.
local function answer_to(self, id)
  local said = self.process:output()
  while true do
    local stop = said:find("\0", self.read, true)
    if not stop then
      return nil
    end
    local message = cjson.decode(said:sub(self.read, stop - 1))
    self.read = stop + 1
    if message and message.id == id then
      return message
    end
  end
end

--- Give a command and wait for its answer. Yields. Raises what the browser refuses.
-- @string method of the protocol, such as `Page.navigate`
-- @tparam[opt] table params
-- @treturn table
function Browser:call(method, params)
  self.id = self.id + 1
  self.input:write(cjson.encode({ id = self.id, method = method, params = params and next(params) and params or nil,
    sessionId = self.session }), "\0")
  self.input:flush()
  local deadline = task.now() + TIMEOUT
  local message = answer_to(self, self.id)
  while not message do
    assert(self.process:is_running(), "the browser has ended")
    assert(task.now() < deadline, "the browser does not answer " .. method)
    task.sleep(0.02)
    message = answer_to(self, self.id)
  end
  if message.error then
    error(method .. ": " .. message.error.message, 2)
  end
  return message.result
end

--- The value of an expression on the page. Yields.
-- @string script
function Browser:evaluate(script)
  local result = self:call("Runtime.evaluate", { expression = script, returnByValue = true })
  if result.exceptionDetails then
    error(script .. ": " .. result.exceptionDetails.text, 2)
  end
  return result.result.value
end

--- Open a page and wait until it is there. Yields.
-- @string url
function Browser:open(url)
  self:call("Page.navigate", { url = url })
  self:wait("document.readyState === 'complete' && location.href !== 'about:blank'")
end

--- Wait until an expression is true on the page. Yields.
-- @string script
function Browser:wait(script)
  local deadline = task.now() + TIMEOUT
  while not self:evaluate(script) do
    if task.now() > deadline then
      error(("waited in vain until %s; the page says: %s"):format(script, self:text()), 2)
    end
    task.sleep(0.1)
  end
end

--- What can be read on the page, with single spaces. Yields.
-- @treturn string
function Browser:text()
  return (self:evaluate("document.body.innerText"):gsub("%s+", " "))
end

--- End it. Yields.
function Browser:close()
  self.process:kill()
  self.process:wait(TIMEOUT)
  self.process:close()
  self.input:close()
end

--- Start a browser with an empty page. Yields.
-- @string dir an empty directory for what it keeps
-- @treturn Browser
function browser.start(dir)
  assert(process.run({ argv = { "mkfifo", dir .. "/commands" } }))
  -- Opened for both, so that it does not wait for the other end.
  local input = assert(io.open(dir .. "/commands", "r+"))
  local self = setmetatable({ input = input, id = 0, read = 1 }, Browser)
  self.process = assert(process.spawn({
    argv = { "sh", "-c", 'exec "$0" "$@" 3<"$HOME/commands" 4>&1 1>&2', browser.find(), "--headless=new", "--no-sandbox",
      "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" .. dir .. "/profile", "--remote-debugging-pipe" },
    env = { HOME = dir },
    max_output = 2 ^ 26,
  }))
  local target = self:call("Target.createTarget", { url = "about:blank" })
  self.session = self:call("Target.attachToTarget", { targetId = target.targetId, flatten = true }).sessionId
  return self
end

return browser
