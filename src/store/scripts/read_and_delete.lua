-- read_and_delete: a string that nobody gets again.
-- KEYS[1]  the string            reply    the string, or nothing
local found = redis.call('GET', KEYS[1])
if found then
  redis.call('DEL', KEYS[1])
end
return found
