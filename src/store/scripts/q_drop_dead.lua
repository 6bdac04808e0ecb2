-- q_drop_dead, behind q_common: deletes the oldest dead items.
-- KEYS     as in q_common, none of them of an item | 8 dead | 9 what stands before an id in the key of a body
-- ARGV     1 most
-- reply    how many
local ids = redis.call('ZRANGE', KEYS[8], 0, ARGV[1] - 1)
for _, id in ipairs(ids) do forget(id, 8, 9) end
return #ids
