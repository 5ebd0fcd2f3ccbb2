--- The table of chaos runs: a line for each figure, a column for each run.
-- @module spec.chaos.report

local verdict = require("spec.chaos.verdict")

local function percentile(sorted, share)
  return ("%.0f ms"):format((sorted[math.max(1, math.ceil(#sorted * share))] or 0) * 1000)
end

local function of_pauses(share)
  return function(result)
    local sorted = { unpack(result.pauses or {}) }
    table.sort(sorted)
    return percentile(sorted, share)
  end
end

local function of_verdict(name)
  return function(result)
    return result.found and (result.found[name] or result.found.counts[name]) or "failed"
  end
end

local function of_options(name)
  return function(result)
    return result.options[name]
  end
end

local LINES = {
  { "seed", of_options("seed") }, { "strategy", of_options("strategy") }, { "shape", of_options("shape") },
  { "jobs", function(result) return result.jobs or "failed" end },
  { "moves done", function(result) return result.moves or "failed" end },
  { "faults", function(result) return result.faults end },
  { "acknowledged writes", of_verdict("acknowledged") }, { "unknown outcomes", of_verdict("unknown") },
  { "refused", of_verdict("failed") }, { "reads", of_verdict("reads") },
}
for _, name in ipairs(verdict.COLUMNS) do
  LINES[#LINES + 1] = { name:gsub("_", " "), of_verdict(name) }
end
for _, one in ipairs({ { "pause p50", 0.5 }, { "pause p95", 0.95 }, { "pause p99", 0.99 }, { "longest pause", 1 } }) do
  LINES[#LINES + 1] = { one[1], of_pauses(one[2]) }
end

--- @tparam {table,...} results each with `options`, `faults`, and `failed` or `found`, `jobs`, `moves`, `pauses`
-- @treturn string
return function(results)
  local lines = {}
  for _, line in ipairs(LINES) do
    local cells = { ("%-20s"):format(line[1]) }
    for _, result in ipairs(results) do
      cells[#cells + 1] = (" %15s"):format(tostring(line[2](result)))
    end
    lines[#lines + 1] = table.concat(cells)
  end
  for _, result in ipairs(results) do
    for _, text in ipairs(result.failed and { result.failed } or result.found.told) do
      lines[#lines + 1] = ("  seed %d: %s"):format(result.options.seed, text)
    end
  end
  return table.concat(lines, "\n") .. "\n"
end
