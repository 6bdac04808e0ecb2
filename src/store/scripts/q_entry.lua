-- q_entry, before the scripts that put ids into the stream of those whose turn has come. Redis finds an entry by
-- looking at all that stand before it in its node, which has 4,096 bytes or 100 entries. So entries are long, and few
-- in a node.
local pad = '----------------------------------------------------------------------------------------------------'
-- Puts an id into the stream KEYS[at], and tells the number of its entry. A stream that was lost numbers from a
-- millisecond ahead when it is made anew. So no number of before is another's, and who holds one may delete it unseen.
-- `now` is in Unix ms.
local put = function(at, id, now)
  return redis.call('XADD', KEYS[at], 'NOMKSTREAM', '*', 'i', id, 'p', pad)
    or redis.call('XADD', KEYS[at], string.format('%.0f-0', now + 1), 'i', id, 'p', pad)
end
