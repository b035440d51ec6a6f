-- wrk: each thread its own server of the environment's TARGETS, and the results as one line of JSON.
local threads = 0
local targets = {}
for target in string.gmatch(os.getenv("TARGETS"), "%S+") do
   targets[#targets + 1] = target
end

function setup(thread)
   local host, port = string.match(targets[threads % #targets + 1], "(.*):(%d+)")
   thread.addr = wrk.lookup(host, port)[1]
   threads = threads + 1
end

-- With a PACE, each connection rests for half to one and a half times so many ms before a request.
local pace = tonumber(os.getenv("PACE"))
if pace then
   function delay()
      return math.random(math.floor(pace / 2), math.ceil(pace * 3 / 2))
   end
end

function done(summary, latency, requests)
   local errors = summary.errors
   local points = {}
   for point in string.gmatch(os.getenv("PERCENTILES"), "%S+") do
      points[#points + 1] = latency:percentile(tonumber(point))
   end
   io.write(string.format(
      '{"requests":%d,"microseconds":%d,"connect":%d,"read":%d,"write":%d,"status":%d,' ..
      '"timeout":%d,"latency":[%s]}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write,
      errors.status, errors.timeout, table.concat(points, ",")))
end
