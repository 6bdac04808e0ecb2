-- session_end: ends one session.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it
-- ARGV[1]  whose it must be: the key of an index, or '' for anybody's
-- reply    {1 when one ended, else 0, the key of the index that it stands in or ''}
local index = redis.call('HGET', KEYS[2], 'index') or ''
if ARGV[1] ~= '' and index ~= '' and index ~= ARGV[1] then return {0, index} end
redis.call('DEL', KEYS[2])
return {redis.call('DEL', KEYS[1]), index}
