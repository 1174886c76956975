-- Put messages back at the head of a queue: they were popped, and nobody was given them.
-- KEYS[1]  list: the queue
-- ARGV[1]  fence: the shard's time, ms, after which this write must not happen any more
-- ARGV[2]  expiry, ms: how long the queue's key must live at least
-- ARGV[3+] items as they were stored, the oldest first
-- Reply    how many were put back. Error LATE: refused by the fence.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[1]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
for i = #ARGV, 3, -1 do
    redis.call('LPUSH', KEYS[1], ARGV[i])
end
if redis.call('PTTL', KEYS[1]) < ARGV[2] + 1000 then
    redis.call('PEXPIRE', KEYS[1], ARGV[2] + 1000)
end
return #ARGV - 2
