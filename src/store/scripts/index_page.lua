-- index_page: reads an index.
-- KEYS[1]  the index   ARGV[1]  how many   ARGV[2]  newest, or oldest, for where to begin
-- reply    {ids in the index, id, score, …}
local reply
if ARGV[2] == 'newest' then
  reply = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'REV', 'WITHSCORES')
else
  reply = redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'WITHSCORES')
end
table.insert(reply, 1, redis.call('ZCARD', KEYS[1]))
return reply
