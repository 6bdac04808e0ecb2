-- swap: changes a value that begins as the caller left it
-- KEYS[1]  the value
-- ARGV[1]  what it begins with   ARGV[2]  what it becomes; nothing: it goes   ARGV[3]  its life in ms
-- reply    1 when it began so
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
