-- q_common, behind q_unblock: what stands before the scripts that settle, cancel and requeue.
-- KEYS     1 ready | 2 later | 3 open | 4 bytes | 5 the item | 6 its body | 7 what stands before an id in the key of
--          an item
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local text = function(number) return string.format('%.0f', number) end
-- A key lives at least as long as the item that it was changed for.
local touch = function(at, item)
  local left, life = redis.call('PTTL', KEYS[at]), redis.call('PTTL', item)
  if left ~= -2 and left < life then redis.call('PEXPIRE', KEYS[at], life) end
end
-- Takes an item's entry out of the stream.
local drop = function(entry)
  -- Where the group is gone there is nothing to acknowledge.
  redis.pcall('XACK', KEYS[1], 'g', entry)
  redis.call('XDEL', KEYS[1], entry)
end
-- Its turn has come, or comes when it is due.
local ready = function(id, item, due)
  if due > now then
    redis.call('ZADD', KEYS[2], text(due), id)
    redis.call('HSET', item, 's', 'w', 'q', '')
    touch(2, item)
  else
    redis.call('HSET', item, 's', 'w', 'q', put(1, id, now))
    touch(1, item)
  end
end
-- Takes an item out of its line; where it was the first, the next one may go.
local leave = function(line, id)
  if line == '' then return end
  local first = redis.call('LINDEX', line, 0)
  redis.call('LREM', line, 1, id)
  if first ~= id then return end
  for _ = 1, 1000 do
    local after = redis.call('LINDEX', line, 0)
    if not after then return end
    local item = KEYS[7] .. after
    local its = redis.call('HMGET', item, 's', 'd')
    if its[1] == 'b' then return ready(after, item, tonumber(its[2])) end
    -- Its record is gone: nobody would ever let the others go.
    if its[1] and its[1] ~= 'k' and its[1] ~= 'x' and its[1] ~= 'c' then return end
    redis.call('LREM', line, 1, after)
  end
end
-- Deletes a dead item, of the set KEYS[dead]; where it has held its line, the next one may go. KEYS[bodies] stands
-- before an id in the key of a body.
local forget = function(id, dead, bodies)
  local item = KEYS[7] .. id
  local line = redis.call('HGET', item, 'l')
  redis.call('UNLINK', item, KEYS[bodies] .. id)
  redis.call('ZREM', KEYS[dead], id)
  if line and line ~= '' and redis.call('LINDEX', line, 0) == id then leave(line, id) end
end
-- It is open no more, and neither are its bytes.
local close = function(id, bytes)
  redis.call('ZREM', KEYS[3], id)
  if bytes ~= '0' and redis.call('DECRBY', KEYS[4], bytes) <= 0 then redis.call('DEL', KEYS[4]) end
end
