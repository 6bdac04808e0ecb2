-- session_renew: moves a session's expiry out, never in, and notes when and why it will end.
-- KEYS[1]  the session      KEYS[2]  what is kept beside it
-- ARGV[1]  its life in ms   ARGV[2]  when it ends at the latest, Unix ms, '' for never   ARGV[3]  how long its end is remembered, ms
-- reply    0 when it is gone or its time is up, else {the key of the index that it stands in or '', how long that must stay, ms}
local left = redis.call('PTTL', KEYS[1])
if left == -2 then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local latest = tonumber(ARGV[2])
local at = now + ARGV[1]
if latest and latest < at then at = latest end
if at <= now then return 0 end
if left == -1 or at > now + left then
  redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', at))
else
  at = now + left
end
local why = latest and at >= latest and 'expired' or 'idle'
local kept = string.format('%.0f', at + ARGV[3])
redis.call('HSET', KEYS[2], 'ends', string.format('%s %.0f', why, at), 'seen', string.format('%.0f', now))
redis.call('PEXPIREAT', KEYS[2], kept)
return {redis.call('HGET', KEYS[2], 'index') or '', string.format('%.0f', at + ARGV[3] - now)}
