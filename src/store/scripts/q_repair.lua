-- q_repair: puts back what the stream has lost, of some open items.
-- KEYS     1 ready | 2 later | 3 open | 4 what stands before an id in the key of an item
-- ARGV     1 the id behind which it begins, or '' | 2 Unix ms where that one has gone | 3 most items
-- reply    {how many were put back, the last id that was looked at or '' at the end}
local from = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZRANK', KEYS[3], ARGV[1])
  from = rank and rank + 1 or redis.call('ZCOUNT', KEYS[3], '-inf', '(' .. ARGV[2])
end
local ids, back = redis.call('ZRANGE', KEYS[3], from, from + ARGV[3] - 1), 0
-- An entry of the same number may be another's, of a stream that was made anew within the same millisecond.
local is_there = function(entry, id)
  local there = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  return there and there[2][2] == id
end
local last = #ids == tonumber(ARGV[3]) and ids[#ids] or ''
for _, id in ipairs(ids) do
  local item = KEYS[4] .. id
  local its = redis.call('HMGET', item, 's', 'q', 'l', 'n')
  local state, entry, line = its[1], its[2], its[3]
  if not state then
    -- Its record is gone, so there is nothing to deliver. The last one that is looked at says where to go on.
    if id ~= last then redis.call('ZREM', KEYS[3], id) end
  elseif state == 'b' then
    -- Whom nobody stands before may go.
    local first = redis.call('LINDEX', line, 0)
    if not first or first == id then entry = false end
  elseif redis.call('ZSCORE', KEYS[2], id) then
    entry = nil
  elseif entry ~= '' and is_there(entry, id) then
    -- Claimed, and yet nobody's: a consumer was deleted, or the group is a new one. What was put back and not taken
    -- since has no node.
    if state == 'd' and its[4] ~= '' and #redis.call('XPENDING', KEYS[1], 'g', entry, entry, 1) == 0 then
      redis.call('XDEL', KEYS[1], entry)
      entry = false
    end
  else
    entry = false
  end
  if state and entry == false then
    -- Its holder may still settle it, until somebody takes it.
    redis.call('HSET', item, 's', state == 'd' and 'd' or 'w', 'n', '', 'q', redis.call('XADD', KEYS[1], '*', 'i', id))
    local left, life = redis.call('PTTL', KEYS[1]), redis.call('PTTL', item)
    if left < life then redis.call('PEXPIRE', KEYS[1], life) end
    back = back + 1
  end
end
return {back, last}
