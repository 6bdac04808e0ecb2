-- q_follow, behind q_common and before q_settle: puts an item into another queue, once for its idempotency key. That
-- queue's bounds are not asked: what follows from an end is never refused.
-- KEYS     from `at` on: 1 ready | 2 open | 3 bytes | 4 the item | 5 its body | 6 its idempotency key | 7 what stands
--          before the digest of an order key | 8 later | 9 what stands before an id in the key of an item
--          and 5 of the item that ends: as long as it can end once more, it knows what has followed
-- ARGV     from `from` on: 1 id | 2 life of what is written, ms | 3 life of the idempotency key, ms | 4 head | 5 owner
--          6 how long it is tried, ms | 7 1: it stands in the line of the same order key | 8 body
--          9 what it is queued once for
local follow = function(at, from, of_line)
  local id, head, body = ARGV[from], ARGV[from + 3], ARGV[from + 7]
  local life, counted = ARGV[from + 1], #head + #body
  local mark = '>' .. ARGV[from + 8]
  if redis.call('HGET', KEYS[5], mark) then return 0 end
  redis.call('HSET', KEYS[5], mark, id)
  -- An item that ended before there were marks has this alone.
  if redis.call('EXISTS', KEYS[at + 5]) == 1 then return 0 end
  redis.call('SET', KEYS[at + 5], id .. ' -', 'PX', ARGV[from + 2])
  local state, entry, line, order = 'w', '', '', string.match(of_line, '[^:]*$')
  if ARGV[from + 6] == '1' and order ~= '' then line = KEYS[at + 6] .. order end
  if line ~= '' then unblock(line, at + 8, at, at + 7, now) end
  if line ~= '' and redis.call('RPUSH', line, id) > 1 then
    state = 'b'
  else
    entry = put(at, id, now)
  end
  if body ~= '' then redis.call('SET', KEYS[at + 4], body, 'PX', life) end
  redis.call('HSET', KEYS[at + 3], 's', state, 'q', entry, 'h', head, 'o', ARGV[from + 4],
    'u', text(now + ARGV[from + 5]), 'd', text(now), 't', text(now), 'y', counted)
  if line ~= '' then redis.call('HSET', KEYS[at + 3], 'l', line) end
  redis.call('PEXPIRE', KEYS[at + 3], life)
  redis.call('ZADD', KEYS[at + 1], text(now), id)
  redis.call('INCRBY', KEYS[at + 2], counted)
  for _, key in ipairs({at, at + 1, at + 2, at + 7}) do touch(key, KEYS[at + 3]) end
  if line ~= '' and redis.call('PTTL', line) < tonumber(life) then redis.call('PEXPIRE', line, life) end
  return 1
end
