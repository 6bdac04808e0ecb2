-- session_end: ends one session, and the writing of one.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it
-- ARGV[1]  the index whose sessions end, '' for whose ever it is: one that belongs to another user is left, unless it is
--          being written, perhaps for this one
-- reply    {1 when there was one, else 0, its user's index or false}
local index = redis.call('HGET', KEYS[2], 'index')
if ARGV[1] ~= '' and index and index ~= ARGV[1] and not redis.call('HGET', KEYS[2], 'writing') then return {0, index} end
redis.call('DEL', KEYS[2])
return {redis.call('DEL', KEYS[1]), index}
