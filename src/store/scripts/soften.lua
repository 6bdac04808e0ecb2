-- soften: gives an epoch a new soft half and keeps the hard one.
-- KEYS[1]  the epoch
-- ARGV[1]  the new soft half      ARGV[2]  the epoch's life in ms      ARGV[3]  a whole new epoch
-- A value that is no epoch becomes a whole new one.
local value = redis.call('MGET', KEYS[1])[1]
local is_none = not value and redis.call('EXISTS', KEYS[1]) == 0
local new = is_none and (string.rep('\0', 8) .. ARGV[1]) or ARGV[3]
if value and #value == 16 then new = value:sub(1, 8) .. ARGV[1] end
redis.call('SET', KEYS[1], new, 'PX', ARGV[2])
