-- session_index: puts a session into its user's index, which outlives it.
-- KEYS[1]  the index   ARGV[1]  the id as it stands in keys   ARGV[2]  how long it must stay, ms   ARGV[3]  most ids that are looked at
-- reply    the oldest ids, the oldest first
local life = redis.call('PTTL', KEYS[1])
local time = redis.call('TIME')
redis.call('ZADD', KEYS[1], 'NX', string.format('%.6f', time[1] + time[2] / 1000000), ARGV[1])
if life == -2 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2], 'GT')
end
return redis.call('ZRANGE', KEYS[1], 0, ARGV[3] - 1)
