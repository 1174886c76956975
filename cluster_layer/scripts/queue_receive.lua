-- Take in a batch of messages from a queue's old home, once. Begins with fence.lua: KEYS[1],
-- ARGV[1], ARGV[2].
-- KEYS[2]  list: the queue
-- KEYS[3]  string: the receipt of this batch
-- ARGV[3]  how long the receipt must be kept, ms
-- ARGV[4+] items, the oldest first, each '<ms that are left to it>:<envelope>'
-- Reply    1 if it was taken in, 0 if it had been before. Without items it only asks, and from then
--          on the batch counts as taken in.
if not redis.call('SET', KEYS[3], '1', 'NX', 'PX', ARGV[3]) then
    return 0
end
local longest = 0
for i = #ARGV, 4, -1 do
    local colon = string.find(ARGV[i], ':', 1, true)
    local left = tonumber(string.sub(ARGV[i], 1, colon - 1))
    local deadline = string.format('%.0f', now + left)
    redis.call('LPUSH', KEYS[2], deadline .. string.sub(ARGV[i], colon))
    longest = math.max(longest, left)
end
if #ARGV > 3 and redis.call('PTTL', KEYS[2]) < longest + 1000 then
    redis.call('PEXPIRE', KEYS[2], longest + 1000)
end
return 1
