-- Take messages out of the queues of normal channels; whoever gets the reply owns them.
-- KEYS     lists: the queues
-- ARGV[i]  how many messages are wanted of KEYS[i]
-- Reply    {now, expired, {items of KEYS[1]}, {items of KEYS[2]}, ...}: the shard's time in ms as
--          text, how many expired items were dropped, and items as they were stored.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {string.format('%.0f', now), 0}
for i, key in ipairs(KEYS) do
    local wanted = tonumber(ARGV[i])
    local items = {}
    while #items < wanted do
        local item = redis.call('LPOP', key)
        if not item then
            break
        end
        local deadline = tonumber(string.match(item, '^(%d+):'))
        if deadline and deadline <= now then
            reply[2] = reply[2] + 1
        else
            items[#items + 1] = item
        end
    end
    reply[#reply + 1] = items
end
return reply
