-- remember: stores a response unless its path was invalidated since the fetch began.
-- KEYS[1]  the entry      KEYS[2]  the path's epoch (same hash tag)
-- ARGV[1]  the epoch read before the fetch, '' for none   ARGV[2]  the value   ARGV[3]  its life in ms
-- reply    1 stored, 0 refused
if (redis.call('GET', KEYS[2]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
