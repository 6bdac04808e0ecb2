-- session: reads one session, whichever type the application gave it.
-- KEYS[1]  the session
-- reply    {value, pttl}: value is a string, an array of field, value, …, or false; pttl is -1 without an expiry
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'string' then return {redis.call('GET', key), redis.call('PTTL', key)} end
if kind == 'hash' then return {redis.call('HGETALL', key), redis.call('PTTL', key)} end
if kind == 'none' then return {false, -2} end
return redis.error_reply('WRONGTYPE a session must be a string or a hash, this key holds a ' .. kind)
