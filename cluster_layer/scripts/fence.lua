-- The beginning of every script that writes: refuse what comes too late, or to the wrong shard.
-- KEYS[1]  string: the epoch that this shard serves
-- ARGV[1]  fence: the shard's time, ms, from which on this write must not happen any more
-- ARGV[2]  epoch of the topology by which the writer chose this shard
-- Errors   STALE <epoch>: this shard serves a newer topology; AHEAD: it serves an older one, or
--          none; LATE: refused by the fence. Nothing was executed.
-- Gives the script `now`, the shard's time in ms.
-- Who is ahead brings the topology first: else what is done here for the round before, by somebody
-- who is late, could still come after this write.
local served = redis.call('GET', KEYS[1])
if served ~= ARGV[2] then
    if served and tonumber(served) > tonumber(ARGV[2]) then
        return redis.error_reply('STALE ' .. served)
    end
    return redis.error_reply('AHEAD of what this shard serves')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now >= tonumber(ARGV[1]) then
    return redis.error_reply('LATE the write arrived after its deadline')
end
