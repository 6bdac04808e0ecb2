-- sessions_end: ends the sessions of one user, the oldest first.
-- KEYS[1]  the index   ARGV[1]  how many at most
-- ARGV[2]  what stands before the id in keys of sessions   ARGV[3]  and in those of what is kept beside them
-- reply    {how many there were, how many ids the index still holds}
local ended = 0
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)) do
  local index = redis.call('HGET', ARGV[3] .. id, 'index')
  -- An id that belongs to somebody else by now is only taken out.
  if not index or index == KEYS[1] then
    ended = ended + redis.call('DEL', ARGV[2] .. id)
    redis.call('DEL', ARGV[3] .. id)
  end
  redis.call('ZREM', KEYS[1], id)
end
return {ended, redis.call('ZCARD', KEYS[1])}
