-- revoke_more: writes a revocation, and neither lowers nor shortens one that is there
-- KEYS[1]  its key      ARGV[1]  Unix seconds before which tokens are revoked, or 1      ARGV[2]  its life in ms
-- reply    1
local known, value, life = redis.call('MGET', KEYS[1])[1], ARGV[1], redis.call('PTTL', KEYS[1])
if known and known ~= '' then
  -- What is no time revokes by itself.
  local time = tonumber(known)
  if not time or time >= tonumber(value) then value = known end
end
if life == -1 then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', math.max(life, tonumber(ARGV[2])))
end
return 1
