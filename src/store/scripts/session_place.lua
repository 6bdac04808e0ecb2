-- session_place: gives a session its place in its user's index, and tells of the oldest.
-- KEYS[1]  the index   ARGV[1]  its id as it stands in keys   ARGV[2]  1 when it is new: it is the youngest then
-- ARGV[3]  how long the index must live, ms                  ARGV[4]  how many of the oldest
-- reply    {ids in the index, id, score, …}, the oldest first
local life = redis.call('PTTL', KEYS[1])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
if ARGV[2] == '1' then
  -- Also where the clock went back, or an application is ahead of it.
  local last = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2])
  if last and last >= now then now = last + 0.001 end
  redis.call('ZADD', KEYS[1], string.format('%.6f', now), ARGV[1])
else
  redis.call('ZADD', KEYS[1], 'NX', string.format('%.6f', now), ARGV[1])
end
local kept = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3])
-- It must outlive each of its sessions. One without an expiry is the application's, and GT leaves it so.
if life == -2 then
  redis.call('PEXPIREAT', KEYS[1], kept)
else
  redis.call('PEXPIREAT', KEYS[1], kept, 'GT')
end
local reply = redis.call('ZRANGE', KEYS[1], 0, ARGV[4] - 1, 'WITHSCORES')
table.insert(reply, 1, redis.call('ZCARD', KEYS[1]))
return reply
