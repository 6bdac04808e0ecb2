-- q_unblock, before the scripts that put an item into a line: takes those whose records are gone from the front of
-- that line, and has the next one go. Whoever came behind them would wait for nobody.
-- KEYS     at `items` what stands before an id in the key of an item | at `ready` and `later` those of its queue
local unblock = function(line, items, ready, later, now)
  for gone = 0, 1000 do
    local first = redis.call('LINDEX', line, 0)
    if not first then return end
    local item = KEYS[items] .. first
    local its = redis.call('HMGET', item, 's', 'd')
    if its[1] then
      if gone == 0 or its[1] ~= 'b' then return end
      local entry = ''
      if tonumber(its[2]) > now then
        redis.call('ZADD', KEYS[later], its[2], first)
      else
        entry = put(ready, first, now)
      end
      redis.call('HSET', item, 's', 'w', 'q', entry)
      return
    end
    redis.call('LREM', line, 1, first)
  end
end
