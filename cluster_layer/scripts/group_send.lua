-- Publish a group's message and name the members that its subscribers do not serve. Begins with
-- fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  sorted set: members added by other processes, by deadline (ms, shard's clock)
-- KEYS[3]  counter: position of the last publication on this shard
-- ARGV[3]  pub/sub channel of the group
-- ARGV[4]  envelope
-- Reply    {position, member, member, ...}.
-- One script, so that no member can be stored between the look at the members and the PUBLISH: such
-- a member's process would get the message twice, or not at all.
local position = redis.call('INCR', KEYS[3])
if position == 1 then
    redis.call('PEXPIRE', KEYS[3], 2592000000)  -- whoever is connected extends it
end
local reply = {position}
local members = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for i = 1, #members, 2 do
    if tonumber(members[i + 1]) > now then
        reply[#reply + 1] = members[i]
    end
end
redis.call('PUBLISH', ARGV[3], position .. ':' .. ARGV[4])
return reply
