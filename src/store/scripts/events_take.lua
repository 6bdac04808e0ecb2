-- events_take: reads entries of an application's stream for the group of gateways, and says whether any were missed
-- KEYS[1]  the stream      ARGV[1]  the group   ARGV[2]  the one consumer   ARGV[3]  most entries
-- ARGV[4]  'again': what was read and not acknowledged   'new': what is new
--          'missed': what was missed is dealt with; ARGV[5]  as the reply said it
-- reply    {1 where entries are gone that nobody read: none is read then, now in ms, entries that are gone,
--           {id, {name, value, ...} or nil}...}
local key, name = KEYS[1], ARGV[1]
local clock, missed, removed, group = redis.call('TIME'), 0, 0, nil
local function of(list, wanted)
  for i = 1, #list, 2 do
    if list[i] == wanted then return list[i + 1] end
  end
end
if redis.call('EXISTS', key) == 1 then
  for _, one in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    if of(one, 'name') == name then group = one end
  end
  local stream = redis.call('XINFO', 'STREAM', key)
  removed = of(stream, 'entries-added') - of(stream, 'length')
end
if ARGV[4] == 'missed' then
  -- What is gone counts as read. A new group reads all that is there, never from the end: what came meanwhile counts.
  if group then
    redis.call('XGROUP', 'SETID', key, name, of(group, 'last-delivered-id'), 'ENTRIESREAD', ARGV[5])
  else
    redis.call('XGROUP', 'CREATE', key, name, '0', 'MKSTREAM', 'ENTRIESREAD', ARGV[5])
  end
  return {}
end
local read = group and of(group, 'entries-read')
if not group or (read and removed > read) then missed = 1 end
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local reply = {missed, now, string.format('%.0f', removed)}
if missed == 1 then return reply end
local from = ARGV[4] == 'again' and '0' or '>'
local found = redis.call('XREADGROUP', 'GROUP', name, ARGV[2], 'COUNT', ARGV[3], 'STREAMS', key, from)
if found then
  for _, entry in ipairs(found[1][2]) do reply[#reply + 1] = entry end
end
return reply
