-- Publish a group's message and name the members that its subscribers do not serve.
-- KEYS[1]  sorted set: members added by other processes, by deadline (ms, shard's clock)
-- KEYS[2]  counter: position of the last publication on this shard
-- ARGV[1]  pub/sub channel of the group
-- ARGV[2]  envelope
-- ARGV[3]  fence: the shard's time, ms, after which this write must not happen any more
-- Reply    {position, member, member, ...}. Error LATE: refused by the fence.
-- One script, so that no member can be stored between the look at the members and the PUBLISH: such
-- a member's process would get the message twice, or not at all.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[3]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
local position = redis.call('INCR', KEYS[2])
if position == 1 then
    redis.call('PEXPIRE', KEYS[2], 2592000000)  -- whoever is connected extends it
end
local reply = {position}
local members = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    if tonumber(members[i + 1]) > now then
        reply[#reply + 1] = members[i]
    end
end
redis.call('PUBLISH', ARGV[1], position .. ':' .. ARGV[2])
return reply
