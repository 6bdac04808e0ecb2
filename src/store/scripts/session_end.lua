-- session_end: ends one session and takes it out of its user's index.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it   ARGV[1]  its id as it stands in keys
-- reply    1 when there was one, else 0
local index = redis.call('HGET', KEYS[2], 'index')
if index then redis.call('ZREM', index, ARGV[1]) end
redis.call('DEL', KEYS[2])
return redis.call('DEL', KEYS[1])
