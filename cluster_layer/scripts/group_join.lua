-- The process that serves a member joins it: from now on its subscription carries the messages, so
-- a membership that another process has stored ends, at a position that its process can see.
-- KEYS[1]  sorted set: members added by other processes
-- KEYS[2]  counter: position of the last publication on this shard
-- KEYS[3]  sorted set: the membership log, publications by position
-- ARGV[1]  channel name of the member
-- ARGV[2]  pub/sub channel of the group
-- ARGV[3]  control envelope 'unstored'
-- ARGV[4]  how long a membership may last, ms
-- Reply    {1 if it was stored, position of the last publication}
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
    return {0, tonumber(redis.call('GET', KEYS[2]) or 0)}
end
local position = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], 2592000000)
local entry = position .. ':' .. ARGV[3]
redis.call('ZADD', KEYS[3], position, entry)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -10001)
if redis.call('PTTL', KEYS[3]) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', KEYS[3], ARGV[4])
end
redis.call('PUBLISH', ARGV[2], entry)
return {1, position}
