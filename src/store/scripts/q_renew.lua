-- q_renew: keeps a claim for another lease, if it is still the caller's.
-- KEYS     1 ready | 2 the item   ARGV  1 entry | 2 token
-- reply    0: somebody else has it | 1
local its = redis.call('HMGET', KEYS[2], 'a', 's')
if its[1] ~= ARGV[2] or its[2] ~= 'd' then return 0 end
-- Without the group nobody else has it yet either; it is found out when somebody takes it.
redis.pcall('XCLAIM', KEYS[1], 'g', 'gw', 0, ARGV[1], 'JUSTID')
return 1
