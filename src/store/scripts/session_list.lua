-- session_list: the newest sessions of one user; what is gone is taken out of the index.
-- KEYS[1]  the index   ARGV[1]  how many
-- ARGV[2]  what stands before the id in keys of sessions   ARGV[3]  and in those of what is kept beside them
-- reply    {ids in the index, {id, created in Unix seconds, pttl, seen in Unix ms or false}, …}
local reply = {0}
local all = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'REV', 'WITHSCORES')
for i = 1, #all, 2 do
  local left = redis.call('PTTL', ARGV[2] .. all[i])
  if left == -2 then
    redis.call('ZREM', KEYS[1], all[i])
  else
    reply[#reply + 1] = {all[i], math.floor(all[i + 1]), left, redis.call('HGET', ARGV[3] .. all[i], 'seen')}
  end
end
reply[1] = redis.call('ZCARD', KEYS[1])
return reply
