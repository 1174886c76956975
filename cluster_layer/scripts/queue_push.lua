-- Append a message to the queue of a normal channel.
-- KEYS[1]  list: the queue; its items are '<deadline, ms, shard clock>:<envelope>'
-- ARGV[1]  capacity: messages that may wait
-- ARGV[2]  the message's expiry, ms
-- ARGV[3]  fence: the shard's time, ms, after which this write must not happen any more
-- ARGV[4]  envelope
-- Reply    {1, 0, expired}: appended; {0, depth, expired}: full. `expired` items were dropped to
--          make room. Error LATE: refused by the fence.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[3]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
local capacity = tonumber(ARGV[1])
local ttl = tonumber(ARGV[2])
local depth = redis.call('LLEN', KEYS[1])
local expired = 0
while depth >= capacity do
    local deadline = tonumber(string.match(redis.call('LINDEX', KEYS[1], 0), '^(%d+):'))
    if deadline and deadline > now then
        return {0, depth, expired}
    end
    redis.call('LPOP', KEYS[1])
    depth = depth - 1
    expired = expired + 1
end
redis.call('RPUSH', KEYS[1], string.format('%.0f:', now + ttl) .. ARGV[4])
if redis.call('PTTL', KEYS[1]) < ttl + 1000 then
    redis.call('PEXPIRE', KEYS[1], ttl + 1000)
end
return {1, 0, expired}
