-- Delete memberships that are leftovers of an earlier round. Begins with fence.lua: KEYS[1],
-- ARGV[1], ARGV[2].
-- KEYS[2+] sorted sets: members added by other processes
-- Reply    how many there were.
local cleaned = 0
for i = 2, #KEYS do
    cleaned = cleaned + redis.call('DEL', KEYS[i])
end
return cleaned
