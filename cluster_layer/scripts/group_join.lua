-- The process that serves a member joins it: from now on its subscription carries the messages, so
-- a membership that another process has stored ends, at a position that its process can see. Begins
-- with fence.lua: KEYS[1], ARGV[1], ARGV[2].
-- KEYS[2]  sorted set: members added by other processes
-- KEYS[3]  counter: position of the last publication on this shard
-- KEYS[4]  sorted set: the membership log, publications by position
-- ARGV[3]  channel name of the member
-- ARGV[4]  how long a membership may last, ms
-- ARGV[5]  pub/sub channel of the group
-- ARGV[6]  control envelope 'unstored'
-- ARGV[7]  1: leave a tombstone, for a copy of memberships may come; 0: nothing
-- Reply    {1 if it was stored, position of the last publication}
local ttl = tonumber(ARGV[4])
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if ARGV[7] == '1' then
    redis.call('ZADD', KEYS[2], -(now + ttl), ARGV[3])
    if redis.call('PTTL', KEYS[2]) < ttl then
        redis.call('PEXPIRE', KEYS[2], ttl)
    end
elseif score then
    redis.call('ZREM', KEYS[2], ARGV[3])
end
if not score or tonumber(score) < 0 then
    return {0, tonumber(redis.call('GET', KEYS[3]) or 0)}
end
local position = redis.call('INCR', KEYS[3])
redis.call('PEXPIRE', KEYS[3], 2592000000)
local entry = position .. ':' .. ARGV[6]
redis.call('ZADD', KEYS[4], position, entry)
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -10001)
if redis.call('PTTL', KEYS[4]) < ttl then
    redis.call('PEXPIRE', KEYS[4], ttl)
end
redis.call('PUBLISH', ARGV[5], entry)
return {1, position}
