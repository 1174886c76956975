-- Write down what a process says of itself, and forget some that are gone.
-- KEYS[1]  hash: process id -> report
-- KEYS[2]  sorted set: process id, by the shard's time, in ms, of its latest report
-- ARGV[1]  process id
-- ARGV[2]  report
-- ARGV[3]  pub/sub channel of a process, without its id at the end
-- Reply    the shard's time, ms, as text.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now, ARGV[1])
for i = 1, 2 do
    redis.call('PEXPIRE', KEYS[i], 86400000)
end
local silent = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - 60000, 'LIMIT', 0, 8)
for _, process in ipairs(silent) do
    -- One that is stopped is silent, too, but its connection is there: an operator must see it.
    if redis.call('PUBSUB', 'NUMSUB', ARGV[3] .. process)[2] == 0 then
        redis.call('HDEL', KEYS[1], process)
        redis.call('ZREM', KEYS[2], process)
    else
        redis.call('ZADD', KEYS[2], 'XX', now - 59000, process)  -- look at it again later
    end
end
return now
