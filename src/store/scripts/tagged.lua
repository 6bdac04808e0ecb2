-- tagged: gives the clock of tags a new value, and notes which tags were purged with it.
-- KEYS[1]  the clock      KEYS[2]  the notes, the newest at the end
-- ARGV[1]  the clock's new value      ARGV[2]  the life of both in ms
-- ARGV[3]  the names of the tags, 8 bytes each      ARGV[4]  bytes of notes that are looked at
local values = redis.call('MGET', KEYS[1], KEYS[2])
local before, old, new = values[1] or '', values[2] or '', {}
if #before ~= 16 then before = string.rep('\0', 16) end
for at = 1, #ARGV[3], 8 do
  new[#new + 1] = before .. ARGV[3]:sub(at, at + 7)
end
new = table.concat(new)
local most = tonumber(ARGV[4])
if values[2] and #old + #new <= 2 * most then
  -- Replicas are sent no more than this.
  redis.call('SETRANGE', KEYS[2], #old, new)
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
else
  -- Also where an application wrote something else.
  redis.call('SET', KEYS[2], (old .. new):sub(-most), 'PX', ARGV[2])
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
