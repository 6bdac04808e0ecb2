-- release: gives places back whose taking may still be on its way, and keeps their holder out of them for one lease.
-- KEYS[i]    as in lease.lua
-- ARGV[1]    the holder | ARGV[i+1] the lease of key i in ms
-- A holder that is kept out scores GONE and the end of that, which lease.lua neither counts nor lowers.
local GONE = 1000000000000000
local t = redis.call('TIME')
local now = t[1]*1000 + math.floor(t[2]/1000)
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, string.format('%.0f', GONE), string.format('%.0f', GONE + now))
  redis.call('ZADD', key, string.format('%.0f', GONE + now + tonumber(ARGV[i + 1])), ARGV[1])
  -- Other holders may have a longer lease, of a plan before a reload.
  if redis.call('PEXPIRE', key, ARGV[i + 1], 'NX') == 0 then redis.call('PEXPIRE', key, ARGV[i + 1], 'GT') end
end
return 1
