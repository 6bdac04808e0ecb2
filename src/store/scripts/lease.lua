-- lease: takes a place among the requests in flight of each of k keys, all or none.
-- KEYS[i]     a sorted set: holders by the end of their lease, in ms of this server's clock, and those that
--             release.lua keeps out, from GONE on
-- ARGV[1]     the holder
-- ARGV[3i-1]  most holders of key i | ARGV[3i] its lease in ms | ARGV[3i+1] its mode, as in take.lua
-- reply       {allowed 0|1, then per key: holders before}
local GONE = '(1000000000000000'
local t = redis.call('TIME')
local now = t[1]*1000 + math.floor(t[2]/1000)
local reply, ok = {1}, true
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)         -- holders that died without a word
  reply[i + 1] = redis.call('ZCOUNT', key, '-inf', GONE)
  local mode = ARGV[3*i + 1]
  if reply[i + 1] >= tonumber(ARGV[3*i - 1]) and (mode == '0' or mode == '3') then ok = false end
end
if not ok then reply[1] = 0; return reply end
for i, key in ipairs(KEYS) do
  local most, lease, mode = tonumber(ARGV[3*i - 1]), tonumber(ARGV[3*i]), ARGV[3*i + 1]
  if mode == '2' or (mode ~= '3' and reply[i + 1] < most) then
    redis.call('ZADD', key, 'GT', string.format('%.0f', now + lease), ARGV[1])
    -- Other holders may have a longer lease, of a plan before a reload.
    if redis.call('PEXPIRE', key, ARGV[3*i], 'NX') == 0 then redis.call('PEXPIRE', key, ARGV[3*i], 'GT') end
  end
end
return reply
