-- q_forget: has an idempotency key stand for nothing again, if it stands for this item.
-- KEYS     1 the idempotency key
-- ARGV     1 id of the item
-- reply    1: it stood for it | 0
local known = redis.call('GET', KEYS[1])
if not known or string.match(known, '^(%S+) ') ~= ARGV[1] then return 0 end
return redis.call('UNLINK', KEYS[1])
