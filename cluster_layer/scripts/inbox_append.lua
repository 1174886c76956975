-- Append a message to the inbox of a process.
-- KEYS[1]  stream: the inbox
-- KEYS[2]  counter: position of the last entry in any inbox on this shard
-- ARGV[1]  capacity: messages that may wait
-- ARGV[2]  the message's expiry, ms
-- ARGV[3]  fence: the shard's time, ms, after which this write must not happen any more
-- ARGV[4]  envelope
-- Reply    {1, position, expired}: appended; {0, depth, expired}: full. `expired` entries were
--          dropped to make room. Error LATE: refused by the fence.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[3]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
local capacity = tonumber(ARGV[1])
local depth = redis.call('XLEN', KEYS[1])
local expired = 0
if depth >= capacity then
    -- Entry ids begin with the shard's time, so the expired ones are a prefix.
    local oldest = string.format('%.0f', now - tonumber(ARGV[2]))
    expired = redis.call('XTRIM', KEYS[1], 'MINID', oldest)
    depth = depth - expired
    if depth >= capacity then
        return {0, depth, expired}
    end
end
-- Ids of different streams have no order within a millisecond; positions have.
local position = redis.call('INCR', KEYS[2])
if position == 1 then
    redis.call('PEXPIRE', KEYS[2], 2592000000)  -- whoever is connected extends it
end
redis.call('XADD', KEYS[1], '*', 'm', ARGV[4], 'p', position)
redis.call('PEXPIRE', KEYS[1], ARGV[2] + 60000)
return {1, position, expired}
