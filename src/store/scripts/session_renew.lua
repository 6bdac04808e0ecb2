-- session_renew: moves a session's expiry out, never in, and notes when and why it will end.
-- KEYS[1]  the session      KEYS[2]  what is kept beside it
-- ARGV[1]  its life in ms   ARGV[2]  when it ends at the latest, Unix ms, '' for never   ARGV[3]  how long its end is remembered, ms
-- ARGV[4]  its user's index, where that is known and is not noted, or ''
-- reply    {when that is forgotten, Unix ms, its user's index or false}, or false when it is gone or its time is up
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return false end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = tonumber(ARGV[2])
local at = now + ARGV[1]
if latest and latest < at then at = latest end
if at <= now then return false end
if left == -1 or at > now + left then
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', at))
else
  at = now + left
end
local why = latest and at >= latest and 'expired' or 'idle'
local kept = string.format('%.0f', at + ARGV[3])
redis.call('HSET', KEYS[2], 'ends', string.format('%s %.0f', why, at), 'seen', string.format('%.0f', now))
if ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'index', ARGV[4]) end
redis.call('PEXPIREAT', KEYS[2], kept)
return {kept, redis.call('HGET', KEYS[2], 'index')}
