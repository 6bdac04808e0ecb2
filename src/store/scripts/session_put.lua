-- session_put: writes a session and what is kept beside it.
-- KEYS[1]  the session     KEYS[2]  what is kept beside it
-- ARGV[1]  the value       ARGV[2]  its life in ms            ARGV[3]  how long its end is remembered, ms
-- ARGV[4]  why it ends then
-- ARGV[5]  whose it is: the key of an index, or '' where it stays whose it was
-- ARGV[6]  1 when it is only written over one that is there
-- reply    {1 when there was one, else 0, whose it was before or ''}, or false when nothing was written
local was = redis.call('EXISTS', KEYS[1])
if was == 0 and ARGV[6] == '1' then return false end
local known = redis.call('HGET', KEYS[2], 'index')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = now + ARGV[2]
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'ends', string.format('%s %.0f', ARGV[4], at), 'seen', string.format('%.0f', now))
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', at + ARGV[3]))
if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 'index', ARGV[5]) end
return {was, known or ''}
