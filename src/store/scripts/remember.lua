-- remember: stores one variant of a response, unless its path was purged since the fetch began or
-- somebody else holds the lock.
-- KEYS[1]  the entry, a hash      KEYS[2]  the path's epoch      KEYS[3]  the lock, if one is held
-- ARGV[1]  the epoch read before the fetch, '' for none      ARGV[2]  the variant's name
-- ARGV[3]  its value      ARGV[4]  its set of field names      ARGV[5]  its life in ms
-- ARGV[6]  most variants      ARGV[7]  most sets      ARGV[8]  the lock's token
-- reply    1 stored, 0 refused for the epoch, -1 refused for the lock
if (redis.call('MGET', KEYS[2])[1] or '') ~= ARGV[1] then return 0 end
local holder = KEYS[3] and redis.call('MGET', KEYS[3])[1]
if holder and holder ~= ARGV[8] then return -1 end
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
local known = redis.call('HGET', KEYS[1], 'vary')
local sets, count = ARGV[4], 1
for set in ((known or ARGV[4]) .. '\n'):gmatch('([^\n]*)\n') do
  if set ~= ARGV[4] and count < tonumber(ARGV[7]) then
    sets, count = sets .. '\n' .. set, count + 1
  end
end
if sets ~= known then redis.call('HSET', KEYS[1], 'vary', sets) end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[6]) + 1 then
  for _, name in ipairs(redis.call('HRANDFIELD', KEYS[1], 3)) do
    if name ~= 'vary' and name ~= ARGV[2] then
      redis.call('HDEL', KEYS[1], name)
      break
    end
  end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
if holder then redis.call('DEL', KEYS[3]) end
return 1
