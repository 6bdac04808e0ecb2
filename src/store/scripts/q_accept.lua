-- q_accept, behind q_unblock: puts an item into a queue, once for each idempotency key. Redis makes a string of each key
-- and argument, and that is a fifth of what an accept costs it: so there are few, and what is seldom named comes last.
-- KEYS     1 ready | 2 later | 3 open | 4 bytes | 5 the item | 6 its body, written before this in the same pipeline
--          7 what stands before an id in the key of an item | 8 its idempotency key, where there is one or a line
--          9 its line, where it has one
-- ARGV     1 id | 2 delay, ms | 3 most open items | 4 most bytes | 5 life of what is written, ms | 6 head | 7 owner
--          8 how long it is tried, ms | 9 bytes of head and body | 10 fingerprint and 11 life of the idempotency key,
--          ms, where the client named one
-- reply    {0, now, due} | {1, items, bytes}: full | {2, id, same fingerprint 0|1, state, accepted, due}: known
local again = function(id, is_same)
  local item = redis.call('HMGET', KEYS[7] .. id, 's', 't', 'd')
  -- The body of an item that lives is its own: the same id asks again when its answer was missed.
  if id ~= ARGV[1] or not item[1] or item[1] == 'k' or item[1] == 'c' then redis.call('UNLINK', KEYS[6]) end
  return {2, id, is_same and 1 or 0, item[1] or '', item[2] or '0', item[3] or '0'}
end
local counted, has_key, line = ARGV[9], ARGV[11], KEYS[9]
local length = counted - #ARGV[6]
if has_key then
  local known = redis.call('GET', KEYS[8])
  if known then
    local id, fingerprint = string.match(known, '^(%S+) (.*)$')
    return again(id or '', fingerprint == ARGV[10])
  end
end
-- The item and its body are looked for together. More than the body alone: this id was accepted before.
local there = redis.call('EXISTS', KEYS[5], KEYS[6])
if there > (length > 0 and 1 or 0) then return again(ARGV[1], true) end
if length > 0 and there == 0 then
  return redis.error_reply('ERR the body was lost before its item was queued')
end
local size = tonumber(counted)
local bytes = redis.call('INCRBY', KEYS[4], counted)
local items = redis.call('ZCARD', KEYS[3])
if items == 0 and bytes > size then
  -- What ended by itself left its bytes behind: where nothing is open there are none.
  redis.call('SET', KEYS[4], counted)
  bytes = size
end
local is_new = bytes == size
if items >= tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then
  bytes = redis.call('DECRBY', KEYS[4], counted)
  if bytes == 0 then redis.call('DEL', KEYS[4]) end
  redis.call('UNLINK', KEYS[6])
  return {1, items, bytes}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = function(number) return string.format('%.0f', number) end
local delayed = ARGV[2] ~= '0'
local due, life = now, tonumber(ARGV[5])
local at = text(now)
local due_at = at
if delayed then
  due = now + ARGV[2]
  due_at = text(due)
end
if has_key then redis.call('SET', KEYS[8], ARGV[1] .. ' ' .. ARGV[10], 'PX', ARGV[11]) end
local state, entry = 'w', ''
if line then unblock(line, 7, 1, 2, now) end
if line and redis.call('RPUSH', line, ARGV[1]) > 1 then
  state = 'b'
elseif delayed then
  redis.call('ZADD', KEYS[2], due_at, ARGV[1])
else
  entry = put(1, ARGV[1], now)
end
-- What is not there is none yet.
redis.call('HSET', KEYS[5], 's', state, 'q', entry, 'h', ARGV[6], 'o', ARGV[7], 'u', text(due + ARGV[8]),
  'd', due_at, 't', at, 'y', counted)
if line then redis.call('HSET', KEYS[5], 'l', line) end
redis.call('PEXPIRE', KEYS[5], ARGV[5])
redis.call('ZADD', KEYS[3], at, ARGV[1])
-- Renewed and never shortened; GT does nothing on a key that has no end yet. For an hour more than is needed, so that
-- the next ones need not.
local renew = function(at, must)
  local left = redis.call('PTTL', KEYS[at])
  if left == -2 or left >= life and not must then return false end
  redis.call('PEXPIRE', KEYS[at], math.max(life + 3600000, left))
  return true
end
if renew(3, is_new) then
  renew(1)
  renew(4, true)
end
if line then renew(9) end
if line or delayed then renew(2) end
return {0, at, due_at}
