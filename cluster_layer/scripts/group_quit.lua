-- The process that serves a member has removed it: nobody else may go on serving it. Begins with
-- fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  sorted set: members added by other processes
-- ARGV[3]  channel name of the member
-- ARGV[4]  how long a membership may last, ms
-- ARGV[5]  1: leave a tombstone, for a copy of memberships may come; 0: nothing
-- Reply    1 if another process had stored it.
local ttl = tonumber(ARGV[4])
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if ARGV[5] == '1' then
    redis.call('ZADD', KEYS[2], -(now + ttl), ARGV[3])
    if redis.call('PTTL', KEYS[2]) < ttl then
        redis.call('PEXPIRE', KEYS[2], ttl)
    end
elseif score then
    redis.call('ZREM', KEYS[2], ARGV[3])
end
return (score and tonumber(score) > 0) and 1 or 0
