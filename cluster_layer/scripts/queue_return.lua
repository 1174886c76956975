-- Put messages back at the head of a queue: they were popped, and nobody was given them. Begins
-- with fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  list: the queue
-- ARGV[3]  expiry, ms: how long the queue's key must live at least
-- ARGV[4+] items, the oldest first, each '<ms that are left to it>:<envelope>': another shard, with
--          another clock, may have kept them before
-- Reply    how many were put back.
for i = #ARGV, 4, -1 do
    local colon = string.find(ARGV[i], ':', 1, true)
    local left = tonumber(string.sub(ARGV[i], 1, colon - 1))
    local deadline = string.format('%.0f', now + left)
    redis.call('LPUSH', KEYS[2], deadline .. string.sub(ARGV[i], colon))
end
if redis.call('PTTL', KEYS[2]) < ARGV[3] + 1000 then
    redis.call('PEXPIRE', KEYS[2], ARGV[3] + 1000)
end
return #ARGV - 3
