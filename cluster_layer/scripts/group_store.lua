-- Add a member that the calling process does not serve itself, and tell the group's subscribers.
-- KEYS[1]  sorted set: members added by other processes, by deadline (ms, shard's clock)
-- KEYS[2]  counter: position of the last publication on this shard
-- KEYS[3]  sorted set: the membership log, publications by position
-- ARGV[1]  channel name of the member
-- ARGV[2]  the membership's expiry, ms
-- ARGV[3]  fence: the shard's time, ms, after which this write must not happen any more
-- ARGV[4]  pub/sub channel of the group
-- ARGV[5]  control envelope 'stored'
-- Reply    position of the control. Error LATE: refused by the fence.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[3]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
local ttl = tonumber(ARGV[2])
local position = redis.call('INCR', KEYS[2])
redis.call('PEXPIRE', KEYS[2], 2592000000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZADD', KEYS[1], now + ttl, ARGV[1])
local entry = position .. ':' .. ARGV[5]
redis.call('ZADD', KEYS[3], position, entry)
redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -10001)
for i = 1, 3, 2 do
    if redis.call('PTTL', KEYS[i]) < ttl then
        redis.call('PEXPIRE', KEYS[i], ttl)
    end
end
redis.call('PUBLISH', ARGV[4], entry)
return position
