-- q_accept, behind q_unblock: puts an item into a queue, once for each idempotency key.
-- KEYS     1 ready | 2 later | 3 open | 4 bytes | 5 the item | 6 its body, written before this in the same pipeline
--          7 its idempotency key | 8 its line | 9 what stands before an id in the key of an item
-- ARGV     1 id | 2 delay, ms | 3 most open items | 4 most bytes | 5 life of what is written, ms | 6 life of the
--          idempotency key, ms, 0: the client named none | 7 fingerprint | 8 head | 9 owner | 10 how long it is
--          tried, ms | 11 1: it has a line | 12 bytes of the body
-- reply    {0, now, due} | {1, items, bytes}: full | {2, id, same fingerprint 0|1, state, accepted, due}: known
local again = function(id, is_same)
  local item = redis.call('HMGET', KEYS[9] .. id, 's', 't', 'd')
  -- The body of an item that lives is its own: the same id asks again when its answer was missed.
  if id ~= ARGV[1] or not item[1] or item[1] == 'k' or item[1] == 'c' then redis.call('UNLINK', KEYS[6]) end
  return {2, id, is_same and 1 or 0, item[1] or '', item[2] or '0', item[3] or '0'}
end
local has_key = ARGV[6] ~= '0'
if has_key then
  local known = redis.call('GET', KEYS[7])
  if known then
    local id, fingerprint = string.match(known, '^(%S+) (.*)$')
    return again(id or '', fingerprint == ARGV[7])
  end
elseif redis.call('EXISTS', KEYS[5]) == 1 then
  return again(ARGV[1], true)
end
local length = tonumber(ARGV[12])
local counted = string.format('%.0f', length + #ARGV[8])
local bytes = redis.call('INCRBY', KEYS[4], counted)
local items = redis.call('ZCARD', KEYS[3])
if items == 0 and bytes > tonumber(counted) then
  -- What ended by itself left its bytes behind: where nothing is open there are none.
  redis.call('SET', KEYS[4], counted)
  bytes = tonumber(counted)
end
local is_new = bytes == tonumber(counted)
local refuse = function()
  bytes = redis.call('DECRBY', KEYS[4], counted)
  if bytes == 0 then redis.call('DEL', KEYS[4]) end
end
if items >= tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then
  refuse()
  redis.call('UNLINK', KEYS[6])
  return {1, items, bytes}
end
if length > 0 and redis.call('EXISTS', KEYS[6]) == 0 then
  refuse()
  return redis.error_reply('ERR the body was lost before its item was queued')
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = function(number) return string.format('%.0f', number) end
local delay = tonumber(ARGV[2])
local due, life = now + delay, tonumber(ARGV[5])
local at = text(now)
local due_at = delay > 0 and text(due) or at
if has_key then redis.call('SET', KEYS[7], ARGV[1] .. ' ' .. ARGV[7], 'PX', ARGV[6]) end
local state, entry, line = 'w', '', ''
if ARGV[11] == '1' then line = KEYS[8] end
if line ~= '' then unblock(line, 9, 1, 2, now) end
if line ~= '' and redis.call('RPUSH', KEYS[8], ARGV[1]) > 1 then
  state = 'b'
elseif delay > 0 then
  redis.call('ZADD', KEYS[2], due_at, ARGV[1])
else
  entry = put(1, ARGV[1], now)
end
-- What is not there is none yet.
redis.call('HSET', KEYS[5], 's', state, 'q', entry, 'h', ARGV[8], 'o', ARGV[9], 'u', text(due + ARGV[10]),
  'd', due_at, 't', at, 'y', counted)
if line ~= '' then redis.call('HSET', KEYS[5], 'l', line) end
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
renew(1)
if renew(3, is_new) then renew(4, true) end
if line ~= '' then renew(8) end
if line ~= '' or delay > 0 then renew(2) end
return {0, at, due_at}
