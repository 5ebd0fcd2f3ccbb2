local rebalance = require("lunashard.serve.page.rebalance")

describe("the page's part about rebalancing", function()
  local function job(fields)
    local told = { job_id = 3, group = "int8", planner = "follow", status = "running", open = true, progress_percent = 42,
      total_rows = 300000, rows_copied = 126000, total_migrated = 100000, duration_seconds = 12, moves_done = 5, moves_total = 12,
      rate = 10500, eta = 17, last_pause = 0.021, longest_pause = 0.043, backlog = 17, fences = {}, active = {} }
    for name, value in pairs(fields or {}) do
      told[name] = value
    end
    return told
  end

  local function shown(told, time)
    local fragment = rebalance.of({ rebalance = told, time = time or 1000 })
    return fragment and fragment.text:gsub("<[^>]+>", " "):gsub("\226\128\175", ""):gsub("%s+", " ")
  end

  it("is not there while nothing was ever moved, nor long after a job has ended", function()
    assert.is_nil(shown(nil))
    assert.is_nil(shown(job({ open = false, status = "completed", finished_at = 1000 }), 1000 + 3601))
    assert.is_string(shown(job({ open = false, status = "completed", finished_at = 1000 }), 1000 + 3599))
  end)

  it("says how far a job is, how fast, and how long statements waited", function()
    local text = shown(job())
    for _, part in ipairs({ "running", "job 3, group int8 , by follow", "rows 126000 of 300000", "moves 5 of 12",
      "rate 10.5k rows/s", "left 17 s", "last cutover 21 ms", "longest 43 ms", "backlog 17", "42%" }) do
      assert.truthy(text:find(part, 1, true), part .. " is not in " .. text)
    end
  end)

  it("lists the moves under way, and which of them have closed their buckets", function()
    local text = shown(job({ active = {
      { seq = 6, source = "s1", destination = "s4", state = "copying", buckets = 270, rows_estimated = 10000,
        rows_copied = 4000 },
      { seq = 7, source = "s2", destination = "s4", state = "fenced", buckets = 271, rows_estimated = 9000,
        rows_copied = 9000 },
    }, fences = { { shard_id = "s2", seq = 7, seconds = 0.012 } } }))
    assert.matches("6 s1 → s4 copying 270 4000", text)
    assert.matches("7 s2 → s4 fenced closed for 12 ms 271 9000", text)
  end)

  it("says which wave of a gradual job is moving or watched, and what its gates allow", function()
    local function at(fields)
      local list = { current = 2, total = 4, share = 5, state = "moving", soak = 60,
        gate = { error_rate = 0.01, p99_ms = 250, lag_seconds = 30 } }
      for name, value in pairs(fields or {}) do
        list[name] = value
      end
      return list
    end
    local function has(text, parts)
      for _, part in ipairs(parts) do
        assert.truthy(text:find(part, 1, true), part .. " is not in " .. text)
      end
    end
    has(shown(job({ waves = at() })), { "wave 2 of 4, up to 5 % it is moving error rate 1.00 % allowed p99 250 ms allowed" })
    has(shown(job({ waves = at({ state = "soaking", soaked = 12.3,
      reading = { error_rate = 0.0012, p99_ms = 12, lag_seconds = 0 } }) })), { "it is soaking, 12 of 60 s",
      "error rate 0.12 %, 1.00 % allowed", "p99 12 ms, 250 ms allowed", "replica lag 0.0 s, 30.0 s allowed" })
    local slow = { state = "soaking", soaked = 12.3, reading = { error_rate = 0, p99_ms = 310, lag_seconds = 0 },
      verdict = "the p99 of s2 is 310 ms, and the gate is 250 ms", gate = { p99_ms = 250 } }
    local text = shown(job({ waves = at(slow) }))
    has(text, { "p99 310 ms, only 250 ms allowed", "the p99 of s2 is 310 ms, and the gate is 250 ms" })
    assert.is_nil(text:find("lag", 1, true))
    slow.state = "reversing"
    has(shown(job({ waves = at(slow) })), { "it is moving back", "the p99 of s2 is 310 ms" })
    slow.state = "moving" -- it was told to go on
    assert.is_nil(shown(job({ waves = at(slow) })):find("the p99 of s2", 1, true))
    assert.is_nil(shown(job()):find("wave", 1, true))
    assert.is_nil(shown(job({ waves = at(), rolling_back = true })):find("wave", 1, true))
  end)

  it("says when nobody runs a job that is not over, and why one has failed", function()
    assert.truthy(shown(job({ interrupted = true })):find("interrupted: nobody runs it", 1, true))
    local text = shown(job({ status = "failed", error_message = "move 3: <disk> full" }))
    assert.matches("^ *failed", text)
    assert.truthy(text:find("move 3: &lt;disk&gt; full", 1, true))
    assert.truthy(shown(job({ rolling_back = true })):find("rolling back", 1, true))
  end)
end)
