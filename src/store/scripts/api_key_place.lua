-- api_key_place: gives an API key its place in its owner's index, and tells of the oldest.
-- KEYS[1]  the index             ARGV[1]  its id as it stands in keys
-- ARGV[2]  created, Unix seconds ARGV[3]  its life in ms, 0 when it does not end   ARGV[4]  how many of the oldest
-- reply    {ids in the index, id, score, …}, the oldest first
local life = redis.call('PTTL', KEYS[1])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if ARGV[3] == '0' then
  redis.call('PERSIST', KEYS[1])
elseif life == -2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[3], 'GT')
end
local reply = redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1, 'WITHSCORES')
table.insert(reply, 1, redis.call('ZCARD', KEYS[1]))
return reply
