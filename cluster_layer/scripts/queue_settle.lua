-- A batch that was set aside need not be kept any more, or goes back to its place in its queue.
-- Begins with fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  list: the queue
-- KEYS[3]  list: the batch, as in queue_take.lua
-- ARGV[3]  name of the batch; another one is left alone
-- ARGV[4]  1: give it back; 0: drop it
-- ARGV[5]  expiry, ms: how long the queue's key must live at least
-- Reply    how many messages the batch had; -1: there is no such batch.
local items = redis.call('LRANGE', KEYS[3], 0, -1)
if items[1] ~= ARGV[3] then
    return -1
end
local function deadline(item)
    return tonumber(string.match(item, '^(%d+):')) or 0
end
if ARGV[4] == '1' then
    -- Behind what is older, before what has been sent since.
    local newer = {}
    local last = redis.call('LINDEX', KEYS[2], -1)
    while last and deadline(last) > deadline(items[#items]) do
        newer[#newer + 1] = redis.call('RPOP', KEYS[2])
        last = redis.call('LINDEX', KEYS[2], -1)
    end
    for i = 2, #items do
        redis.call('RPUSH', KEYS[2], items[i])
    end
    for i = #newer, 1, -1 do
        redis.call('RPUSH', KEYS[2], newer[i])
    end
    if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[5]) then
        redis.call('PEXPIRE', KEYS[2], ARGV[5])
    end
end
redis.call('DEL', KEYS[3])
return #items - 1
