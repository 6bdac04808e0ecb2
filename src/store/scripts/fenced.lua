-- fenced: writes values, if a lease is the caller's
-- KEYS[1]  the lease           KEYS[2…]  what is written
-- ARGV[1]  the caller's token  ARGV[2…]  each value and its life in ms, in turn
-- reply    1 when they were written
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[2 * i - 2], 'PX', ARGV[2 * i - 1])
end
return 1
