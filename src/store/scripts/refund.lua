-- refund: gives back what take took, unless it has left the window since.
-- KEYS[i]    state of window i, as take had them
-- ARGV[1]    u48 now48 of the take
-- ARGV[2]    take's records, with the cost to give back: take.lua
-- reply      how many windows gave something back
local up, pk, floor, call = struct.unpack, struct.pack, math.floor, redis.call
local M, done = 281474976710656, 0
local ts = up('<I6', ARGV[1])
for i = 1, #KEYS do
  local _, _, Q, c = up('<I4I6I6I4', ARGV[2], 21*i - 20)
  local s = call('GET', KEYS[i])
  if s and c > 0 then
    local n = #s/10 - 1
    local lo, hi = 0, n                                    -- first cell with cell.ts >= ts
    if (up('<I6', s, 10*n + 1) - ts) % M < M/2 then
      while hi - lo > 1 do
        local m = floor((lo + hi)/2)
        if (up('<I6', s, 10*m + 1) - ts) % M < M/2 then hi = m else lo = m end
      end
      local prev = up('<I4', s, hi == 1 and 1 or 10*hi - 3)
      local size = (up('<I4', s, 10*hi + 7) - prev) % 4294967296
      -- The cell must be the charge's own: when that is gone, the next one holds younger charges.
      if floor(up('<I6', s, 10*hi + 1)/Q) == floor(ts/Q) and size >= c then
        local p = {s:sub(1, 10*hi)}
        for j = (size == c) and hi + 1 or hi, n do          -- an emptied cell is dropped
          local x, cum = up('<I6I4', s, 10*j + 1)
          p[#p + 1] = pk('<I6I4', x, (cum - c) % 4294967296)
        end
        if n == 1 and size == c then call('DEL', KEYS[i])
        else call('SET', KEYS[i], table.concat(p), 'KEEPTTL') end
        done = done + 1
      end
    end
  end
end
return done
