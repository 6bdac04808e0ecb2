-- session_write: writes a session that was begun, unless it was ended meanwhile.
-- KEYS[1]  the session   KEYS[2]  what is kept beside it
-- ARGV[1]  the value     ARGV[2]  its life in ms   ARGV[3]  how long its end is remembered, ms   ARGV[4]  why it ends then
-- ARGV[5]  its user's index, '' for none           ARGV[6]  1 when it is only written over one that is there
-- reply    1 when there was one, 0 when there was none, -1 when nothing was written
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local there = redis.call('EXISTS', KEYS[1])
if there == 0 then
  -- Whoever ends a session takes the note of it away.
  local writing = redis.call('HGET', KEYS[2], 'writing')
  if ARGV[6] == '1' or not writing or tonumber(writing) <= now then return -1 end
end
local at = now + ARGV[2]
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[2], 'ends', string.format('%s %.0f', ARGV[4], at), 'seen', string.format('%.0f', now))
if ARGV[5] ~= '' then redis.call('HSET', KEYS[2], 'index', ARGV[5]) end
redis.call('HDEL', KEYS[2], 'writing')
redis.call('PEXPIREAT', KEYS[2], string.format('%.0f', at + ARGV[3]))
return there
