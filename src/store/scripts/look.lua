-- look: variants of an entry and, if none of them is stored or ARGV[3] is '1', the lock.
-- KEYS[1]  the entry, a hash      KEYS[2]  the lock
-- ARGV[1]  the token of who wants the lock      ARGV[2]  its life in ms
-- ARGV[3]  '1' to want it in any case      ARGV[4...]  the names of variants
-- reply    the token of who has the lock now, or nil where it is not wanted; the sets of field names
--          by which variants are chosen; the variants
local found = redis.pcall('HMGET', KEYS[1], 'vary', unpack(ARGV, 4))
-- What an application wrote under the key is no entry.
if found.err then found = {} end
local stored = (found[1] or '') ~= ''
for i = 2, #ARGV - 2 do stored = stored or found[i] end
local reply = { false }
for i = 1, #ARGV - 2 do reply[i + 1] = found[i] or false end
if stored and ARGV[3] ~= '1' then return reply end
local taken = redis.pcall('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
if not taken then
  reply[1] = redis.call('GET', KEYS[2])
elseif not taken.err then
  reply[1] = ARGV[1]
end
-- A server that takes no writes now has no lock to give; what was read is good.
return reply
