-- Append a message to the queue of a normal channel. Begins with fence.lua: KEYS[1], ARGV[1],
-- ARGV[2].
-- KEYS[2]  list: the queue; its items are '<deadline, ms, shard clock>:<envelope>'
-- ARGV[3]  capacity: messages that may wait
-- ARGV[4]  the message's expiry, ms
-- ARGV[5]  envelope
-- Reply    {1, 0, expired}: appended; {0, depth, expired}: full. `expired` items were dropped to
--          make room.
local capacity = tonumber(ARGV[3])
local ttl = tonumber(ARGV[4])
local depth = redis.call('LLEN', KEYS[2])
local expired = 0
while depth >= capacity do
    local deadline = tonumber(string.match(redis.call('LINDEX', KEYS[2], 0), '^(%d+):'))
    if deadline and deadline > now then
        return {0, depth, expired}
    end
    redis.call('LPOP', KEYS[2])
    depth = depth - 1
    expired = expired + 1
end
redis.call('RPUSH', KEYS[2], string.format('%.0f:', now + ttl) .. ARGV[5])
if redis.call('PTTL', KEYS[2]) < ttl + 1000 then
    redis.call('PEXPIRE', KEYS[2], ttl + 1000)
end
return {1, 0, expired}
