-- raise: writes a not-before time again, unless a later one is there.
-- KEYS[1]  its key      ARGV[1]  Unix seconds      ARGV[2]  its life in ms
-- reply    1 when it was written
local known = redis.call('GET', KEYS[1])
if known then
  -- What is no time revokes by itself.
  local time = tonumber(known)
  if not time or time >= tonumber(ARGV[1]) then return 0 end
end
local life = redis.call('PTTL', KEYS[1])
if life == -1 then
  redis.call('SET', KEYS[1], ARGV[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', math.max(life, tonumber(ARGV[2])))
end
return 1
