-- Append messages to the inbox of a process. Begins with fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  stream: the inbox
-- KEYS[3]  counter: position of the last entry in any inbox on this shard
-- ARGV[3]  capacity: messages that may wait
-- ARGV[4]  the messages' expiry, ms
-- ARGV[5]  envelope; more may follow
-- Reply    {n, position, expired}: the first n are appended, the last of them at this position;
--          {0, depth, expired}: full. `expired` entries were dropped to make room.
local capacity = tonumber(ARGV[3])
local count = #ARGV - 4
local depth = redis.call('XLEN', KEYS[2])
local expired = 0
if depth + count > capacity then
    -- Entry ids begin with the shard's time, so the expired ones are a prefix.
    local oldest = string.format('%.0f', now - tonumber(ARGV[4]))
    expired = redis.call('XTRIM', KEYS[2], 'MINID', oldest)
    depth = depth - expired
    if depth >= capacity then
        return {0, depth, expired}
    end
    count = math.min(count, capacity - depth)
end
-- Ids of different streams have no order within a millisecond; positions have.
local position = redis.call('INCRBY', KEYS[3], count)
local before = position - count
if before == 0 then
    redis.call('PEXPIRE', KEYS[3], 2592000000)  -- whoever is connected extends it
end
for number = 1, count do
    redis.call('XADD', KEYS[2], '*', 'm', ARGV[4 + number], 'p', before + number)
end
redis.call('PEXPIRE', KEYS[2], ARGV[4] + 60000)
return {count, position, expired}
