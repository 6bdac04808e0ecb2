-- index_drop: takes ids out of an index, unless they were given a new place since they were read.
-- KEYS[1]  the index   ARGV  id, score, …
-- reply    how many ids are left
for i = 1, #ARGV, 2 do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) == ARGV[i + 1] then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return redis.call('ZCARD', KEYS[1])
