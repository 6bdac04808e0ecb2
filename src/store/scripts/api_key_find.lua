-- api_key_find: the record of an API key by its id.
-- KEYS[1]  the id's key   ARGV[1]  what stands before the digest in the keys of records
-- reply    {digest, record}, or false
local digest = redis.call('GET', KEYS[1])
local record = digest and redis.call('GET', ARGV[1] .. digest)
return record and {digest, record}
