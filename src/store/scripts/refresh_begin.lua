-- refresh_begin: writes a new family of refresh tokens.
-- KEYS[1]  the family   ARGV[1]  its life in ms   then names and values of fields
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
