local back = require("lunashard.rebalancer.back")
local job = require("lunashard.rebalancer.job")

local function row_of(status, moves, more)
  local row = { id = 7, grp = "int8", kind = "follow", strategy = "live_migration", status = status, options = {}, moves = {},
    duration_seconds = 10, held = true }
  for i, move in ipairs(moves) do
    row.moves[i] = { seq = i, source = move[1], destination = move[2], buckets = move[3], state = move[4],
      rows_estimated = move[5] or 100, rows_copied = move[6] or 0, bytes = 1000, pause_seconds = move[7],
      finished_at = move[8] }
  end
  for name, value in pairs(more or {}) do
    row[name] = value
  end
  return row
end

describe("the state of a job", function()
  it("counts rows that have changed hands, and those that are on their way", function()
    local told = job.describe(row_of("running", {
      { "a", "d", { "1" }, "done", 100, 120, 0.02, 1000 },
      { "a", "d", { "2" }, "merged", 100, 100, 0.05 },
      { "b", "d", { "3" }, "copying", 100, 40 },
      { "b", "d", { "4" }, "planned" },
    }))
    assert.equal(220, told.total_migrated)
    assert.equal(260, told.rows_copied)
    assert.equal(420, told.total_rows)
    assert.equal(26, told.rate)
    assert.is_true(math.abs(told.eta - 160 / 26) < 1e-9)
    assert.is_true(math.abs(told.progress_percent - 260 / 4.2) < 1e-9)
    assert.same({ done = 1, merged = 1, copying = 1, planned = 1 }, told.moves)
    assert.same({ 1, 4, 2 }, { told.moves_done, told.moves_total, #told.active })
    assert.same({ 0.05, 0.05 }, { told.last_pause, told.longest_pause })
  end)

  it("is never complete before the job has ended, and always then", function()
    local moves = { { "a", "d", { "1" }, "done", 100, 100 }, { "a", "d", { "2" }, "flipped", 100, 100 } }
    assert.equal(99.9, job.describe(row_of("running", moves)).progress_percent)
    assert.equal(100, job.describe(row_of("completed", moves)).progress_percent)
    assert.equal(100, job.describe(row_of("completed", {})).progress_percent)
  end)

  it("goes by moves where there are no rows", function()
    local told = job.describe(row_of("running", { { "a", "d", { "1" }, "done", 0 }, { "a", "d", { "2" }, "planned", 0 } }))
    assert.equal(50, told.progress_percent)
    assert.is_nil(told.eta)
  end)

  it("says when a job is running and nobody runs it", function()
    local moves = { { "a", "d", { "1" }, "copying", 100, 40 } }
    assert.is_true(job.describe(row_of("running", moves, { held = false })).interrupted)
    assert.is_nil(job.describe(row_of("paused", moves, { held = false })).interrupted)
    assert.is_nil(job.describe(row_of("running", moves)).interrupted)
  end)
end)

describe("the way back", function()
  it("undoes what is done, the last first, and nothing else", function()
    local row = row_of("cancelled", {
      { "a", "d", { "1", "2" }, "done", 100, 90 },
      { "b", "d", { "3" }, "done", 100, 50 },
      { "c", "d", { "4" }, "aborted" },
    })
    assert.same({
      { seq = 4, source = "d", destination = "b", buckets = { "3" }, rows = 50, bytes = 1000 },
      { seq = 5, source = "d", destination = "a", buckets = { "1", "2" }, rows = 90, bytes = 1000 },
    }, back.moves(row.moves))
  end)

  it("goes on from where an earlier one was left", function()
    local row = row_of("failed", {
      { "a", "d", { "1", "2" }, "done", 100, 90 },
      { "b", "d", { "3" }, "done", 100, 50 },
      { "d", "b", { "3" }, "done", 50, 50 },
      { "d", "a", { "1", "2" }, "aborted", 90 },
    })
    assert.same({ { seq = 5, source = "d", destination = "a", buckets = { "1", "2" }, rows = 90, bytes = 1000 } },
      back.moves(row.moves))
  end)

  it("is empty when all is back", function()
    local row = row_of("rolled_back", { { "a", "d", { "1" }, "done" }, { "d", "a", { "1" }, "done" } })
    assert.same({}, back.moves(row.moves))
  end)
end)
