-- remember: stores one variant of a response, unless its path was purged since the fetch began or
-- somebody else holds the lock. A new entry, the usual case, costs five commands.
-- KEYS[1]  the entry, a hash      KEYS[2]  the path's epoch      KEYS[3]  the lock, if one is held
-- ARGV[1]  the epoch read before the fetch, '' for none      ARGV[2]  the variant's name
-- ARGV[3]  its value      ARGV[4]  its set of field names      ARGV[5]  its life in ms
-- ARGV[6]  most variants      ARGV[7]  most sets      ARGV[8]  the lock's token
-- reply    1 stored, 0 refused for the epoch, -1 refused for the lock
local strings = redis.call('MGET', KEYS[2], KEYS[3] or KEYS[2])
if (strings[1] or '') ~= ARGV[1] then return 0 end
local holder = KEYS[3] and strings[2]
if holder and holder ~= ARGV[8] then return -1 end
local known = redis.pcall('HGET', KEYS[1], 'vary')
if type(known) == 'table' then
  -- What an application wrote under our key is no entry.
  redis.call('DEL', KEYS[1])
  known = false
end
if not known then
  redis.call('HSET', KEYS[1], 'vary', ARGV[4], ARGV[2], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
else
  local sets, count = ARGV[4], 1
  for set in (known .. '\n'):gmatch('([^\n]*)\n') do
    if set ~= ARGV[4] and count < tonumber(ARGV[7]) then
      sets, count = sets .. '\n' .. set, count + 1
    end
  end
  redis.call('HSET', KEYS[1], 'vary', sets, ARGV[2], ARGV[3])
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
end
if holder then redis.call('DEL', KEYS[3]) end
return 1
