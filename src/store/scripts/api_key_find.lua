-- api_key_find: the record of an API key by its id.
-- KEYS[1]  the id's key   ARGV[1]  what stands before the digest in the keys of records
-- ARGV[2]  most bytes of a record that are of use: of a longer one, one byte more is sent
-- reply    {digest, record}, or false
local digest = redis.call('GETRANGE', KEYS[1], 0, 127)
local record = digest ~= '' and redis.call('GETRANGE', ARGV[1] .. digest, 0, ARGV[2]) or ''
return record ~= '' and {digest, record}
