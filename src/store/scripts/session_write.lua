-- session_write: writes a session and its place in its user's index, and ends the oldest others beyond a number, all at
-- once: for one server, where all of this lies. What is kept beside those that ended is left to the caller.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it   KEYS[3]  the user's index; without one it stays whose it was
-- ARGV[1]  the value     ARGV[2]  its life in ms           ARGV[3]  how long its end is remembered, ms   ARGV[4]  why it ends then
-- ARGV[5]  its id as it stands in keys                     ARGV[6]  most sessions of the user, 0 for no bound
-- ARGV[7]  what stands before the id in keys of sessions
-- ARGV[8]  1 when it is only written over one that is there
-- reply    {1 when there was one, else 0, the ids that ended, oldest first …}, or false when nothing was written
local id, most = ARGV[5], tonumber(ARGV[6])
local reply = {redis.call('EXISTS', KEYS[1])}
if reply[1] == 0 and ARGV[8] == '1' then return false end
local known = redis.call('HGET', KEYS[2], 'index')
local index = KEYS[3] or known
-- An index of another type is an error before anything is written.
local life = -2
if index then redis.call('ZCARD', index) life = redis.call('PTTL', index) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = now + ARGV[2]
local kept = string.format('%.0f', at + ARGV[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'ends', string.format('%s %.0f', ARGV[4], at), 'seen', string.format('%.0f', now))
redis.call('PEXPIREAT', KEYS[2], kept)
if not index then return reply end
redis.call('HSET', KEYS[2], 'index', index)
if known and known ~= index then redis.call('ZREM', known, id) end
redis.call('ZADD', index, 'NX', string.format('%.6f', time[1] + time[2] / 1000000), id)
if life == -2 then
  redis.call('PEXPIREAT', index, kept)
else
  redis.call('PEXPIREAT', index, kept, 'GT')
end
-- What is gone does not count. Without a bound the index is only kept tidy: the oldest go first.
for _, other in ipairs(redis.call('ZRANGE', index, 0, most > 0 and -1 or 99)) do
  if redis.call('EXISTS', ARGV[7] .. other) == 0 then redis.call('ZREM', index, other) end
end
local over = most > 0 and redis.call('ZCARD', index) - most or 0
if over <= 0 then return reply end
-- One more than are over, because this one does not end.
for _, other in ipairs(redis.call('ZRANGE', index, 0, over)) do
  if other ~= id and over > 0 then
    redis.call('DEL', ARGV[7] .. other)
    redis.call('ZREM', index, other)
    reply[#reply + 1] = other
    over = over - 1
  end
end
return reply
