-- q_list: the ids of a page of items, the oldest first.
-- KEYS     1 a sorted set of ids | 2 what stands before an id in the key of an item
-- ARGV     1 the id behind which it begins, or '' | 2 its score, or '' where the caller does not know it | 3 the letters
--          of the states that are wanted, or '' | 4 most ids | 5 most that are looked at | 6 Unix ms of the caller's
--          clock, where nothing else is known of that id | 7 the field with the score that it had
-- reply    {the last id that was looked at or '' at the end, its score, ids…}
local from = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], ARGV[1])
  local score = ARGV[2]
  -- It has gone. The scores are of the store's clock, and so is what its record says.
  if not rank and score == '' then
    score = redis.call('HGET', KEYS[2] .. ARGV[1], ARGV[7]) or ''
    if score == '' then score = ARGV[6] end
  end
  from = rank and rank + 1 or redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. score)
end
local ids = redis.call('ZRANGE', KEYS[1], from, from + ARGV[5] - 1)
local reply, most = {'', ''}, tonumber(ARGV[4])
for at, id in ipairs(ids) do
  local state = ARGV[3] == '' or redis.call('HGET', KEYS[2] .. id, 's')
  if state == true or state and string.find(ARGV[3], state, 1, true) then reply[#reply + 1] = id end
  if #reply > most + 1 then
    if at < tonumber(ARGV[5]) and at == #ids then return reply end
    reply[1], reply[2] = id, redis.call('ZSCORE', KEYS[1], id)
    return reply
  end
end
if #ids == tonumber(ARGV[5]) then reply[1], reply[2] = ids[#ids], redis.call('ZSCORE', KEYS[1], ids[#ids]) end
return reply
