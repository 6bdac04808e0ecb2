-- relock: moves the end of a lock, or releases it, if it is the caller's.
-- KEYS[1]  the lock      ARGV[1]  the caller's token      ARGV[2]  its new life in ms, 0 to release
-- reply    1 when it was the caller's
if redis.call('MGET', KEYS[1])[1] ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
