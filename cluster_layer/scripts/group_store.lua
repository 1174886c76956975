-- Add members that the calling process does not serve itself, and tell the group's subscribers.
-- Begins with fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  sorted set: members added by other processes, by deadline (ms, shard's clock); a
--          tombstone has the negative of its own deadline
-- KEYS[3]  counter: position of the last publication on this shard
-- KEYS[4]  sorted set: the membership log, publications by position
-- ARGV[3]  pub/sub channel of the group
-- ARGV[4]  1: only where there is neither a member nor a tombstone, as a copy must; 0: always
-- ARGV[5+] for each member: its channel name, the membership's expiry in ms, and the control
--          envelope 'stored'
-- Reply    {position of the last control, or of the last publication before; members added}.
local position = tonumber(redis.call('GET', KEYS[3]) or 0)
local added = 0
local longest = 0
for i = 5, #ARGV, 3 do
    local ttl = tonumber(ARGV[i + 1])
    if ARGV[4] == '0' or not redis.call('ZSCORE', KEYS[2], ARGV[i]) then
        position = redis.call('INCR', KEYS[3])
        redis.call('ZADD', KEYS[2], now + ttl, ARGV[i])
        local entry = position .. ':' .. ARGV[i + 2]
        redis.call('ZADD', KEYS[4], position, entry)
        redis.call('PUBLISH', ARGV[3], entry)
        added = added + 1
        longest = math.max(longest, ttl)
    end
end
if added > 0 then
    redis.call('PEXPIRE', KEYS[3], 2592000000)
    redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -10001)
    for i = 2, 4, 2 do
        if redis.call('PTTL', KEYS[i]) < longest then
            redis.call('PEXPIRE', KEYS[i], longest)
        end
    end
end
-- Last: a script that has freed something is not refused any more when memory runs out.
redis.call('ZREMRANGEBYSCORE', KEYS[2], 0, now)
redis.call('ZREMRANGEBYSCORE', KEYS[2], -now, 0)
return {position, added}
