-- events_take: reads entries of an application's stream for a group of gateways, and says whether any were missed
-- KEYS[1]  the stream      ARGV[1]  the group   ARGV[2]  the one consumer   ARGV[3]  most entries
-- ARGV[5]  most bytes of a page and of an entry
-- ARGV[4]  'read': what was read and not acknowledged, else what is new
--          'begin': what is gone is dealt with; ARGV[6]  how many entries are gone, as the reply said it
-- reply    {1 where entries are gone that nobody read, 2 where the group has never read and none is gone; nothing is
--           read then; 0 otherwise, now in ms, entries that are gone, entries that were ever added,
--           1 where there may be more, {id, {name, value, ...}, nil where it is gone or 1 where it is too long}...}
local key, name = KEYS[1], ARGV[1]
local clock, state, gone, added, group = redis.call('TIME'), 0, 0, 0, nil
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
  added = of(stream, 'entries-added')
  gone = added - of(stream, 'length')
end
if ARGV[4] == 'begin' then
  -- What is gone counts as read. A new group reads all that is there, never from the end: what came meanwhile counts.
  if group then
    redis.call('XGROUP', 'SETID', key, name, of(group, 'last-delivered-id'), 'ENTRIESREAD', ARGV[6])
  else
    redis.call('XGROUP', 'CREATE', key, name, '0', 'MKSTREAM', 'ENTRIESREAD', ARGV[6])
  end
  return {}
end
local read = group and of(group, 'entries-read')
if not group then
  state = gone > 0 and 1 or 2
elseif read and gone > read then
  state = 1
end
local function text(number)
  return string.format('%.0f', number)
end
local now = text(clock[1] * 1000 + math.floor(clock[2] / 1000))
local reply = {state, now, text(gone), text(added), 0}
if state > 0 then return reply end
local room, entries_read, last = tonumber(ARGV[5]), 0, nil
local function bytes(entry)
  -- Around each text are its length and two ends of lines.
  local sum = 64
  for _, one in ipairs(entry[2] or {}) do sum = sum + #one + 16 end
  return sum
end
local function take(from)
  local found = redis.call('XREADGROUP', 'GROUP', name, ARGV[2], 'COUNT', ARGV[3], 'STREAMS', key, from)
  for _, entry in ipairs(found and found[1][2] or {}) do
    entries_read, last = entries_read + 1, entry[1]
    local sum = bytes(entry)
    if sum > tonumber(ARGV[5]) then entry, sum = {entry[1], 1}, 64 end
    -- An entry behind one that had no room has none: the oldest come first.
    room = room >= 0 and room - sum or room
    -- What has no room is read and not acknowledged, and comes first the next time.
    if room >= 0 then reply[#reply + 1] = entry else reply[5] = 1 end
  end
  if entries_read >= tonumber(ARGV[3]) then reply[5] = 1 end
end
-- Whoever read before may have died, or lost the lock, with entries in hand: they come first, whenever there are any.
if of(group, 'pending') > 0 then take('0') end
if entries_read == 0 then
  take('>')
  -- Redis tells neither its file nor its replicas how much a group has read; this says so.
  if read and entries_read > 0 then
    redis.call('XGROUP', 'SETID', key, name, last, 'ENTRIESREAD', read + entries_read)
  end
end
return reply
