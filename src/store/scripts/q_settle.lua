-- q_settle, behind q_common and q_follow: writes how a delivery ended, if the claim is still the caller's. What is done
-- and has nothing that follows names the first keys and arguments alone, for the reason that q_accept gives.
-- KEYS     as in q_common | 8 the answer, where one was written | 9 dead | 10 what stands before an id in the key of a
--          body | and 9 for each item that follows
-- ARGV     1 entry | 2 id | 3 token | 4 k done, x dead, r again, w given back | 5 status | 6 life of the record, ms
--          7 error | 8 delay, ms | 9 1: it counts as a failure | 10 most dead items | 11 1: a dead one holds its line
--          12 how many items follow | and 9 for each of these
-- reply    {0, 0, 0}: somebody else has it | {1, how many dead ones gave way, how many items followed}
local its = redis.call('HMGET', KEYS[5], 'a', 's', 'q', 'y', 'l', 'f', 'h')
if its[1] ~= ARGV[3] then
  if KEYS[8] then redis.call('UNLINK', KEYS[8]) end
  return {0, 0, 0}
end
-- The same claim has been settled: the answer was missed, and it is asked again.
if its[2] ~= 'd' then return {1, 0, 0} end
local id, line = ARGV[2], its[5] or ''
-- Nobody else has this token, also where the entry was lost and put back.
drop(ARGV[1])
if its[3] ~= ARGV[1] and its[3] ~= '' then drop(its[3]) end
local outcome, due = ARGV[4], now + (ARGV[8] or 0)
if ARGV[9] == '1' then redis.call('HSET', KEYS[5], 'f', (its[6] or 0) + 1) end
if outcome == 'r' or outcome == 'w' then
  redis.call('HSET', KEYS[5], 'd', text(due), 'c', ARGV[5], 'e', ARGV[7])
  ready(id, KEYS[5], due)
  if outcome == 'r' and due > now then redis.call('HSET', KEYS[5], 's', 'r') end
  return {1, 0, 0}
end
if outcome == 'k' then
  redis.call('HSET', KEYS[5], 's', 'k', 'x', text(now), 'q', '', 'c', ARGV[5], 'e', ARGV[7], 'h', '',
    'y', its[4] - #its[7])
else
  redis.call('HSET', KEYS[5], 's', outcome, 'x', text(now), 'q', '', 'c', ARGV[5], 'e', ARGV[7])
end
redis.call('PEXPIRE', KEYS[5], ARGV[6])
close(id, its[4])
if outcome == 'k' or ARGV[11] ~= '1' then leave(line, id) end
local followed = 0
for n = 0, (ARGV[12] or 0) - 1 do followed = followed + follow(11 + 9 * n, 13 + 9 * n, line) end
if outcome == 'k' then
  redis.call('UNLINK', KEYS[6])
  return {1, 0, followed}
end
redis.call('PEXPIRE', KEYS[6], ARGV[6])
redis.call('ZADD', KEYS[9], text(now), id)
-- What died before that is over, also where it was to be kept for longer then: it holds no line any more.
for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[9], '-inf', text(now - ARGV[6]), 'LIMIT', 0, 100)) do
  forget(over, 9, 10)
end
if redis.call('PTTL', KEYS[9]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[9], ARGV[6]) end
local dropped = math.min(redis.call('ZCARD', KEYS[9]) - ARGV[10], 100)
if dropped <= 0 then return {1, 0, followed} end
for _, oldest in ipairs(redis.call('ZRANGE', KEYS[9], 0, dropped - 1)) do
  forget(oldest, 9, 10)
end
return {1, dropped, followed}
