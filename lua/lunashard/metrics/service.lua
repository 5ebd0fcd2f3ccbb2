--- What is measured of `lunashard serve` itself: its HTTP server and its jobs.
-- @module lunashard.metrics.service

local text = require("lunashard.metrics.text")

local service = {}

local function write_http(out, server)
  local counts, answers = server:counts(), server:answers()
  out:family("lunashard_http_requests_total", "counter", "Answers by path and status; other: there is no such path.")
  for _, one in ipairs(answers) do
    out:sample(text.labels("path", one.path, "status", one.status), one.count)
  end
  for _, one in ipairs({
    { "connections", "gauge", "Connections that are open.", counts.connections },
    { "streams", "gauge", "Clients that listen to events.", counts.streams },
    { "connections_total", "counter", "Connections that were taken.", counts.accepted },
    { "refused_total", "counter", "Connections turned away, for there were too many.", counts.refused },
    { "failures_total", "counter", "Connections for which there was no file descriptor.", counts.failures },
    { "timeouts_total", "counter", "Connections that were too slow.", counts.timeouts },
  }) do
    out:family("lunashard_http_" .. one[1], one[2], one[3])
    out:sample("", one[4])
  end
end

local JOBS = {
  { "runs_total", "counter", "How often the job was run.", "runs" },
  { "failures_total", "counter", "How often it did not end well.", "failures" },
  { "failures_in_a_row", "gauge", "How often since it last ended well.", "failures_in_a_row" },
  { "last_start_time_seconds", "gauge", "When it was last begun, in seconds since 1970.", "last_started" },
  { "last_duration_seconds", "gauge", "How long it took then.", "last_duration" },
}

local function write_jobs(out, jobs)
  for _, family in ipairs(JOBS) do
    out:family("lunashard_job_" .. family[1], family[2], family[3])
    for _, job in ipairs(jobs) do
      if job[family[4]] then
        out:sample(text.labels("name", job.name), job[family[4]])
      end
    end
  end
  out:family("lunashard_job_running", "gauge", "Is it run now?")
  for _, job in ipairs(jobs) do
    out:sample(text.labels("name", job.name), job.state == "running")
  end
end

--- Write them.
-- @tparam Writer out
-- @tparam table cluster with `http` and `jobs` where it is served
function service.write(out, cluster)
  if cluster.http then
    write_http(out, cluster.http)
  end
  local jobs = cluster.jobs and cluster.jobs:status() or {}
  if jobs[1] then
    write_jobs(out, jobs)
  end
end

return service
