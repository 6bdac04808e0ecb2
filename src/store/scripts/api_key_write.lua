-- api_key_write: writes the record of an API key, its id, and its place in its owner's index.
-- KEYS[1]  the record   KEYS[2]  the id's key   KEYS[3]  the owner's index
-- ARGV[1]  the record   ARGV[2]  the key's digest         ARGV[3]  the id as it stands in keys
-- ARGV[4]  created, Unix seconds                          ARGV[5]  its life in ms, 0 when it does not end
-- ARGV[6]  what stands before the id in the keys of ids
local life = redis.call('PTTL', KEYS[3])
-- An index of another type is an error before anything is written.
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[3])
if ARGV[5] == '0' then
  redis.call('SET', KEYS[1], ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2])
  redis.call('PERSIST', KEYS[3])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[5])
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[5])
  if life == -2 then
    redis.call('PEXPIRE', KEYS[3], ARGV[5])
  else
    redis.call('PEXPIRE', KEYS[3], ARGV[5], 'GT')
  end
end
-- The index is kept tidy: what has expired goes, the oldest first.
for _, other in ipairs(redis.call('ZRANGE', KEYS[3], 0, 9)) do
  if redis.call('EXISTS', ARGV[6] .. other) == 0 then redis.call('ZREM', KEYS[3], other) end
end
return 1
