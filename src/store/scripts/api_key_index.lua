-- api_key_index: puts the id of an API key into its owner's index, which lives as long as the longest of its keys.
-- KEYS[1]  the index   ARGV[1]  the id as it stands in keys   ARGV[2]  created, Unix seconds
-- ARGV[3]  its life in ms, 0 when it does not end             ARGV[4]  how many of the oldest are looked at
-- reply    the oldest ids
local life = redis.call('PTTL', KEYS[1])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if ARGV[3] == '0' then
  redis.call('PERSIST', KEYS[1])
elseif life == -2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'GT')
end
return redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1)
