-- Bring a topology to a shard, unless it has this one or a newer one, and announce it.
-- KEYS[1]  string: the epoch that this shard serves
-- KEYS[2]  string: the encoded topology of that epoch
-- ARGV[1]  epoch
-- ARGV[2]  encoded topology
-- ARGV[3]  pub/sub channel of announcements
-- Reply    the epoch that this shard serves from now on, as text.
local served = redis.call('GET', KEYS[1])
if served and tonumber(served) >= tonumber(ARGV[1]) then
    return served
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', 2592000000)  -- whoever is connected extends both
redis.call('SET', KEYS[2], ARGV[2], 'PX', 2592000000)
redis.call('PUBLISH', ARGV[3], ARGV[1])
return ARGV[1]
