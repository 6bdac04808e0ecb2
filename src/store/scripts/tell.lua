-- tell: one gateway says how things are with it, and hears how they are with all
-- KEYS[1]  a hash: by the gateway, when it was written (ms), a blank and what was said
-- ARGV[1]  which gateway says it  ARGV[2]  what   ARGV[3]  how long that holds, in ms
-- ARGV[4]  most bytes of a value  ARGV[5]  most gateways
-- reply    gateways and what they say, in turn; nothing where there are too many of them
local clock = redis.call('TIME')
local now, kept, most = clock[1] * 1000 + math.floor(clock[2] / 1000), tonumber(ARGV[3]), tonumber(ARGV[5])
if redis.call('HLEN', KEYS[1]) > 4 * most then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], kept)
local all, said = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  local at, value = all[i + 1]:match('^(%d+) (.*)$')
  -- The clock may be another server's by now.
  if at and math.abs(now - at) < kept and #value <= tonumber(ARGV[4]) then
    said[#said + 1], said[#said + 2] = all[i], value
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
if #said > 2 * most then return {} end
return said
