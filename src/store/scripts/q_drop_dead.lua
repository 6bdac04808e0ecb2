-- q_drop_dead: deletes the oldest dead items.
-- KEYS     1 dead | 2 what stands before an id in the key of an item | 3 the same of a body   ARGV  1 most
-- reply    how many
local ids = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1)
for _, id in ipairs(ids) do
  redis.call('UNLINK', KEYS[2] .. id, KEYS[3] .. id)
  redis.call('ZREM', KEYS[1], id)
end
return #ids
