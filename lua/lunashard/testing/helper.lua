--- Loaded by busted before the spec files: counts outcomes, checks for leaks after each test and file.
-- @module lunashard.testing.helper

local busted = require("busted")
local core = require("lunashard.core.task")
local testing = require("lunashard.testing")

local helper = {}

local counts = testing.counts
local before_test, before_file
local clusters_of_file, clusters_of_test

busted.subscribe({ "test", "end" }, function(_, _, status)
  counts[status] = counts[status] + 1
  return nil, true
end)

busted.subscribe({ "error" }, function(element)
  if element.descriptor ~= "it" then
    counts.error = counts.error + 1
  end
  return nil, true
end)

busted.subscribe({ "file", "start" }, function()
  before_file, clusters_of_file = core.counts(), testing.opened()
  return nil, true
end)

busted.subscribe({ "file", "end" }, function(file)
  testing.close_since(clusters_of_file)
  testing.check_leaks(before_file, file.name)
  return nil, true
end)

-- Those of the root run first and last: what a spec's own before_each makes and its after_each closes is no leak.
busted.before_each(function()
  before_test, clusters_of_test = core.counts(), testing.opened()
end)

busted.after_each(function()
  testing.close_since(clusters_of_test)
  testing.check_leaks(before_test, "the test")
end)

return helper
