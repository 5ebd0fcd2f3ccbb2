local progress = require("lunashard.repl.progress")

describe("a job's progress", function()
  it("is told at its end and every ten percent, and not what was so before", function()
    local told = {}
    local session = {
      notice = function(text)
        told[#told + 1] = text
      end,
    }
    local function job(status, percent, problem)
      progress.tell(session, { job_id = 7, status = status, progress_percent = percent, moves_done = 1, moves_total = 4,
        error_message = problem })
    end
    job("running", 5)
    job("running", 9)
    assert.same({}, told)
    job("running", 12.4)
    job("running", 19)
    job("failed", 19, "no room")
    assert.same({ "job 7: running, 12 %, 1 of 4 moves done", "job 7: failed, 19 %, 1 of 4 moves done: no room" }, told)
  end)
end)
