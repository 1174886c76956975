-- Set the latest messages of a queue aside, on their way to another shard; or find those that
-- somebody set aside before and did not get through.
-- KEYS[1]  list: the queue
-- KEYS[2]  list: the batch; its first item is its name, the others are items of the queue
-- ARGV[1]  name of a new batch
-- ARGV[2]  how many messages at most
-- ARGV[3]  how long the batch must be kept, ms
-- Reply    {the shard's time, ms, as text; name; items as they were stored, the oldest first}; the
--          time alone if there is nothing.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('EXISTS', KEYS[2]) == 0 then
    -- From the end: batch by batch goes to the head of the other queue.
    local items = redis.call('LRANGE', KEYS[1], -ARGV[2], -1)
    if #items == 0 then
        return {now}
    end
    redis.call('LTRIM', KEYS[1], 0, -(#items + 1))
    redis.call('RPUSH', KEYS[2], ARGV[1], unpack(items))
    redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
local reply = redis.call('LRANGE', KEYS[2], 0, -1)
table.insert(reply, 1, now)
return reply
