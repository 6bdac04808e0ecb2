-- session_begin: notes that a session is being written, so that whoever counts sessions counts it.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it
-- ARGV[1]  how long that counts, ms   ARGV[2]  1 when it is only written over one that is there
-- reply    {1 when there is one, else 0, its user's index or false}, or false when it must not be written
local there = redis.call('EXISTS', KEYS[1])
if there == 0 and ARGV[2] == '1' then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[2], 'writing', string.format('%.0f', now + ARGV[1]))
if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[2], ARGV[1]) end
return {there, redis.call('HGET', KEYS[2], 'index')}
