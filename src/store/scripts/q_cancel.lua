-- q_cancel, behind q_common: takes an item out of its queue before it is delivered.
-- KEYS     as in q_common   ARGV  1 id | 2 life of the record, ms
-- reply    the state it was in, or '' for none
local its = redis.call('HMGET', KEYS[5], 's', 'q', 'y', 'l', 'h')
if not its[1] then return '' end
if its[1] ~= 'w' and its[1] ~= 'b' and its[1] ~= 'r' then return its[1] end
if its[2] ~= '' then drop(its[2]) end
redis.call('ZREM', KEYS[2], ARGV[1])
close(ARGV[1], its[3])
redis.call('UNLINK', KEYS[6])
redis.call('HSET', KEYS[5], 's', 'c', 'x', text(now), 'q', '', 'h', '', 'y', its[3] - #its[5])
redis.call('PEXPIRE', KEYS[5], ARGV[2])
leave(its[4] or '', ARGV[1])
return its[1]
