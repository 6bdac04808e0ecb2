-- refresh: exchanges a refresh token for its successor, once.
-- KEYS[1]  the family
-- ARGV[1]  digest of the token  ARGV[2]  its number          ARGV[3]  digest of a successor
-- ARGV[4]  the successor, sealed ARGV[5] iat, Unix seconds   ARGV[6]  grace in ms   ARGV[7]  life in ms
-- reply    {what, sealed, iat}: 'rotated' and 'again' with these two; 'reused', 'ended', 'unknown'
local f = redis.call('HMGET', KEYS[1], 'cur', 'n', 'prev', 'at', 'sealed', 'iat', 'until', 'ended')
if not f[1] then return {'unknown'} end
if f[8] then return {'ended'} end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = f[7] - now
if left <= 0 then return {'unknown'} end
if ARGV[1] == f[1] then
  redis.call('HSET', KEYS[1], 'cur', ARGV[3], 'n', ARGV[2] + 1, 'prev', ARGV[1], 'at', now,
    'sealed', ARGV[4], 'iat', ARGV[5])
  redis.call('PEXPIRE', KEYS[1], math.min(left, tonumber(ARGV[7])))
  return {'rotated', ARGV[4], ARGV[5]}
end
if ARGV[1] == f[3] and math.max(now - f[4], 0) < tonumber(ARGV[6]) then return {'again', f[5], f[6]} end
-- None of the older ones: the server has lost what it said before, and nobody stole anything.
if tonumber(ARGV[2]) >= tonumber(f[2]) then return {'unknown'} end
redis.call('HSET', KEYS[1], 'ended', 'reuse')
return {'reused'}
