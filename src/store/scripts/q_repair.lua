-- q_repair, behind q_entry: makes the stream and its group where they are missing, puts back what the stream has
-- lost, of some open items, and has them live on.
-- KEYS     1 ready | 2 later | 3 open | 4 what stands before an id in the key of an item | 5 bytes | 6 what stands
--          before an id in the key of a body
-- ARGV     1 the id behind which it begins, or '' | 2 its score | 3 most items | 4 least life of what is open, ms
-- reply    {how many were put back, the last id that was looked at or '' at the end, its score}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local from = 0
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('XDEL', KEYS[1], put(1, '', now)) end
  -- From the beginning, so that what was never read is not passed over.
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], 'g', '0')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
else
  local rank = redis.call('ZRANK', KEYS[3], ARGV[1])
  from = rank and rank + 1 or redis.call('ZCOUNT', KEYS[3], '-inf', '(' .. ARGV[2])
end
local ids, back = redis.call('ZRANGE', KEYS[3], from, from + ARGV[3] - 1), 0
-- An entry of the same number may be another's, of a stream that was made anew by a clock that had gone back.
local is_there = function(entry, id)
  local there = redis.call('XRANGE', KEYS[1], entry, entry)[1]
  return there and there[2][2] == id
end
local last, score = '', ''
if #ids == tonumber(ARGV[3]) then last, score = ids[#ids], redis.call('ZSCORE', KEYS[3], ids[#ids]) end
local renew = function(item)
  local left = redis.call('PTTL', item)
  if left ~= -2 and left < tonumber(ARGV[4]) then redis.call('PEXPIRE', item, ARGV[4]) end
end
for _, id in ipairs(ids) do
  local item = KEYS[4] .. id
  local its = redis.call('HMGET', item, 's', 'q', 'l', 'n')
  local state, entry, line = its[1], its[2], its[3] or ''
  if not state then
    -- Its record is gone, so there is nothing to deliver, and nobody knows its bytes.
    redis.call('ZREM', KEYS[3], id)
    if redis.call('ZCARD', KEYS[3]) == 0 then redis.call('DEL', KEYS[5]) end
  elseif state == 'b' then
    -- Whom nobody stands before may go.
    local first = redis.call('LINDEX', line, 0)
    for _ = 1, 1000 do
      if not first or first == id or redis.call('EXISTS', KEYS[4] .. first) == 1 then break end
      redis.call('LREM', line, 1, first)
      first = redis.call('LINDEX', line, 0)
    end
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
    entry = put(1, id, now)
    redis.call('HSET', item, 's', state == 'd' and 'd' or 'w', 'n', '', 'q', entry)
    back = back + 1
  end
  if state then
    renew(item)
    renew(KEYS[6] .. id)
    if line ~= '' then renew(line) end
  end
end
for _, at in ipairs({1, 2, 3, 5}) do renew(KEYS[at]) end
return {back, last, score}
