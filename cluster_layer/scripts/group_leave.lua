-- Remove a member that another process serves; its process hears of it in order with the messages.
-- KEYS[1]  sorted set: members added by other processes
-- KEYS[2]  counter: position of the last publication on this shard
-- KEYS[3]  sorted set: the membership log, publications by position
-- ARGV[1]  channel name of the member
-- ARGV[2]  how long a membership may last, ms
-- ARGV[3]  pub/sub channel of the group
-- ARGV[4]  control envelope 'leave'
-- Reply    position of the control.
local ttl = tonumber(ARGV[2])
local position = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], 2592000000)
redis.call('ZREM', KEYS[1], ARGV[1])
local entry = position .. ':' .. ARGV[4]
redis.call('ZADD', KEYS[3], position, entry)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -10001)
if redis.call('PTTL', KEYS[3]) < ttl then
    redis.call('PEXPIRE', KEYS[3], ttl)
end
redis.call('PUBLISH', ARGV[3], entry)
return position
