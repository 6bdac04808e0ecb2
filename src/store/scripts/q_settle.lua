-- q_settle, behind q_common and q_follow: writes how a delivery ended, if the claim is still the caller's.
-- KEYS     as in q_common | 8 dead | 9 the answer | 10 what stands before an id in the key of a body | and 9 for each
--          item that follows
-- ARGV     1 entry | 2 id | 3 token | 4 k done, x dead, r again, w given back | 5 delay, ms | 6 status | 7 error
--          8 life of the record, ms | 9 most dead items | 10 1: it counts as a failure | 11 1: a dead one holds
--          its line | 12 how many items follow | and 9 for each of these
-- reply    {0, 0, 0}: somebody else has it | {1, how many dead ones gave way, how many items followed}
local its = redis.call('HMGET', KEYS[5], 'a', 's', 'q', 'y', 'l', 'f', 'h')
if its[1] ~= ARGV[3] then
  redis.call('UNLINK', KEYS[9])
  return {0, 0, 0}
end
-- The same claim has been settled: the answer was missed, and it is asked again.
if its[2] ~= 'd' then return {1, 0, 0} end
local id, line = ARGV[2], its[5] or ''
-- Nobody else has this token, also where the entry was lost and put back.
drop(ARGV[1])
if its[3] ~= ARGV[1] and its[3] ~= '' then drop(its[3]) end
local outcome, due = ARGV[4], now + ARGV[5]
if ARGV[10] == '1' then redis.call('HSET', KEYS[5], 'f', (its[6] or 0) + 1) end
if outcome == 'r' or outcome == 'w' then
  redis.call('HSET', KEYS[5], 'd', text(due), 'c', ARGV[6], 'e', ARGV[7])
  ready(id, KEYS[5], due)
  if outcome == 'r' and due > now then redis.call('HSET', KEYS[5], 's', 'r') end
  return {1, 0, 0}
end
if outcome == 'k' then
  redis.call('HSET', KEYS[5], 's', 'k', 'x', text(now), 'q', '', 'c', ARGV[6], 'e', ARGV[7], 'h', '',
    'y', its[4] - #its[7])
else
  redis.call('HSET', KEYS[5], 's', outcome, 'x', text(now), 'q', '', 'c', ARGV[6], 'e', ARGV[7])
end
redis.call('PEXPIRE', KEYS[5], ARGV[8])
close(id, its[4])
if outcome == 'k' or ARGV[11] ~= '1' then leave(line, id) end
local followed = 0
for n = 0, ARGV[12] - 1 do followed = followed + follow(11 + 9 * n, 13 + 9 * n, line) end
if outcome == 'k' then
  redis.call('UNLINK', KEYS[6])
  return {1, 0, followed}
end
redis.call('PEXPIRE', KEYS[6], ARGV[8])
redis.call('ZADD', KEYS[8], text(now), id)
-- What died before that is over, also where it was to be kept for longer then: it holds no line any more.
for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[8], '-inf', text(now - ARGV[8]), 'LIMIT', 0, 100)) do
  forget(over, 8, 10)
end
if redis.call('PTTL', KEYS[8]) < tonumber(ARGV[8]) then redis.call('PEXPIRE', KEYS[8], ARGV[8]) end
local dropped = math.min(redis.call('ZCARD', KEYS[8]) - ARGV[9], 100)
if dropped <= 0 then return {1, 0, followed} end
for _, oldest in ipairs(redis.call('ZRANGE', KEYS[8], 0, dropped - 1)) do
  forget(oldest, 8, 10)
end
return {1, dropped, followed}
