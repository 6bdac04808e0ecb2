-- session: reads one session, whichever type the application gave it.
-- KEYS[1]  the session
-- ARGV[1]  most bytes that are of use: of a longer session, one byte more is sent
-- reply    {value, pttl}: value is a string, an array of field, value, …, or false; pttl is -1 without an expiry
local key, most = KEYS[1], tonumber(ARGV[1])
local kind = redis.call('TYPE', key).ok
if kind == 'string' then return {redis.call('GETRANGE', key, 0, ARGV[1]), redis.call('PTTL', key)} end
if kind == 'hash' then
  if redis.call('HLEN', key) > most then return {string.rep(' ', most + 1), redis.call('PTTL', key)} end
  local all = redis.call('HGETALL', key)
  local bytes = 0
  for i = 1, #all do bytes = bytes + #all[i] end
  if bytes > most then all = string.rep(' ', most + 1) end  -- as good as a string that is too long
  return {all, redis.call('PTTL', key)}
end
if kind == 'none' then return {false, -2} end
return redis.error_reply('WRONGTYPE a session must be a string or a hash, this key holds a ' .. kind)
