-- q_requeue, behind q_common: has a dead item tried again, as if new.
-- KEYS     as in q_common | 8 dead | 9 what stands before an id, a colon and a token in the key of an answer
-- ARGV     1 id | 2 how long it is tried, ms | 3 most open items | 4 most bytes | 5 life of what is written, ms
-- reply    {'', 0}: none | {state, 0}: it is not dead | {'x', 0}: the queue is full | {'x', 1}: it waits
local its = redis.call('HMGET', KEYS[5], 's', 'y', 'l', 'h', 'a')
if not its[1] then
  redis.call('ZREM', KEYS[8], ARGV[1])
  return {'', 0}
end
if its[1] ~= 'x' then return {its[1], 0} end
local length = tonumber(its[2])
if length > #its[4] and redis.call('EXISTS', KEYS[6]) == 0 then return {'', 0} end
local bytes = tonumber(redis.call('GET', KEYS[4]) or '0') or 0
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[3]) or bytes + length > tonumber(ARGV[4]) then return {'x', 0} end
redis.call('ZREM', KEYS[8], ARGV[1])
redis.call('UNLINK', KEYS[9] .. ARGV[1] .. ':' .. (its[5] or ''))
redis.call('ZADD', KEYS[3], text(now), ARGV[1])
redis.call('INCRBY', KEYS[4], length)
redis.call('HSET', KEYS[5], 'f', 0, 'z', 0, 'u', text(now + ARGV[2]), 'd', text(now), 'x', '')
redis.call('PEXPIRE', KEYS[5], ARGV[5])
redis.call('PEXPIRE', KEYS[6], ARGV[5])
touch(3, KEYS[5])
touch(4, KEYS[5])
local line = its[3] or ''
if line ~= '' then unblock(line, 7, 1, 2, now) end
if line ~= '' and redis.call('LINDEX', line, 0) == ARGV[1] then
  -- It has held its line, and is the first one of it.
  ready(ARGV[1], KEYS[5], now)
elseif line ~= '' and redis.call('RPUSH', line, ARGV[1]) > 1 then
  redis.call('HSET', KEYS[5], 's', 'b', 'q', '')
else
  ready(ARGV[1], KEYS[5], now)
end
if line ~= '' and redis.call('PTTL', line) < tonumber(ARGV[5]) then redis.call('PEXPIRE', line, ARGV[5]) end
return {'x', 1}
