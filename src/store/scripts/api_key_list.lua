-- api_key_list: the newest API keys of one owner; what is gone is taken out of the index.
-- KEYS[1]  the index   ARGV[1]  how many
-- ARGV[2]  what stands before the id in the keys of ids   ARGV[3]  and before the digest in those of records
-- reply    {ids in the index, record, …}
local reply = {0}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'REV')) do
  local digest = redis.call('GET', ARGV[2] .. id)
  local record = digest and redis.call('GET', ARGV[3] .. digest)
  if record then reply[#reply + 1] = record else redis.call('ZREM', KEYS[1], id) end
end
reply[1] = redis.call('ZCARD', KEYS[1])
return reply
