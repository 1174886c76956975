-- Ask all subscribers of a group for the members that they serve, and name the others. Begins with
-- fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  sorted set: members added by other processes, by deadline (ms, shard's clock)
-- KEYS[3]  counter: position of the last publication on this shard
-- ARGV[3]  pub/sub channel of the group
-- ARGV[4]  control envelope 'who'
-- Reply    {subscribers, member, member, ...}: how many will answer, and the stored members.
-- It bears the position of what was published last, and is no publication itself: whoever misses a
-- question has missed nothing. The answers and the stored members together are exactly those whom
-- the next message would reach.
local position = redis.call('GET', KEYS[3]) or '0'
local reply = {0}
local members = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    if tonumber(members[i + 1]) > now then
        reply[#reply + 1] = members[i]
    end
end
reply[1] = redis.call('PUBLISH', ARGV[3], position .. ':' .. ARGV[4])
return reply
