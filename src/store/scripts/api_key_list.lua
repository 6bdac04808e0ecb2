-- api_key_list: the newest API keys of one owner; what is gone is taken out of the index.
-- KEYS[1]  the index   ARGV[1]  how many
-- ARGV[2]  what stands before the id in the keys of ids   ARGV[3]  and before the digest in those of records
-- ARGV[4]  most bytes of a record that are of use: of a longer one, one byte more is sent
-- reply    {ids in the index, record, …}
local reply = {0}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[1] - 1, 'REV')) do
  local digest = redis.call('GETRANGE', ARGV[2] .. id, 0, 127)
  local record = digest ~= '' and redis.call('GETRANGE', ARGV[3] .. digest, 0, ARGV[4]) or ''
  if record ~= '' then reply[#reply + 1] = record else redis.call('ZREM', KEYS[1], id) end
end
reply[1] = redis.call('ZCARD', KEYS[1])
return reply
