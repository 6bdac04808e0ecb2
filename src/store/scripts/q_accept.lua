-- q_accept, behind q_unblock: puts an item into a queue, once for each idempotency key.
-- KEYS     1 ready | 2 later | 3 open | 4 bytes | 5 the item | 6 its body, written before this in the same pipeline
--          7 its idempotency key | 8 its line | 9 what stands before an id in the key of an item
-- ARGV     1 id | 2 delay, ms | 3 most open items | 4 most bytes | 5 life of what is written, ms | 6 life of the
--          idempotency key, ms | 7 fingerprint | 8 head | 9 owner | 10 how long it is tried, ms | 11 1: it has a line
--          12 bytes of the body
-- reply    {0, now, due} | {1, items, bytes}: full | {2, id, same fingerprint 0|1, state, accepted, due}: known
local known = redis.call('GET', KEYS[7])
if known then
  local id, fingerprint = string.match(known, '^(%S+) (.*)$')
  id = id or ''
  local item = redis.call('HMGET', KEYS[9] .. id, 's', 't', 'd')
  -- The body of an item that lives is its own: the same id asks again when its answer was missed.
  if id ~= ARGV[1] or not item[1] or item[1] == 'k' or item[1] == 'c' then redis.call('UNLINK', KEYS[6]) end
  return {2, id, fingerprint == ARGV[7] and 1 or 0, item[1] or '', item[2] or '0', item[3] or '0'}
end
local items = redis.call('ZCARD', KEYS[3])
local bytes = tonumber(redis.call('GET', KEYS[4]) or '0') or 0
local length = tonumber(ARGV[12])
local counted = length + #ARGV[8]
if items >= tonumber(ARGV[3]) or bytes + counted > tonumber(ARGV[4]) then
  redis.call('UNLINK', KEYS[6])
  return {1, items, bytes}
end
if length > 0 and redis.call('EXISTS', KEYS[6]) == 0 then
  return redis.error_reply('ERR the body was lost before its item was queued')
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local delay = tonumber(ARGV[2])
local due, life = now + delay, tonumber(ARGV[5])
local text = function(number) return string.format('%.0f', number) end
redis.call('SET', KEYS[7], ARGV[1] .. ' ' .. ARGV[7], 'PX', ARGV[6])
local state, entry, line = 'w', '', ''
if ARGV[11] == '1' then line = KEYS[8] end
if line ~= '' then unblock(line, 9, 1, 2, now) end
if line ~= '' and redis.call('RPUSH', KEYS[8], ARGV[1]) > 1 then
  state = 'b'
elseif delay > 0 then
  redis.call('ZADD', KEYS[2], text(due), ARGV[1])
else
  entry = redis.call('XADD', KEYS[1], '*', 'i', ARGV[1], 'p', pad)
end
redis.call('HSET', KEYS[5], 's', state, 'a', 0, 'q', entry, 'f', 0, 'z', 0, 'h', ARGV[8], 'o', ARGV[9],
  'u', text(due + ARGV[10]), 'd', text(due), 't', text(now), 'l', line, 'y', counted, 'n', '', 'c', 0, 'e', '', 'x', '')
redis.call('PEXPIRE', KEYS[5], ARGV[5])
redis.call('ZADD', KEYS[3], text(now), ARGV[1])
local is_new = redis.call('INCRBY', KEYS[4], counted) == counted
-- Renewed and never shortened; GT does nothing on a key that has no end yet. For an hour more than is needed, so that
-- the next ones need not.
local renew = function(at, must)
  local left = redis.call('PTTL', KEYS[at])
  if left == -2 or left >= life and not must then return false end
  redis.call('PEXPIRE', KEYS[at], math.max(life + 3600000, left))
  return true
end
renew(1)
if renew(3, is_new) then renew(4, true) end
if line ~= '' then renew(8) end
if line ~= '' or delay > 0 then renew(2) end
return {0, text(now), text(due)}
