-- Set the latest messages of a queue aside, on their way to another shard; or find those that
-- somebody set aside before and did not get through. Begins with fence.lua: KEYS[1], ARGV[1],
-- ARGV[2].
-- KEYS[2]  list: the queue
-- KEYS[3]  list: the batch; its first item is its name, the others are items of the queue
-- ARGV[3]  name of a new batch
-- ARGV[4]  how many messages at most; 0: only find
-- ARGV[5]  how long the batch must be kept, ms
-- Reply    {now, name, items as they were stored, the oldest first}; {now} if there is nothing.
--          `now` is the shard's time, ms, as text.
local clock = string.format('%.0f', now)
if redis.call('EXISTS', KEYS[3]) == 0 then
    -- From the end: batch by batch goes to the head of the other queue.
    local count = tonumber(ARGV[4])
    local items = count > 0 and redis.call('LRANGE', KEYS[2], -count, -1) or {}
    if #items == 0 then
        return {clock}
    end
    redis.call('RPUSH', KEYS[3], ARGV[3], unpack(items))
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
    redis.call('LTRIM', KEYS[2], 0, -(#items + 1))
end
local reply = redis.call('LRANGE', KEYS[3], 0, -1)
table.insert(reply, 1, clock)
return reply
