-- q_take: has items whose time has come wait for their turn, and takes some whose turn it is.
-- KEYS     1 ready | 2 later | 3 pause | 4 what stands before an id in the key of an item | 5 open | 6 bytes
-- ARGV     1 most | 2 lease, ms | 3 node | 4 1: look for claims that nobody renews | 5 most claims of the fleet
-- reply    {'p', why, ms or -1} | {'g'}: the group is gone | {'i', now, next due or '', {entry, id, token,
--          stalls, bytes}…}
local why = redis.call('GET', KEYS[3])
if why then return {'p', why, redis.call('PTTL', KEYS[3])} end
local pending = redis.pcall('XPENDING', KEYS[1], 'g')
if pending.err then
  if string.find(pending.err, 'NOGROUP', 1, true) then return {'g'} end
  return pending
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- Its record has ended, and nobody knows its bytes.
local gone = function(id)
  redis.call('ZREM', KEYS[5], id)
  if redis.call('ZCARD', KEYS[5]) == 0 then redis.call('DEL', KEYS[6]) end
end
local at = string.format('%.0f', now)
local first = redis.call('ZRANGE', KEYS[2], '0', '0', 'WITHSCORES')[2]
local due = {}
if first and tonumber(first) <= now then
  due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', at, 'LIMIT', '0', '100')
end
for _, id in ipairs(due) do
  local item = KEYS[4] .. id
  local state = redis.call('HGET', item, 's')
  redis.call('ZREM', KEYS[2], id)
  if state == 'w' or state == 'r' then
    redis.call('HSET', item, 's', 'w', 'q', put(1, id, now))
    local left, life = redis.call('PTTL', KEYS[1]), redis.call('PTTL', item)
    if left < life then redis.call('PEXPIRE', KEYS[1], life) end
  elseif not state then
    gone(id)
  end
end
if #due > 0 then first = redis.call('ZRANGE', KEYS[2], '0', '0', 'WITHSCORES')[2] end
local reply = {'i', at, first or ''}
local most = tonumber(ARGV[1])
local claim = function(entries, stalled)
  for _, entry in ipairs(entries) do
    -- An entry that was deleted while it was claimed has no fields.
    local id = entry and entry[2] and entry[2][2]
    if id then
      local item = KEYS[4] .. id
      local its = redis.call('HMGET', item, 's', 'q', 'z', 'y', 'a')
      if its[2] == entry[1] and (its[1] == 'w' or its[1] == 'd') then
        local token, stalls = (its[5] or 0) + 1, (its[3] or 0) + stalled
        redis.call('HSET', item, 's', 'd', 'a', token, 'n', ARGV[3])
        if stalled > 0 then redis.call('HSET', item, 'z', stalls) end
        reply[#reply + 1] = {entry[1], id, token, stalls, its[4]}
        most = most - 1
      else
        redis.call('XACK', KEYS[1], 'g', entry[1])
        redis.call('XDEL', KEYS[1], entry[1])
        if not its[1] then gone(id) end
      end
    end
  end
end
if ARGV[4] == '1' then
  local from = '0-0'
  for _ = 1, 100 do
    if most <= 0 then break end
    local found = redis.call('XAUTOCLAIM', KEYS[1], 'g', 'gw', ARGV[2], from, 'COUNT', most)
    claim(found[2], 1)
    from = found[1]
    if from == '0-0' then break end
  end
end
-- What was claimed anew was pending before.
local free = math.min(most, tonumber(ARGV[5]) - pending[1])
if free > 0 then
  local read = redis.call('XREADGROUP', 'GROUP', 'g', 'gw', 'COUNT', free, 'STREAMS', KEYS[1], '>')
  if read then claim(read[1][2], 0) end
end
return reply
